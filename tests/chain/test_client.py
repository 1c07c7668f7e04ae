"""The client against real nodes and hostile ones: it answers, or says with a type why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from tests.chain.support import DEADLINE
from tests.contract.world import ETHER, World
from zkchannels.chain.client import ChainClient, block_request, logs_request, receipt_request
from zkchannels.chain.errors import ChainError, ChainUnavailable, Reverted
from zkchannels.chain.model import Block, SendOutcome
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.devnet.embedded import Embedded
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey, keccak256
from zkchannels.escrow.transaction import Transaction, transaction_hash

GWEI = 10**9
KEY = DEV_KEYS[4]
NOBODY = keccak256(b"nobody")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(serve: Serve) -> AsyncGenerator[str, None]:
    """An HTTP URL where `serve` speaks to each connection."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    listener = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def saying(body: bytes, *, status: str = "200 OK") -> Serve:
    """A server that answers every request with the same body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return serve


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[..., ChainClient]]:
    """Makes clients that are closed in the end."""
    made: list[ChainClient] = []

    def make(*endpoints: str, **options: float) -> ChainClient:
        made.append(ChainClient(endpoints, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


async def test_reads(chain: DevChain, client_of: Callable[..., ChainClient]) -> None:
    """Blocks, balances, counts, code and fees of both kinds of development chain."""
    client = client_of(chain.url)
    head = await client.block("latest")
    assert head is not None
    assert await client.chain_id() == chain.chain_id
    assert await client.block(head.number) == head
    assert await client.block(head.hash) == head
    assert await client.block(10**9) is None
    assert await client.receipt(bytes(32)) is None
    assert await client.balance(KEY.address) == chain.balance(KEY.address)
    assert await client.code(NOBODY[:20]) == b""
    assert await client.transaction_count(NOBODY[:20]) == 0
    assert (await client.fees()).base_fee > 0
    assert await client.estimate_gas(KEY.address, NOBODY[:20], 1, b"") >= 21_000


async def test_sends(chain: DevChain, client_of: Callable[..., ChainClient]) -> None:
    """A transaction is accepted; another of its nonce is then an outcome, not an error."""
    client = client_of(chain.url)
    key = PrivateKey(keccak256(chain.url.encode()))
    chain.faucet(key.address, ETHER)
    raw = _signed(chain, key, nonce=0)
    assert await client.send_raw(raw) is SendOutcome.ACCEPTED
    chain.mine()  # a node that mines by itself may answer before it has
    receipt = await client.receipt(transaction_hash(raw))
    assert receipt is not None
    assert receipt.succeeded
    outcome = await client.send_raw(_signed(chain, key, nonce=0, value=2))
    assert outcome is SendOutcome.NONCE_TOO_LOW
    poor = _signed(chain, PrivateKey(NOBODY), nonce=0)
    assert await client.send_raw(poor) is SendOutcome.INSUFFICIENT_FUNDS
    with pytest.raises(ChainError):
        await client.send_raw(b"no transaction")


async def test_pool(anvil: Anvil, client: ChainClient) -> None:
    """What the pool holds already, and what pays too little to replace it, are outcomes."""
    anvil.set_automine(False)
    raw = _signed(anvil, KEY, nonce=0)
    assert await client.send_raw(raw) is SendOutcome.ACCEPTED
    assert await client.send_raw(raw) is SendOutcome.ALREADY_KNOWN
    cheaper = _signed(anvil, KEY, nonce=0, max_fee=4 * GWEI)
    assert await client.send_raw(cheaper) is SendOutcome.UNDERPRICED


async def test_contract(world: World, client: ChainClient) -> None:
    """Views give their bytes, reverts their reason, logs come with all they need."""
    channel = world.open()
    data = await client.eth_call(world.escrow.address, calls.channel(channel))
    assert calls.decode_channel(data) == world.record(channel)
    with pytest.raises(Reverted) as refused:
        await client.eth_call(world.escrow.address, calls.claim(channel))
    assert refused.value.reason
    head = await client.block("latest")
    assert head is not None
    (log,) = await client.logs([world.escrow.address], block_hash=head.hash)
    assert (log.block_number, log.block_hash) == (head.number, head.hash)
    assert log.topics[1] == channel.to_bytes(32)
    assert await client.logs([world.escrow.address], from_block=0, to_block=head.number) == [log]


async def test_batch(anvil: Anvil, client: ChainClient) -> None:
    """Results come in the order of the requests; one refused does not spoil the others."""
    head = await client.block("latest")
    assert head is not None
    found = await client.batch(
        [
            block_request("latest"),
            logs_request([NOBODY[:20]], from_block=5, to_block=1),
            receipt_request(bytes(32)),
            block_request(10**9),
        ]
    )
    assert found[0] == head
    assert isinstance(found[1], ChainError)
    assert found[2:] == [None, None]
    assert await client.batch([]) == []


async def test_next_endpoint(anvil: Anvil, client_of: Callable[..., ChainClient]) -> None:
    """An endpoint that is not there is passed over, and comes last for a while."""
    async with server(saying(b"")) as url:
        pass
    client = client_of(url, anvil.url)
    assert isinstance(await client.block("latest"), Block)
    assert client.endpoint == anvil.url


async def test_no_endpoint(client_of: Callable[..., ChainClient]) -> None:
    """When none answers, each one's trouble is told, without its path: that may be a key."""
    async with server(saying(b"")) as url:
        pass
    client = client_of(f"{url}/very/secret")
    with pytest.raises(ChainUnavailable, match=r"127\.0\.0\.1") as gone:
        await client.block("latest")
    assert "secret" not in str(gone.value)
    with pytest.raises(ChainUnavailable) as gone:
        async with contextlib.aclosing(client.new_heads()) as heads:
            await anext(heads)
    assert "secret" not in str(gone.value)


