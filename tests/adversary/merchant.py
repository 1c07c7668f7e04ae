"""A merchant with the merchant's real keys that misbehaves as it is ordered to.

`python -m tests.adversary.merchant --orders SOCKET [--misbehave METHOD=WHAT ...] --config FILE run`
is merchantd in every respect, but for the answers that an order is about. Orders come as lines of
JSON on a Unix socket, so that a test can change its merchant's mind between two messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

import merchantd.app
from merchantd.__main__ import main
from merchantd.handlers import MerchantHandlers
from tests.adversary import points
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire import merchant as wire

Order = dict[str, Any]
Given = Order | list[Order]
"""One order for every call, or one for each of the next calls."""
SIGNATURE = {
    "establish.prove": "signature",
    "establish.activate": "token",
    "pay.prove": "signature",
    "pay.revoke": "token",
}
"""Where a method's answer carries a blind signature."""


_ENDS = ("refuse", "fail", "hang up", "write", "never answer")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that there is an order about; `truth` answers it honestly."""

    order: Order
    method: Method[Any, Any]
    params: Any
    peer: Peer
    identity: int
    truth: Callable[[], Awaitable[Any]]


class Orders:
    """What to do about each method, and how often each was called since it was ordered."""

    def __init__(self) -> None:
        self.by_method: dict[str, Given] = {}
        self._calls: dict[str, int] = {}
        self._held: dict[tuple[str, bytes | None], Order] = {}
        self._round = 0
        self._changed = asyncio.Condition()

    async def give(self, orders: dict[str, Given]) -> None:
        """Replace all orders; whatever was held goes on."""
        async with self._changed:
            self.by_method = orders
            self._held.clear()
            self._round += 1
            self._calls = {}
            self._changed.notify_all()

    async def called(self, method: str, nonce: bytes | None) -> Order | None:
        """Count a call; return the order about it, if there is one.

        A payment that was held stays held when it is tried again.
        """
        held = self._held.get((method, nonce))
        if held is not None and nonce is not None:
            return held
        async with self._changed:
            self._calls[method] = self._calls.get(method, 0) + 1
            self._changed.notify_all()
        given = self.by_method.get(method)
        if not isinstance(given, list):
            return given
        order = given.pop(0) if given else None
        if order is not None and order["do"] == "hold":
            self._held[method, nonce] = order
        return order

    async def reached(self, method: str, count: int) -> None:
        """Return once a method was called so often."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._calls.get(method, 0) >= count)

    async def changed(self) -> None:
        """Return once there are other orders."""
        async with self._changed:
            present = self._round
            await self._changed.wait_for(lambda: self._round != present)

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take orders and questions, one JSON line each, and answer when they are done."""
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                if "orders" in asked:
                    await self.give(asked["orders"])
                else:
                    await self.reached(asked["reached"], asked.get("count", 1))
                writer.write(b"{}\n")
                await writer.drain()
        finally:
            writer.close()


class MisbehavingHandlers(MerchantHandlers):
    """merchantd's handlers, each wrapped in what the orders say about its answer."""

    orders_path: str
    first_orders: dict[str, Given]

    def register(self, handlers: Handlers) -> None:
        """Register every method of the protocol, wrapped, and listen for orders."""
        self._orders = Orders()
        self._orders.by_method = dict(self.first_orders)
        self._kept: dict[str, Any] = {}
        self._counts: weakref.WeakKeyDictionary[Peer, int] = weakref.WeakKeyDictionary()
        honest = Handlers(task_group=handlers.task_group)
        super().register(honest)
        for method in wire.METHODS:
            entry = honest.find(method.name)
            assert entry is not None
            handlers.register(method, self._wrapped(method, entry.handler))
        assert handlers.task_group is not None
        handlers.task_group.create_task(self._listen(), name="orders")

    async def _listen(self) -> None:
        server = await asyncio.start_unix_server(self._orders.hear, self.orders_path)
        async with server:
            await server.serve_forever()

    def _wrapped(
        self, method: Method[Any, Any], honest: Callable[[Any, Peer], Any]
    ) -> Callable[[Any, Peer], Awaitable[Any]]:
        async def answer(params: Any, peer: Peer) -> Any:
            self._counts[peer] = identity = self._counts.get(peer, 0) + 1

            async def truth() -> Any:
                result = honest(params, peer)
                return await result if isinstance(result, Awaitable) else result

            order = await self._orders.called(method.name, getattr(params, "nonce", None))
            if order is None:
                result = await truth()
                self._kept.setdefault(method.name, result)
                return result
            call = Call(order, method, params, peer, identity, truth)
            if order["do"] in _ENDS:
                return await self._end(call)
            return await self._lie(call)

        return answer

    async def _end(self, call: Call) -> Any:
        """Give no answer, or none that means yes.

        "after" takes what the customer brought and keeps it, as the honest merchant would.
        """
        order = call.order
        result = await call.truth() if order.get("after", True) else None
        match order["do"]:
            case "refuse":
                raise wire.ERRORS.error(order["kind"], order.get("message", "no"))
            case "fail":
                raise RpcError(order.get("code", -1), order["message"], order.get("data"))
            case "hang up":
                call.peer.abort()
            case "write":
                await _write(call, result)
        await asyncio.Event().wait()

    async def _lie(self, call: Call) -> Any:
        """Answer late, or something else than the truth."""
        order = call.order
        match order["do"]:
            case "answer":
                return call.method.decode_result(msgspec.Raw(msgspec.json.encode(order["result"])))
            case "hold":
                result = await call.truth() if order.get("after", True) else None
                await self._orders.changed()
                return await call.truth() if result is None else result
            case "replay":
                await call.truth()
                return self._kept[call.method.name]
            case "change":
                return msgspec.structs.replace(await call.truth(), **order["fields"])
            case "other session":
                return msgspec.structs.replace(await call.truth(), session=secrets.token_bytes(16))
            case "forge":
                return await self._forge(call)
            case unknown:
                raise ValueError(f"no such misbehaviour: {unknown}")

    async def _forge(self, call: Call) -> Any:
        result, field = await call.truth(), SIGNATURE[call.method.name]
        honest = getattr(result, field)
        if honest is None:
            return result  # the funding is not final: there is nothing to forge yet
        commitment = await self._commitment(call)
        forged = points.forged(call.order["how"], self._key, commitment, honest)
        return msgspec.structs.replace(result, **{field: forged})

    async def _commitment(self, call: Call) -> bytes:
        """Return the commitment that an honest merchant would sign in this answer."""
        match call.method.name:
            case "establish.prove":
                return bytes(call.params.proof[48:96])
            case "establish.activate":
                return (await self._known_channel(call.params.channel)).commitments[:48]
            case "pay.prove":
                return bytes(call.params.proof[144:192])
            case _:
                return (await self._known_payment(call.params.nonce)).commitments[:48]


