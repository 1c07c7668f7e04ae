"""Ask Ethereum nodes over HTTP, several endpoints in order; WebSocket is only a wake-up.

aiohttp is imported when the first request is made: a program is READY before it pays for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from zkchannels.chain import answers
from zkchannels.chain.errors import (
    ChainError,
    ChainUnavailable,
    MalformedAnswer,
    Reverted,
)
from zkchannels.chain.model import Block, FeeSuggestion, Log, Receipt, SendOutcome
from zkchannels.chain.opinions import Comparison, Opinion, judge, number_to_compare

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ChainClient", "ChainError", "ChainUnavailable", "Request", "Reverted"]

T = TypeVar("T")

LARGEST_ANSWER = 64 << 20  # bytes; an eth_getLogs over a busy range, not an endless stream
FIRST_PAUSE = 1.0  # seconds for which a failing endpoint comes last
LONGEST_PAUSE = 60.0
FEE_BLOCKS = 5
SURVEY_TIMEOUT = 3.0  # seconds that one slow node may hold up the comparison with the others
GRACE = 2.0  # seconds that other nodes get to take a transaction that one has taken
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC request with the reader of its result."""

    method: str
    params: tuple[Any, ...]
    read: Callable[[msgspec.Raw], Any]


@dataclass(slots=True)
class _Endpoint:
    """One node: where it is, and what we know of its health."""

    http: str
    websocket: str
    name: str  # without path and password: those may hold an access key
    right_chain: bool = False
    pause: float = 0.0
    quiet_until: float = 0.0
    rank: int = 0  # after the last survey
    blames: int = 0
    trouble: str = field(default="never asked")

    def failed(self, reason: str) -> None:
        self.right_chain = False  # another node may answer there next time
        self.trouble = reason
        self.pause = min(max(self.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self.quiet_until = time.monotonic() + self.pause

    def answered(self) -> None:
        self.pause = self.quiet_until = 0.0

    def blamed(self, reason: str) -> None:
        """Rest longer each time: an answer that can be read does not make it trusted again."""
        self.failed(reason)
        self.blames += 1
        self.quiet_until = time.monotonic() + min(FIRST_PAUSE * 2**self.blames, LONGEST_PAUSE)


class _EndpointFailed(Exception):
    """This endpoint cannot be used now; the next one is asked."""


class ChainClient:
    """A typed client of the Ethereum JSON-RPC interface.

    `endpoints` are URLs, preferred ones first: `https://host/path`, or `http://host:8545
    ws://host:8546` (one text, separated by a space) where the WebSocket is elsewhere. An endpoint
    that fails comes last for a while; what one refuses, the next is asked; `survey` compares them.
    `timeout` and `heartbeat` (of WebSockets: a ping without an
    answer for half as long ends it) are seconds. Every endpoint must be on `chain_id`; without it
    the first one that answers decides. Every method raises ChainUnavailable when no endpoint gives
    a usable answer, and ChainError when one refuses the request.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout: float = 10.0,
        heartbeat: float = 15.0,
        chain_id: int | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("a chain client needs at least one endpoint")
        self._endpoints = [parse_endpoint(text) for text in endpoints]
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._chain_id = chain_id
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)
        self._last = self._endpoints[0]

    @property
    def endpoint(self) -> str:
        """Name of the endpoint that is asked first at the moment."""
        return self._in_order()[0].name

    def expect_chain(self, chain_id: int) -> None:
        """Accept endpoints on this chain only from now on, whatever the first one said."""
        if self._chain_id != chain_id:
            self._chain_id = chain_id
            for endpoint in self._endpoints:
                endpoint.right_chain = False

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- several endpoints ------------------------------------------------------------------------

    async def survey(self, turn: int) -> Comparison | None:
        """Compare the endpoints and ask the best ones first from now on.

        Returns None when there were no two to compare. `turn` decides whose turn it is where no
        chain has a majority.
        """
        now = time.monotonic()
        asked = [end for end in self._endpoints if end.quiet_until <= now]
        if len(asked) < 2:
            return None
        heads = await self._block_of_each(asked, "latest")
        if not heads:
            return None
        number = number_to_compare([head for _, head in heads])
        there = await self._block_of_each([endpoint for endpoint, _ in heads], number)
        if not there:
            return None
        head_of = {id(endpoint): head for endpoint, head in heads}
        verdict = judge(
            [
                Opinion(place, head_of[id(endpoint)], block.hash)
                for place, (endpoint, block) in enumerate(there)
            ],
            turn=turn,
        )
        for rank, place in enumerate(verdict.order):
            there[place][0].rank = rank
        if not verdict.disagree:
            return Comparison() if len(there) > 1 else None
        said = ", ".join(f"{end.name} has {block.hash.hex()[:8]}" for end, block in there)
        text = f"the nodes have different blocks {number}: {said}"
        return Comparison(text, undecided=verdict.undecided)

    def blame(self, reason: str) -> None:
        """Ask the endpoint that answered last after the others for a while: it made no sense."""
        self._last.blamed(reason)

    async def _block_of_each(
        self, endpoints: Sequence[_Endpoint], ref: int | str
    ) -> list[tuple[_Endpoint, Block]]:
        """Return one block as each endpoint has it; those that do not tell it are passed over."""
        found = await asyncio.gather(*(self._block_of(endpoint, ref) for endpoint in endpoints))
        return [(end, block) for end, block in zip(endpoints, found, strict=True) if block]

    async def _block_of(self, endpoint: _Endpoint, ref: int | str) -> Block | None:
        try:
            async with asyncio.timeout(min(SURVEY_TIMEOUT, self._timeout)):
                if not endpoint.right_chain:
                    await self._check_chain(endpoint)
                (block,) = await self._exchange(endpoint, [block_request(ref)])
        except TimeoutError as error:
            endpoint.failed(_reason(error))
            return None
        except (_EndpointFailed, MalformedAnswer) as error:
            endpoint.failed(str(error))
            return None
        if isinstance(block, Block):
            return block
        endpoint.failed(f"has no block {ref}" if block is None else f"refuses: {block}")
        return None

    # -- requests ---------------------------------------------------------------------------------

    async def call(self, method: str, *params: Any) -> Any:
        """Return the JSON result of any method."""
        return await self._one(Request(method, params, answers.plain(object)))

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Ask several things in one HTTP request of one endpoint; results in the same order.

        A request that every endpoint refuses gives its ChainError as result, the others their
        values.
        """
        if not requests:
            return []
        first: list[Any] | None = None
        for endpoint in self._in_order():
            results = await self._answer(endpoint, lambda end: self._exchange(end, requests))
            if results is None:
                continue
            self._last = endpoint
            if not any(isinstance(result, ChainError) for result in results):
                return results
            first = results if first is None else first
        if first is None:
            raise self._unavailable()
        return first

    async def chain_id(self) -> int:
        """Return the id of the chain that all endpoints are on (EIP-155)."""
        if self._chain_id is None:
            await self._one(Request("eth_chainId", (), answers.as_quantity))
        assert self._chain_id is not None
        return self._chain_id

    async def block(self, ref: int | str | bytes) -> Block | None:
        """Return a block's header by number, tag or hash; None when the node does not have it."""
        block: Block | None = await self._one(block_request(ref))
        return block

    async def logs(
        self,
        addresses: Iterable[bytes],
        *,
        from_block: int | None = None,
        to_block: int | None = None,
        block_hash: bytes | None = None,
    ) -> list[Log]:
        """Return all logs of the addresses in a range of blocks, or in one block named by hash."""
        request = logs_request(
            addresses, from_block=from_block, to_block=to_block, block_hash=block_hash
        )
        logs: list[Log] = await self._one(request)
        return logs

    async def eth_call(
        self, to: bytes, data: bytes, block: int | str | bytes = "latest", *, value: int = 0
    ) -> bytes:
        """Return what a call of a contract would return; raises Reverted."""
        call = {"to": _hex(to), "data": _hex(data), "value": hex(value)}
        at = {"blockHash": _hex(block)} if isinstance(block, bytes) else _ref(block)
        return await self._bytes("eth_call", call, at)

    async def code(self, address: bytes) -> bytes:
        """Return the code at an address; empty when no contract is there."""
        return await self._bytes("eth_getCode", _hex(address), "latest")

    async def balance(self, address: bytes) -> int:
        """Return an account's balance in wei."""
        return await self._integer("eth_getBalance", _hex(address), "latest")

    async def transaction_count(self, address: bytes, tag: int | str = "latest") -> int:
        """Return how many transactions of the account are included up to a block."""
        return await self._integer("eth_getTransactionCount", _hex(address), _ref(tag))

    async def send_raw(self, raw: bytes) -> SendOutcome:
        """Hand a signed transaction to every node; ordinary refusals are outcomes, not errors.

        A node that takes it and keeps it for itself must not keep it out. The best outcome counts:
        taken by one, else what the first one said. Raises ChainError for any other refusal.
        """
        now = time.monotonic()
        order = self._in_order()
        asked = [end for end in order if end.quiet_until <= now] or order
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._send_to(endpoint, raw)) for endpoint in asked]
            await _first_taken(tasks)
            said = [task.result() for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
        heard = [outcome for outcome in said if outcome is not None]
        if not heard:
            raise self._unavailable()
        best = next((outcome for outcome in heard if outcome in _TAKEN), heard[0])
        if isinstance(best, ChainError):
            raise best
        return best

    async def _send_to(self, endpoint: _Endpoint, raw: bytes) -> SendOutcome | ChainError | None:
        request = Request("eth_sendRawTransaction", (_hex(raw),), answers.as_binary)
        results = await self._answer(endpoint, lambda end: self._exchange(end, [request]))
        if results is None:
            return None
        (result,) = results
        if not isinstance(result, ChainError):
            return SendOutcome.ACCEPTED
        return answers.send_outcome(result) or result

    async def receipt(self, transaction: bytes) -> Receipt | None:
        """Return a transaction's receipt by its hash; None while it is in no block."""
        receipt: Receipt | None = await self._one(receipt_request(transaction))
        return receipt

    async def estimate_gas(self, sender: bytes, to: bytes | None, value: int, data: bytes) -> int:
        """Return the gas a transaction would use now; raises Reverted when it would fail."""
        call = {"from": _hex(sender), "value": hex(value), "data": _hex(data)}
        if to is not None:
            call["to"] = _hex(to)
        return await self._integer("eth_estimateGas", call)

    async def fees(self) -> FeeSuggestion:
        """Return the next block's base fee and the median tip of the last blocks."""
        fees: FeeSuggestion = await self._one(fees_request())
        return fees

    # -- push -------------------------------------------------------------------------------------

    async def new_heads(self) -> AsyncGenerator[None, None]:
        """Yield once subscribed, and at each new head, as a wake-up until the WebSocket dies.

        Nothing may be concluded from what is *not* yielded: nodes drop sockets, and push nothing
        when the head goes back. A silent socket is found dead by its heartbeat. Raises
        ChainUnavailable when no subscription could be made. Use with `contextlib.aclosing`.
        """
        import aiohttp  # noqa: PLC0415 -- costs 0.2 s; READY does not wait for it

        endpoint = await self._somewhere(_itself)
        subscribe = {"jsonrpc": "2.0", "id": 0, "method": "eth_subscribe", "params": ["newHeads"]}
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout):
                    opening = self._open().ws_connect(
                        endpoint.websocket, heartbeat=self._heartbeat, timeout=_close_timeout()
                    )
                    socket = await stack.enter_async_context(opening)
                await socket.send_json(subscribe)
                async with asyncio.timeout(self._timeout):
                    answer = await socket.receive()
                if answer.type is not aiohttp.WSMsgType.TEXT:
                    raise ChainUnavailable(f"{endpoint.name}: no subscription")
                _check_subscribed(endpoint.name, answer.data)
                yield
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    yield
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ChainUnavailable(f"{endpoint.name}: {_reason(error)}") from None

    # -- one request, on the first endpoint that answers ------------------------------------------

    async def _one(self, request: Request) -> Any:
        (result,) = await self.batch([request])
        if isinstance(result, ChainError):
            raise result
        return result

    async def _integer(self, method: str, *params: Any) -> int:
        number: int = await self._one(Request(method, params, answers.as_quantity))
        return number

    async def _bytes(self, method: str, *params: Any) -> bytes:
        data: bytes = await self._one(Request(method, params, answers.as_binary))
        return data

    async def _somewhere(self, ask: Callable[[_Endpoint], Awaitable[T]]) -> T:
        """Ask the endpoints in order until one gives an answer that can be read."""
        for endpoint in self._in_order():
            result = await self._answer(endpoint, ask)
            if result is not None:
                return result
        raise self._unavailable()

    async def _answer(
        self, endpoint: _Endpoint, ask: Callable[[_Endpoint], Awaitable[T]]
    ) -> T | None:
        """Ask one endpoint; None when it cannot be used now."""
        try:
            if not endpoint.right_chain:
                await self._check_chain(endpoint)
            result = await ask(endpoint)
        except (_EndpointFailed, MalformedAnswer) as error:
            endpoint.failed(str(error))
            return None
        endpoint.answered()
        return result

    def _unavailable(self) -> ChainUnavailable:
        return ChainUnavailable("; ".join(f"{end.name}: {end.trouble}" for end in self._endpoints))

    def _in_order(self) -> list[_Endpoint]:
        now = time.monotonic()  # the sort is stable: the configured order decides at last
        return sorted(self._endpoints, key=lambda end: (end.quiet_until > now, end.rank))

    async def _check_chain(self, endpoint: _Endpoint) -> None:
        """Refuse an endpoint on another chain: it would show and accept other money."""
        question = Request("eth_chainId", (), answers.as_quantity)
        (found,) = await self._exchange(endpoint, [question])
        if isinstance(found, ChainError):
            raise _EndpointFailed(f"does not tell its chain: {found}")
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise _EndpointFailed(f"is on chain {found}, not {self._chain_id}")
        endpoint.right_chain = True

    async def _exchange(self, endpoint: _Endpoint, requests: Sequence[Request]) -> list[Any]:
        numbers = [next(self._ids) for _ in requests]
        objects = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in zip(numbers, requests, strict=True)
        ]
        body = msgspec.json.encode(objects if len(objects) > 1 else objects[0])
        status, text = await self._post(endpoint, body)
        found = {answer.id: answer for answer in _answers(status, text)}
        results = []
        for number, request in zip(numbers, requests, strict=True):
            answer = found.get(number)
            if answer is None:
                raise _EndpointFailed(f"no answer to {request.method}")
            if answer.error is not None:
                results.append(answers.chain_error(answer.error))
            else:
                results.append(request.read(answer.result))
        return results

    async def _post(self, endpoint: _Endpoint, body: bytes) -> tuple[int, bytes]:
        """Send one HTTP request; once more when a kept-alive connection turns out to be closed."""
        import aiohttp  # noqa: PLC0415 -- costs 0.2 s; READY does not wait for it

        for attempt in (1, 2):
            try:
                return await self._post_once(endpoint, body)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
                if attempt == 2:
                    raise _EndpointFailed(_reason(error)) from None
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _EndpointFailed(_reason(error)) from None
        raise AssertionError("unreachable")

    async def _post_once(self, endpoint: _Endpoint, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        async with (
            asyncio.timeout(self._timeout),
            self._open().post(endpoint.http, data=body, headers=headers) as response,
        ):
            parts, length = [], 0
            async for part in response.content.iter_any():
                parts.append(part)
                length += len(part)
                if length > LARGEST_ANSWER:
                    raise _EndpointFailed("answer too long")
            return response.status, b"".join(parts)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 -- costs 0.2 s; READY does not wait for it

        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def parse_endpoint(text: str) -> _Endpoint:
    """Read an endpoint as the configuration has it; raises ValueError without showing its path."""
    parts = text.split()
    schemes = [urlsplit(part).scheme for part in parts]
    if schemes not in (["http"], ["https"], ["http", "ws"], ["https", "wss"]):
        raise ValueError('write an endpoint as "http(s)://…", or "http(s)://… ws(s)://…"')
    address = urlsplit(parts[0])
    if not address.hostname:
        raise ValueError("an endpoint needs a host")
    websocket = parts[1] if len(parts) > 1 else "ws" + parts[0].removeprefix("http")
    port = f":{address.port}" if address.port else ""
    return _Endpoint(parts[0], websocket, f"{address.scheme}://{address.hostname}{port}")


def block_request(ref: int | str | bytes) -> Request:
    """Return the request for a block's header by number, tag or hash."""
    if isinstance(ref, bytes):
        return Request("eth_getBlockByHash", (_hex(ref), False), answers.as_block)
    return Request("eth_getBlockByNumber", (_ref(ref), False), answers.as_block)


def logs_request(
    addresses: Iterable[bytes],
    *,
    from_block: int | None = None,
    to_block: int | None = None,
    block_hash: bytes | None = None,
) -> Request:
    """Return the request for the logs of addresses in a range of blocks or in one block."""
    query: dict[str, Any] = {"address": [_hex(address) for address in sorted(addresses)]}
    if block_hash is not None:
        query["blockHash"] = _hex(block_hash)
    elif from_block is not None and to_block is not None:
        query |= {"fromBlock": hex(from_block), "toBlock": hex(to_block)}
    else:
        raise ValueError("name a range of blocks, or one block's hash")
    return Request("eth_getLogs", (query,), answers.as_logs)


def receipt_request(transaction: bytes) -> Request:
    """Return the request for a transaction's receipt."""
    return Request("eth_getTransactionReceipt", (_hex(transaction),), answers.as_receipt)


def count_request(address: bytes, tag: int | str) -> Request:
    """Return the request for how many transactions of an account are included up to a block."""
    params = (_hex(address), _ref(tag))
    return Request("eth_getTransactionCount", params, answers.as_quantity)


def fees_request() -> Request:
    """Return the request for the fees of the last blocks."""
    return Request("eth_feeHistory", (hex(FEE_BLOCKS), "latest", [50]), answers.as_fees)


_TAKEN = (SendOutcome.ACCEPTED, SendOutcome.ALREADY_KNOWN)


async def _first_taken(tasks: Sequence[asyncio.Task[SendOutcome | ChainError | None]]) -> None:
    """Wait until a node has taken the transaction, and a little for the others; or for all."""
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(task.result() in _TAKEN for task in done):
            break
    if waiting:
        await asyncio.wait(waiting, timeout=GRACE)


async def _itself(endpoint: _Endpoint) -> _Endpoint:
    return endpoint


def _answers(status: int, text: bytes) -> list[answers.Answer]:
    if status == _TOO_MANY_REQUESTS or status >= 500:
        raise _EndpointFailed(f"HTTP status {status}")
    try:
        if text.lstrip()[:1] == b"[":
            return msgspec.json.decode(text, type=list[answers.Answer])
        return [msgspec.json.decode(text, type=answers.Answer)]
    except (msgspec.DecodeError, RecursionError):
        raise _EndpointFailed(f"no JSON-RPC, HTTP status {status}") from None


def _check_subscribed(name: str, text: str) -> None:
    try:
        answer = msgspec.json.decode(text, type=answers.Answer)
    except (msgspec.DecodeError, RecursionError):
        raise ChainUnavailable(f"{name}: no JSON-RPC on the WebSocket") from None
    if answer.error is not None:
        raise ChainUnavailable(f"{name}: no subscription: {answer.error.message}")


def _close_timeout() -> aiohttp.ClientWSTimeout:
    """Do not wait for a dead server's half of the closing handshake."""
    import aiohttp  # noqa: PLC0415 -- costs 0.2 s; READY does not wait for it

    return aiohttp.ClientWSTimeout(ws_close=0.5)


def _reason(error: BaseException) -> str:
    """Return what went wrong, without the address: a path may hold an access key."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = getattr(error, "os_error", error)
    text = getattr(number, "strerror", None)
    return text if isinstance(text, str) and text else type(error).__name__


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _ref(ref: int | str) -> str:
    return hex(ref) if isinstance(ref, int) else ref
