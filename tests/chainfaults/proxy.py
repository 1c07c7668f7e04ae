"""A node that misbehaves: HTTP and WebSocket in front of a real one, with one fault at a time.

It runs in a thread of its own, so that blocking tests of whole networks and asyncio tests use the
same one. Setting `fault` changes how the next requests are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from zkchannels.devnet.control import DevChain

LONG = 1 << 20  # characters: longer than any honest answer here


class Fault:
    """How one kind of node answers; this one is honest.

    `asked` is a request's method and parameters as they go to the real node; `answer` is what the
    real node said, as it goes back.
    """

    websocket = "honest"  # or "dead": it opens and never speaks; "silent": it does not open
    passes_on = True  # whether transactions reach the real node

    async def raw(self) -> web.StreamResponse | None:
        """Answer a whole HTTP request, None to go on with what is in it."""
        return None

    def asked(self, method: str, params: list[Any]) -> tuple[str, list[Any]]:
        """Change the question."""
        return method, params

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Change the answer to the question as it was asked."""
        return answer


HONEST = Fault()


@dataclass
class Status(Fault):
    """Every request gets this HTTP status."""

    status: int

    async def raw(self) -> web.StreamResponse | None:
        """Nothing else."""
        return web.Response(status=self.status, text="{}")


@dataclass
class Said(Fault):
    """Every request gets this text."""

    text: str

    async def raw(self) -> web.StreamResponse | None:
        """Nothing else."""
        return web.Response(text=self.text)


TRUNCATED = Said('{"jsonrpc":"2.0","id":1,"result":{"number":"0x')
HUGE = Said('{"jsonrpc":"2.0","id":1,"result":"0x' + "0" * (65 * LONG) + '"}')


class Stalled(Fault):
    """Requests are taken and never answered, and no WebSocket gets through its handshake."""

    websocket = "silent"

    async def raw(self) -> web.StreamResponse | None:
        """Wait for ever."""
        await asyncio.Event().wait()
        return None


@dataclass
class Refusing(Fault):
    """Every request is refused with this error, but for the chain's id."""

    code: int
    message: str

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Say no."""
        if method == "eth_chainId":
            return answer
        return {"error": {"code": self.code, "message": self.message}}


class DeadWebSocket(Fault):
    """All is well over HTTP; the WebSocket accepts, and never says anything."""

    websocket = "dead"


@dataclass
class Behind(Fault):
    """A node that stands still: it knows no block after `head`, and keeps transactions for itself.

    `finalized` lags two blocks behind its head.
    """

    head: int
    websocket = "dead"
    passes_on = False

    def asked(self, method: str, params: list[Any]) -> tuple[str, list[Any]]:
        """Put its own head where the newest block is asked for."""
        tags = {"latest": hex(self.head), "pending": hex(self.head)}
        tags["finalized"] = hex(max(self.head - 2, 0))
        tags["safe"] = tags["finalized"]
        return method, [tags.get(value, value) if isinstance(value, str) else value
                        for value in params]  # fmt: skip

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Leave out what is newer."""
        if method == "eth_sendRawTransaction":
            return {"result": "0x" + "00" * 32}
        found: Any = answer.get("result")
        if method == "eth_getLogs" and isinstance(found, list):
            return {"result": [log for log in found if int(log["blockNumber"], 16) <= self.head]}
        number = _number(found)
        if number is not None and number > self.head:
            return {"result": None}
        return answer


@dataclass
class Ahead(Fault):
    """The head it tells of is `more` blocks further than any there is."""

    more: int

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Raise the number of the newest block."""
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            found = answer["result"]
            higher = hex(int(found["number"], 16) + self.more)
            return {"result": found | {"number": higher, "hash": _other(found["hash"])}}
        return answer


@dataclass
class Flapping(Fault):
    """Its head jumps: honest, older, newer, of another hash, from one request to the next."""

    turn: int = 0

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Take the next of the four."""
        if method != "eth_getBlockByNumber" or params[0] != "latest":
            return answer
        self.turn += 1
        found = answer["result"]
        number = int(found["number"], 16)
        return {
            "result": [
                found,
                found | {"number": hex(max(number - 5, 0))},
                found | {"number": hex(number + 3), "hash": _other(found["hash"])},
                found | {"hash": _other(found["hash"]), "parentHash": _other(found["hash"])},
            ][self.turn % 4]
        }


