"""Customers that come by the thousand and pay nothing: an honest one pays meanwhile.

ADVERSARY_FLOOD sets how many they are; `make test-flood` takes 10,000.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from tests.merchantd.support import Customer, Daemon, MerchantSite, ask, refusal
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.wire import merchant as wire

FLOOD = int(os.environ.get("ADVERSARY_FLOOD", "1200"))
PER_ADDRESS = 32
MEMORY = 200_000 + 80 * FLOOD
"""KiB that the merchant may take."""
PATIENCE = 60.0
"""Seconds that an honest payment may take on a busy machine."""


class Nothing(asyncio.Protocol):
    """A connection that says nothing, or half of something, and waits for its end."""

    def __init__(self, ended: set[asyncio.Protocol], says: bytes) -> None:
        self._ended = ended
        self._says = says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what there is to say."""
        assert isinstance(transport, asyncio.Transport)
        if self._says:
            transport.write(self._says)

    def connection_lost(self, error: Exception | None) -> None:
        """Count as ended."""
        self._ended.add(self)


def address(number: int) -> str:
    """Return the loopback address of an attacker; none of them is an honest customer's."""
    return f"127.200.{number // 200}.{1 + number % 200}"


@asynccontextmanager
async def half_open(
    site: MerchantSite, daemon: Daemon, count: int, *, tls: bool, says: bytes = b""
) -> AsyncIterator[set[asyncio.Protocol]]:
    """Hold connections open that never come to a request; yield those that were ended."""
    loop = asyncio.get_running_loop()
    ended: set[asyncio.Protocol] = set()
    context = site.tls() if tls else None
    transports: list[asyncio.BaseTransport] = []
    waiting = asyncio.Semaphore(200)

    async def one(number: int) -> None:
        source = address(number // PER_ADDRESS + (100 if tls else 0) + len(says) * 10)
        async with waiting:
            try:
                transport, _ = await loop.create_connection(
                    lambda: Nothing(ended, says),
                    daemon.host,
                    daemon.port,
                    ssl=context,
                    server_hostname="localhost" if tls else None,
                    local_addr=(source, 0),
                )
            except OSError:  # ended within the handshake: there was no room
                return
        transports.append(transport)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))
        yield ended
    finally:
        for transport in transports:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()


async def pays(site: MerchantSite) -> float:
    """Have an honest newcomer open a channel and pay; return the seconds that a payment took."""
    customer = Customer(site, DEV_KEYS[1])
    async with asyncio.timeout(PATIENCE):
        async with customer.connect() as peer:
            channel = await customer.establish(peer, 1000)
        began = time.monotonic()
        async with customer.connect() as peer:
            await customer.pay(peer, channel, 10)
        return time.monotonic() - began


def memory(daemon: Daemon) -> int:
    """Return the resident memory of the merchant, KiB."""
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no such line")


async def test_thousands_of_half_open_connections_do_not_keep_a_payer_out(
    site: MerchantSite,
) -> None:
    """Stalled handshakes, silent connections and half requests fill every place; one more pays."""
    places = FLOOD // 2
    site.write_config(
        f"[limits]\nconnections = {places}\nconnections_per_address = {PER_ADDRESS}\n"
    )
    daemon = site.start()
    line = b'{"jsonrpc":"2.0","id":1,"method":"hello"'
    async with (
        half_open(site, daemon, FLOOD // 4, tls=True),
        half_open(site, daemon, FLOOD // 4, tls=True, says=line),
        half_open(site, daemon, FLOOD // 2, tls=False) as ended,
    ):
        await pays(site)
        assert len(ended) < FLOOD // 2
        assert memory(daemon) < MEMORY
    await pays(site)


async def test_one_address_has_its_own_places_only(site: MerchantSite) -> None:
    """Whoever takes all connections of one address keeps nobody else out, and gets no more."""
    site.write_config("[limits]\nconnections_per_address = 20\n")
    daemon = site.start()
    async with AsyncExitStack() as stack:
        greedy = Customer(site, DEV_KEYS[2])
        for _ in range(20):
            await stack.enter_async_context(greedy.connect())
        try:
            async with greedy.connect() as peer:
                await peer.request(wire.HELLO, wire.HelloParams(1, site.escrow))
        except (OSError, EOFError) as error:
            assert not isinstance(error, TimeoutError)
        else:
            raise AssertionError("one more was let in")
        await pays(site)
    assert daemon.process.poll() is None


async def test_sessions_that_are_never_used_end_nobody_elses(site: MerchantSite) -> None:
    """Every address fills its sessions and proves nothing: others are served all the same."""
    site.write_config("[limits]\nsessions_per_address = 8\n")
    daemon = site.start()
    await pays(site)
    customers = [Customer(site, DEV_KEYS[2]) for _ in range(max(10, FLOOD // 100))]

    async def fill(customer: Customer) -> list[str]:
        params = wire.PayProposeParams(1)
        async with customer.connect() as peer:
            return [await refusal(peer.request(wire.PAY_PROPOSE, params)) for _ in range(12)]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fill(customer)) for customer in customers]
        await pays(site)
    for task in tasks:
        assert task.result().count("") == 8
        assert task.result().count("too_many_sessions") == 4
    assert memory(daemon) < MEMORY
    (count,) = site.sql("SELECT count(*) FROM session WHERE expires > now()")[0]
    assert count >= 8 * len(customers)


async def test_notes_of_any_kind_are_taken_or_refused_in_words(site: MerchantSite) -> None:
    """NUL, lone surrogates, changed directions, and 8 KiB or more: an answer, and never a crash."""
    daemon = site.start()
    await pays(site)
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        for note in ("\0", "\u202e\x1b[2J", "\U0001f600" * 2000, "x" * 8192):
            said = await refusal(ask(peer, wire.PAY_PROPOSE, wire.PayProposeParams(1, note)))
            assert said == "", (note[:10], said)
    for raw in (b'"\\ud800"', b'"' + b"x" * 8193 + b'"', b"{}", b'"\xff"'):
        reader, writer = await asyncio.open_connection(
            daemon.host, daemon.port, ssl=site.tls(), server_hostname="localhost"
        )
        request = b'{"jsonrpc":"2.0","id":1,"method":"pay.propose","params":{"amount":1,"note":'
        writer.write(request + raw + b"}}\n")
        answer = msgspec.json.decode(await reader.readline())
        assert answer["error"]["code"] in (-32602, -32700), (raw[:10], answer)
        writer.close()
        await writer.wait_closed()
    await pays(site)
