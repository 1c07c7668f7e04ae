"""The link over real sockets: attaching, answering in order, silence, and dialling again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersigner.link import LONGEST_DELAY, SHORTEST_DELAY, Dial, Link, Way, Worker, delay
from tests.fix_log import Log
from tests.signer.daemon import PATIENCE, Daemon, caller, listening
from tests.signer.support import Channel, Desk, Merchant
from zkchannels.jsonrpc.errors import INVALID_PARAMS, ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_unix
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of
from zkchannels.wire.pairing import NO_CHANNEL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the daemon listens."""
    return tmp_path / "signer.sock"


@pytest.fixture
def worker() -> Iterator[Worker]:
    """The signer's thread."""
    with Worker() as worker:
        yield worker


def dialler(path: Path) -> Dial:
    """Dials the daemon at a path."""

    async def dial(handlers: Handlers) -> tuple[Peer, bytes]:
        return await connect_unix(path, handlers), NO_CHANNEL

    return dial


@asynccontextmanager
async def linked(desk: Desk, worker: Worker, path: Path, **options: Any) -> AsyncIterator[Link]:
    """A signer that dials the daemon for as long as the body runs."""
    link = Link(lambda: [Way("here", dialler(path))], desk.signer, worker, **options)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_attaches_and_serves_a_channel(desk: Desk, worker: Worker, path: Path) -> None:
    """The daemon learns identity, account and policies, and then calls over the same socket."""
    daemon = Daemon()
    async with listening(path, daemon), linked(desk, worker, path):
        call = caller(await daemon.attached())
        assert daemon.identities == [desk.wallet.identity]
        assert daemon.accounts == [desk.wallet.account.address]
        assert daemon.policies == [["policy-destination", "policy-fee-cap"]]
        assert await call(wire.PING, wire.Nothing()) == wire.Done()
        channel = Channel(call, Merchant(), desk.wallet.account.address)
        await call(wire.ESCROW, channel.merchant.registration)
        await channel.establish()
        await channel.pay(10)
        await channel.pay(-3)
        assert (await channel.close()).customer_balance == 993


