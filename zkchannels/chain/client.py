"""Ask Ethereum nodes over HTTP, several endpoints in order; WebSocket is only a wake-up.

aiohttp is imported when the first request is made: a program is READY before it pays for that.
"""

from __future__ import annotations

import asyncio
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

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ChainClient", "ChainError", "ChainUnavailable", "Request", "Reverted"]

T = TypeVar("T")

LARGEST_ANSWER = 64 << 20  # bytes; an eth_getLogs over a busy range, not an endless stream
FIRST_PAUSE = 1.0  # seconds for which a failing endpoint comes last
LONGEST_PAUSE = 60.0
FEE_BLOCKS = 5
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
    trouble: str = field(default="never asked")

    def failed(self, reason: str) -> None:
        self.right_chain = False  # another node may answer there next time
        self.trouble = reason
        self.pause = min(max(self.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self.quiet_until = time.monotonic() + self.pause

    def answered(self) -> None:
        self.pause = self.quiet_until = 0.0


class _EndpointFailed(Exception):
    """This endpoint cannot be used now; the next one is asked."""


class ChainClient:
    """A typed client of the Ethereum JSON-RPC interface.

    `endpoints` are URLs, preferred ones first: `https://host/path`, or `http://host:8545
    ws://host:8546` (one text, separated by a space) where the WebSocket is elsewhere. An endpoint
    that fails comes last for a while. `timeout` and `heartbeat` (of WebSockets: a ping without an
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

    @property
    def endpoint(self) -> str:
        """Name of the endpoint that is asked first at the moment."""
        return self._in_order()[0].name

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- requests ---------------------------------------------------------------------------------

    async def call(self, method: str, *params: Any) -> Any:
        """Return the JSON result of any method."""
        return await self._one(Request(method, params, answers.plain(object)))

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Ask several things in one HTTP request of one endpoint; results in the same order.

        A request that the node refuses gives its ChainError as result, the others their values.
        """
        if not requests:
            return []
        return await self._somewhere(lambda endpoint: self._exchange(endpoint, requests))

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
        """Hand a signed transaction to the node; ordinary refusals are outcomes, not errors.

        Raises ChainError for any other refusal.
        """
        request = Request("eth_sendRawTransaction", (_hex(raw),), answers.as_binary)
        try:
            await self._one(request)
        except ChainError as error:
            outcome = answers.send_outcome(error)
            if outcome is None:
                raise
            return outcome
        return SendOutcome.ACCEPTED

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
            async with self._open().ws_connect(
                endpoint.websocket, heartbeat=self._heartbeat, timeout=_close_timeout()
            ) as socket:
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
            try:
                if not endpoint.right_chain:
                    await self._check_chain(endpoint)
                result = await ask(endpoint)
            except (_EndpointFailed, MalformedAnswer) as error:
                endpoint.failed(str(error))
                continue
            endpoint.answered()
            return result
        troubles = "; ".join(f"{end.name}: {end.trouble}" for end in self._endpoints)
        raise ChainUnavailable(troubles)

    def _in_order(self) -> list[_Endpoint]:
        now = time.monotonic()
        return sorted(self._endpoints, key=lambda end: end.quiet_until > now)  # sort is stable

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