@dataclass
class AnotherBranch(Fault):
    """A chain of its own from a block on, without any event: consistent in all it says."""

    fork: int
    known: dict[str, str] = field(default_factory=dict)
    passes_on = False

    def asked(self, method: str, params: list[Any]) -> tuple[str, list[Any]]:
        """Translate its hashes back."""
        text = json.dumps(params)
        for theirs, real in self.known.items():
            text = text.replace(theirs, real)
        return method, json.loads(text)

    def answer(self, method: str, params: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Give every later block another hash, and leave out what happened in it."""
        if method == "eth_sendRawTransaction":
            return {"result": "0x" + "00" * 32}
        found: Any = answer.get("result")
        if method == "eth_getLogs" and isinstance(found, list):
            return {"result": [log for log in found if int(log["blockNumber"], 16) < self.fork]}
        number = _number(found)
        if number is None or number < self.fork:
            return answer
        if method == "eth_getTransactionReceipt":
            return {"result": None}
        changed = found | {"hash": self._mine(found["hash"])}
        if number > self.fork:
            changed |= {"parentHash": self._mine(found["parentHash"])}
        return {"result": changed}

    def _mine(self, real: str) -> str:
        theirs = _other(real)
        self.known[theirs] = real
        return theirs


def _number(found: Any) -> int | None:
    """The number of a block or of a receipt's block."""
    if not isinstance(found, dict):
        return None
    text = found.get("number", found.get("blockNumber"))
    return None if text is None else int(text, 16)


def _other(text: str) -> str:
    return "0x" + hashlib.sha256(text.encode()).hexdigest()


class FaultProxy:
    """A node at `url` that answers as the real one does, but for its `fault`. A context manager."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._sockets: set[web.WebSocketResponse] = set()
        self._fault: Fault = HONEST
        self.url = ""
        self.asked: Counter[str] = Counter()
        """How often each method was asked for."""

    @property
    def fault(self) -> Fault:
        """How requests are answered now."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault

    def cut_sockets(self) -> None:
        """End every WebSocket."""

        async def cut() -> None:
            for socket in list(self._sockets):
                await socket.close()

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result(30)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as self._session:
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request)
        text, fault = await request.json(), self._fault
        questions = text if isinstance(text, list) else [text]
        self.asked.update(question["method"] for question in questions)
        whole = await fault.raw()
        if whole is not None:
            return whole
        try:
            answers = [await self._one(question, fault) for question in questions]
        except aiohttp.ClientError:  # the real node is away
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.json_response(answers if isinstance(text, list) else answers[0])

    async def _one(self, question: dict[str, Any], fault: Fault) -> dict[str, Any]:
        asked, params = question["method"], question.get("params", [])
        method, changed = fault.asked(asked, list(params))
        kept: dict[str, Any] = {"result": None}
        if asked != "eth_sendRawTransaction" or fault.passes_on:
            real = {"jsonrpc": "2.0", "id": 1, "method": method, "params": changed}
            async with self._session.post(self._chain.url, json=real) as reply:
                answer = await reply.json()
            kept = {name: value for name, value in answer.items() if name in ("result", "error")}
        answer = fault.answer(asked, list(params), kept)
        return {"jsonrpc": "2.0", "id": question["id"], **answer}

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault
        if fault.websocket == "silent":
            await asyncio.Event().wait()
        ours = web.WebSocketResponse()
        await ours.prepare(request)
        self._sockets.add(ours)
        with contextlib.suppress(aiohttp.ClientError):
            if fault.websocket == "dead":
                async for _ in ours:  # pings are answered by the library, all else is not
                    continue
                return ours
            async with self._session.ws_connect(self._chain.ws_url) as theirs:
                await _join(ours, theirs)
        self._sockets.discard(ours)
        await ours.close()
        return ours


async def _join(ours: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
    async def pump(
        source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            async for message in source:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await sink.send_str(message.data)
        await ours.close()
        await theirs.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(pump(ours, theirs))
        group.create_task(pump(theirs, ours))