async def _write(call: Call, result: Any) -> None:
    """Write what no honest merchant writes, past everything that bounds and checks it."""
    transport, order = call.peer.transport, call.order
    answer = {"jsonrpc": "2.0", "id": call.identity, "result": result}
    line = msgspec.json.encode(answer) + b"\n"
    match order["what"]:
        case "raw":
            transport.write(order["text"].replace("$ID", str(call.identity)).encode() + b"\n")
        case "oversize":
            transport.write(b"x" * (8 << 20))
        case "drip":
            for number in range(len(line)):
                transport.write(line[number : number + 1])
                await asyncio.sleep(0.2)
        case "flood":
            while not transport.is_closing():
                transport.write(order["text"].encode() * 2000)
                await asyncio.sleep(0)  # a broken connection is noticed by the loop
                await call.peer.drain()
        case "twice":
            transport.write(line + line)
        case "half":
            transport.write(line[: len(line) // 2])
            transport.close()


def run() -> int:
    """Be merchantd, with handlers that take orders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", required=True)
    parser.add_argument("--misbehave", action="append", default=[], metavar="METHOD=WHAT")
    options, rest = parser.parse_known_args()
    MisbehavingHandlers.orders_path = options.orders
    MisbehavingHandlers.first_orders = {
        method: {"do": what}
        for method, _, what in (text.partition("=") for text in options.misbehave)
    }
    merchantd.app.MerchantHandlers = MisbehavingHandlers  # type: ignore[misc]
    return main(rest)


if __name__ == "__main__":
    sys.exit(run())