async def test_pings_are_answered_while_a_request_is_slow(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """With the disk stalled and many requests waiting, pings are answered; then all, in order."""
    daemon, stalled = Daemon(), threading.Event()
    async with listening(path, daemon), linked(desk, worker, path):
        peer = await daemon.attached()
        hold = asyncio.create_task(worker.run(stalled.wait, PATIENCE))
        order: list[int] = []

        async def records(number: int) -> None:
            await peer.request(wire.RECORDS, wire.RecordsParams())
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(records(number))
            for _ in range(3):
                await peer.request(wire.PING, wire.Nothing(), timeout=PATIENCE)
            assert not order
            with pytest.raises(RequestTimeout):
                await peer.request(wire.RECORDS, wire.RecordsParams(), timeout=0.01)
            stalled.set()
        await hold
        assert order == list(range(20))


async def test_a_request_that_waited_too_long_is_not_begun(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """What its caller has given up is refused when its turn comes."""
    daemon, stalled = Daemon(), threading.Event()
    daemon.request_timeout = 0.05
    async with listening(path, daemon), linked(desk, worker, path):
        peer = await daemon.attached()
        hold = asyncio.create_task(worker.run(stalled.wait, PATIENCE))
        waiting = asyncio.create_task(
            peer.request(wire.RECORDS, wire.RecordsParams(), timeout=PATIENCE)
        )
        with pytest.raises(RequestTimeout):
            await peer.request(wire.RECORDS, wire.RecordsParams(), timeout=0.1)
        stalled.set()
        with pytest.raises(RpcError) as caught:
            await waiting
        assert kind_of(caught.value) == "unavailable"
        await hold


async def test_it_dials_again_after_the_link_was_lost(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """A cut link is dialled again, and what was asked on it before is answered the same."""
    daemon = Daemon()
    async with listening(path, daemon), linked(desk, worker, path):
        first = await daemon.attached()
        channel = Channel(caller(first), Merchant(), desk.wallet.account.address)
        await channel.call(wire.ESCROW, channel.merchant.registration)
        await channel.establish()
        answer = await channel.authorize_pay(5)
        first.abort()
        with pytest.raises(ConnectionLost):
            await channel.call(wire.PING, wire.Nothing())
        channel.call = caller(await daemon.attached())
        repeat = channel.authorization_params(1, 0, bytes(96))
        assert await channel.call(wire.PAY_AUTHORIZE, repeat) == answer


async def test_it_waits_for_a_daemon_that_is_not_there_yet(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """Without a daemon it keeps dialling, and attaches once there is one."""
    statuses: asyncio.Queue[str] = asyncio.Queue()
    async with linked(desk, worker, path, on_status=statuses.put_nowait):
        assert await statuses.get() == "waiting for the daemon"
        daemon = Daemon()
        async with listening(path, daemon):
            await daemon.attached()
            while await statuses.get() != "attached to the daemon":
                pass


async def test_a_silent_daemon_is_given_up(
    desk: Desk, worker: Worker, path: Path, log: Log
) -> None:
    """When no ping comes for twice the time the daemon named, the signer dials again."""
    daemon = Daemon(gone_after=0.05)
    async with listening(path, daemon), linked(desk, worker, path):
        first = await daemon.attached()
        async with asyncio.timeout(PATIENCE):
            await first.wait_closed()
        daemon.gone_after = 30.0
        await daemon.attached()
    assert log.events("daemon_silent")


async def test_a_refusal_is_logged_and_dialled_again(
    desk: Desk, worker: Worker, path: Path, log: Log
) -> None:
    """A daemon of another wallet refuses; the signer says so and tries again later."""
    log.expect_error("daemon_refused")
    daemon = Daemon()
    daemon.refuse_hello = "wrong_wallet"
    async with listening(path, daemon), linked(desk, worker, path):
        async with asyncio.timeout(PATIENCE):
            await daemon.dialled.wait()
        daemon.refuse_hello = None
        await daemon.attached()
    assert [entry["kind"] for entry in log.events("daemon_refused")] == ["wrong_wallet"]


async def test_an_answer_to_another_challenge_does_not_attach(
    desk: Desk, worker: Worker, path: Path, log: Log
) -> None:
    """The signature answers the challenge of this connection and no other one."""
    log.expect_error("daemon_refused")
    daemon = Daemon()
    daemon.check = lambda _: bytes(32)
    async with listening(path, daemon), linked(desk, worker, path):
        async with asyncio.timeout(PATIENCE):
            await daemon.dialled.wait()
        daemon.check = lambda challenge: challenge
        await daemon.attached()
    assert len(daemon.identities) == 1


async def test_a_restarted_daemon_takes_over_the_signer(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """When a second daemon takes over the path, the signer comes to it after the first is gone."""
    first, second = Daemon(), Daemon()
    async with linked(desk, worker, path), listening(path, first):
        peer = await first.attached()
        await caller(peer)(wire.PING, wire.Nothing())
        async with listening(path, second):
            peer.abort()
            await caller(await second.attached())(wire.PING, wire.Nothing())
    assert first.identities == second.identities


@pytest.mark.parametrize(
    "params",
    [
        {"channel": "AA=="},
        {"channel": "AAAA" * 11, "index": -1, "attempt": 0},
        {"channel": 5, "index": 1},
        {"unknown": 1},
        list(range(20)),
        {},
    ],
    ids=str,
)
async def test_malformed_calls_are_refused_and_the_link_stays(
    desk: Desk, worker: Worker, path: Path, params: Any
) -> None:
    """Each method refuses malformed parameters with the standard error and goes on serving."""
    daemon = Daemon()
    async with listening(path, daemon), linked(desk, worker, path):
        peer = await daemon.attached()
        for method in set(wire.METHODS) - {
            wire.PING,
            wire.RECORDS,
            wire.BACKUP_KEY,
            wire.POLICY_STATES,
        }:
            anything = Method(method.name, wire.Nothing, wire.Done, summary="")
            with pytest.raises(RpcError) as caught:
                await peer.request(anything, params, timeout=PATIENCE)
            assert caught.value.code == INVALID_PARAMS
        await peer.request(wire.PING, wire.Nothing(), timeout=PATIENCE)


@given(failures=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_the_back_off_stays_within_its_bounds(failures: int, chance: float) -> None:
    """Delays are jittered between 0.2 and 30 seconds and grow with the failures."""
    waited = delay(failures, chance)
    assert SHORTEST_DELAY <= waited <= LONGEST_DELAY
    assert waited <= delay(failures + 1, chance)


async def test_an_attached_signer_has_its_keys_ready(
    desk: Desk, worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After attaching, the keys of registered escrows are loaded in the background."""
    await desk.call(wire.ESCROW, Merchant().registration)
    desk.close()
    desk.open()
    warmed = asyncio.Event()
    loop, warm = asyncio.get_running_loop(), desk.signer.warm

    def observed(escrow: Any) -> None:
        warm(escrow)
        loop.call_soon_threadsafe(warmed.set)

    monkeypatch.setattr(desk.signer, "warm", observed)
    daemon = Daemon()
    async with listening(path, daemon), linked(desk, worker, path):
        await daemon.attached()
        async with asyncio.timeout(PATIENCE):
            await warmed.wait()
    assert len(desk.signer._keys) == 1


async def test_a_daemon_that_gives_senseless_times_is_left(
    desk: Desk, worker: Worker, path: Path
) -> None:
    """Times that no clock or socket takes end that link alone; the next one serves."""
    daemon = Daemon(gone_after=1e300)
    async with listening(path, daemon), linked(desk, worker, path):
        peer = await daemon.attached()
        async with asyncio.timeout(PATIENCE):
            await peer.wait_closed()
        daemon.gone_after = 30.0
        call = caller(await daemon.attached())
        assert await call(wire.PING, wire.Nothing()) == wire.Done()
