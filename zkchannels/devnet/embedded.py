"""The embedded chain: `zkchannels.devnet.machine` as a node of its own, for machines without anvil.

Run as ``python -m zkchannels.devnet.embedded --port N``: JSON-RPC over HTTP and WebSocket with
`eth_subscribe("newHeads")` on loopback, until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from zkchannels.devnet.child import Child
from zkchannels.devnet.control import DevChain

if TYPE_CHECKING:
    from aiohttp import web

    from zkchannels.devnet.machine import Machine

PARSE_ERROR = -32700
INVALID_REQUEST = -32600


class Embedded(DevChain):
    """A running embedded chain, a process of its own.

    `finalized` lags two blocks behind the head, `safe` one. Each transaction gets a block at once;
    with `block_time` (seconds) empty blocks come at that interval as well.
    """

    def __init__(self, *, block_time: float | None = None, port: int = 0) -> None:
        command = [sys.executable, "-m", __name__, "--port", str(port)]
        if block_time is not None:
            command += ["--block-time", str(block_time)]
        child = Child(command, ready="listening on ")
        super().__init__(child, child.ready_line.split()[-1])


class _Server:
    """Answers requests one after the other and tells subscribers about new blocks."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._subscribers: dict[web.WebSocketResponse, set[str]] = {}
        self._ids = itertools.count(1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One HTTP request, or the life of one WebSocket."""
        from aiohttp import WSMsgType, web  # noqa: PLC0415

        if request.headers.get("Upgrade", "").lower() != "websocket":
            answer = await self._answer(await request.text(), None)
            return web.json_response(text=answer)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._subscribers[socket] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(await self._answer(message.data, socket))
        finally:
            del self._subscribers[socket]
        return socket

    async def mine_every(self, seconds: float) -> None:
        """Append an empty block at an interval, for ever."""
        while True:
            await asyncio.sleep(seconds)
            before = self._machine.head
            self._machine.request("evm_mine", [])
            await self._publish(before)

    async def _answer(self, text: str, socket: web.WebSocketResponse | None) -> str:
        try:
            document = json.loads(text)
        except ValueError:
            return json.dumps(_failure(None, PARSE_ERROR, "not JSON"))
        before = self._machine.head
        if isinstance(document, list):
            answer: Any = [self._one(request, socket) for request in document]
        else:
            answer = self._one(document, socket)
        await self._publish(before)
        return json.dumps(answer)

    def _one(self, request: Any, socket: web.WebSocketResponse | None) -> dict[str, Any]:
        from zkchannels.devnet.machine import Refused  # noqa: PLC0415

        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, INVALID_REQUEST, "not a request")
        identity, method, params = request.get("id"), request["method"], request.get("params") or []
        try:
            if socket is not None and method == "eth_subscribe":
                result: Any = self._subscribe(params, socket)
            elif socket is not None and method == "eth_unsubscribe":
                result = self._unsubscribe(params, socket)
            else:
                result = self._machine.request(method, params)
        except Refused as error:
            return _failure(identity, error.code, error.message, error.data)
        return {"jsonrpc": "2.0", "id": identity, "result": result}

    def _subscribe(self, params: list[Any], socket: web.WebSocketResponse) -> str:
        from zkchannels.devnet.machine import INVALID_PARAMS, Refused  # noqa: PLC0415

        if params != ["newHeads"]:
            raise Refused(INVALID_PARAMS, "only newHeads can be subscribed to")
        subscription = hex(next(self._ids))
        self._subscribers[socket].add(subscription)
        return subscription

    def _unsubscribe(self, params: list[Any], socket: web.WebSocketResponse) -> bool:
        known = self._subscribers[socket]
        found = bool(params) and params[0] in known
        known.difference_update(params)
        return found

    async def _publish(self, before: int) -> None:
        for number in range(before + 1, self._machine.head + 1):
            block = self._machine.request("eth_getBlockByNumber", [hex(number)])
            for socket, subscriptions in list(self._subscribers.items()):
                for subscription in subscriptions:
                    params = {"subscription": subscription, "result": block}
                    note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
                    try:
                        await socket.send_str(json.dumps(note))
                    except ConnectionError:
                        break  # its own handler sees the end of the connection


def _failure(identity: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": identity, "error": error}


async def _serve(port: int, block_time: float | None) -> None:
    from aiohttp import web  # noqa: PLC0415

    from zkchannels.devnet.machine import Machine  # noqa: PLC0415

    server = _Server(Machine())
    application = web.Application(client_max_size=1 << 22)
    application.router.add_route("*", "/", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    host, bound = runner.addresses[0][:2]
    sys.stdout.write(f"listening on http://{host}:{bound}\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as tasks:
        miner = None
        if block_time is not None:
            miner = tasks.create_task(server.mine_every(block_time))
        await stopped.wait()
        if miner is not None:
            miner.cancel()
    await runner.cleanup()


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m zkchannels.devnet.embedded")
    parser.add_argument(
        "--port", type=int, default=0, help="TCP port on 127.0.0.1; 0: any free one"
    )
    parser.add_argument("--block-time", type=float, help="seconds between empty blocks")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.block_time))
    return 0


if __name__ == "__main__":
    sys.exit(main())