async def test_another_chain(anvil: Anvil, client_of: Callable[..., ChainClient]) -> None:
    """An endpoint on another chain is refused, always, also when it is the only one."""
    client = client_of(anvil.url, chain_id=1)
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match="is on chain 31337, not 1"):
            await client.block("latest")
    with pytest.raises(ChainUnavailable):
        async with contextlib.aclosing(client.new_heads()) as heads:
            await anext(heads)


HOSTILE: dict[str, Serve] = {
    "nothing": saying(b""),
    "no json": saying(b"<html>"),
    "another id": saying(b'{"jsonrpc":"2.0","id":"x","result":"0x7a69"}'),
    "no answers": saying(b"[]"),
    "a number": saying(b"7"),
    "wrong form": saying(b'{"id":1,"result":{"chain":1}}'),
    "deep": saying(b"[" * 200_000),
    "not text": saying(bytes(range(256))),
    "overloaded": saying(b"{}", status="503 Service Unavailable"),
    "too many requests": saying(b"{}", status="429 Too Many Requests"),
}


@pytest.mark.parametrize("serve", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_answers(
    serve: Serve, anvil: Anvil, client_of: Callable[..., ChainClient]
) -> None:
    """Whatever an endpoint says instead of an answer, the next one is asked."""
    async with server(serve) as url:
        with pytest.raises(ChainUnavailable):
            await client_of(url).block("latest")
        assert await client_of(url, anvil.url).chain_id() == anvil.chain_id


async def test_silent_endpoint(anvil: Anvil, client_of: Callable[..., ChainClient]) -> None:
    """An endpoint that takes requests and never answers costs its timeout, no more."""
    hold = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()

    async with server(silent) as url:
        client = client_of(url, anvil.url, timeout=0.2)
        async with asyncio.timeout(DEADLINE):
            assert await client.chain_id() == anvil.chain_id
        hold.set()


async def test_endless_answer(
    anvil: Anvil, client_of: Callable[..., ChainClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without end is cut off."""
    monkeypatch.setattr("zkchannels.chain.client.LARGEST_ANSWER", 1 << 20)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 65536)
            await writer.drain()

    async with server(endless) as url:
        assert await client_of(url, anvil.url).chain_id() == anvil.chain_id


@pytest.mark.parametrize("node", [Anvil, Embedded])
async def test_wake_ups(
    node: type[Anvil] | type[Embedded], client_of: Callable[..., ChainClient]
) -> None:
    """Once subscribed, and at each head, there is a wake-up, until the node is gone."""
    with node() as chain:
        client = client_of(chain.url)
        async with asyncio.timeout(DEADLINE), contextlib.aclosing(client.new_heads()) as heads:
            await anext(heads)
            chain.mine()
            await anext(heads)
            chain.kill()
            with contextlib.suppress(ChainUnavailable):
                async for _ in heads:
                    pass


async def test_silent_websocket(anvil: Anvil, client_of: Callable[..., ChainClient]) -> None:
    """A WebSocket whose other end vanished without a word is found dead by its heartbeat."""
    frozen = asyncio.Event()
    port = int(anvil.url.rpartition(":")[2])

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if not frozen.is_set():
                    sink.write(data)
                    await sink.drain()

        await asyncio.wait(
            [
                asyncio.ensure_future(pump(reader, up_writer)),
                asyncio.ensure_future(pump(up_reader, writer)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
        up_writer.close()

    async with server(through) as url:
        client = client_of(url, heartbeat=0.2)
        async with asyncio.timeout(DEADLINE), contextlib.aclosing(client.new_heads()) as heads:
            await anext(heads)
            frozen.set()
            with pytest.raises((StopAsyncIteration, ChainUnavailable)):
                await anext(heads)


async def test_no_subscriptions(client_of: Callable[..., ChainClient]) -> None:
    """A node that has no WebSocket is said to have none."""
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": "0x7a69"}).encode()
    async with server(saying(answer)) as url:
        client = client_of(url)
        with pytest.raises(ChainUnavailable):
            async with contextlib.aclosing(client.new_heads()) as heads:
                await anext(heads)


def _signed(
    chain: DevChain, key: PrivateKey, *, nonce: int, value: int = 1, max_fee: int = 5 * GWEI
) -> bytes:
    transaction = Transaction(
        chain_id=chain.chain_id,
        nonce=nonce,
        tip=GWEI,
        max_fee=max_fee,
        gas=21_000,
        to=NOBODY[:20],
        value=value,
        data=b"",
    )
    return transaction.with_signature(key.sign_digest(transaction.signing_digest()))
