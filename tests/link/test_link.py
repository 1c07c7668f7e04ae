"""The link over TLS: who gets in, who is cut, and how each kind of silence is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from tests.link.between import Wire
from tests.link.conftest import SignerMaker
from tests.link.parts import PATIENCE, Daemon, Signer, descriptors, wallet
from tests.link.speaker import Speaker, speaking
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError
from zkchannels.service.certificate import ensure_pair
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

GONE_AFTER = 1.0
"""Seconds that the daemon of these tests gives a signer."""


@pytest.fixture
def patient(place: Path, database_dsn: str) -> Iterator[Daemon]:
    """A daemon that would wait for a silent signer for a minute."""
    daemon = Daemon(place / "patient", database_dsn, signer='gone_after = "60s"\n')
    try:
        daemon.service.start()
        yield daemon
    finally:
        daemon.service.stop()


async def until_lost(daemon: Daemon) -> float:
    """Wait for the safe mode without holding up this event loop; return the seconds it took."""
    return await asyncio.to_thread(daemon.lost)


# -- one signer -------------------------------------------------------------------------------


def test_a_newcomer_takes_over_from_a_half_dead_link(
    patient: Daemon, signer: Signer, place: Path
) -> None:
    """A second device of the same wallet takes over at once from one that hangs."""
    signer.paired(patient.pair_line())
    second = signer.copy(place / "second")
    signer.service.start()
    first = patient.attached()
    os.kill(signer.service.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        second.service.start()
        assert patient.attached(after=first) == first + 1
        assert time.monotonic() - began < 30
        patient.logged("signer_taken_over")
    finally:
        os.kill(signer.service.pid, signal.SIGCONT)
        second.service.kill()


def test_a_dead_signer_is_gone_at_once(patient: Daemon, signer: Signer) -> None:
    """A killed signer's connection ends with it: nobody waits for the pings."""
    signer.paired(patient.pair_line())
    signer.service.start()
    patient.attached()
    signer.service.kill()
    assert patient.lost() < 10


def test_a_stopped_signer_is_gone_in_time(daemon: Daemon, signer: Signer) -> None:
    """A process that hangs altogether answers no ping, is lost in time, and comes back."""
    signer.paired(daemon.pair_line())
    signer.service.start()
    generation = daemon.attached()
    os.kill(signer.service.pid, signal.SIGSTOP)
    try:
        assert daemon.lost() < GONE_AFTER + 5
    finally:
        os.kill(signer.service.pid, signal.SIGCONT)
    daemon.attached(after=generation)


# -- silence ----------------------------------------------------------------------------------


@pytest.fixture
def across(wire: Wire, place: Path, database_dsn: str) -> Iterator[Daemon]:
    """A daemon at the other end of a wire."""
    daemon = Daemon(
        place / "across",
        database_dsn,
        host=wire.host,
        signer='ping_interval = "200ms"\ngone_after = "1s"\n',
    )
    try:
        daemon.service.start()
        yield daemon
    finally:
        daemon.service.stop()


def test_a_suspended_laptop_is_lost_in_time_and_comes_back(
    across: Daemon, wire: Wire, new_signer: SignerMaker
) -> None:
    """When packets vanish without a word both sides notice, and meet again when they pass."""
    signer = new_signer(prefix=wire.prefix)
    signer.paired(across.pair_line(address=wire.address(across.port)))
    signer.service.launch()  # from another namespace it cannot tell us that it is ready
    generation = across.attached()
    wire.silence()
    assert across.lost() < GONE_AFTER + 5
    signer.logged("link_lost")
    wire.restore()
    across.attached(after=generation)


def test_a_signer_with_a_new_address_takes_over_from_itself(
    across: Daemon, wire: Wire, new_signer: SignerMaker
) -> None:
    """From one network to another: the old connection hangs, the new one serves."""
    signer = new_signer(prefix=wire.prefix)
    signer.paired(across.pair_line(address=wire.address(across.port)))
    signer.service.launch()  # from another namespace it cannot tell us that it is ready
    generation = across.attached()
    wire.move()
    across.attached(after=generation)


async def test_a_slow_request_is_no_dead_signer(daemon: Daemon, signer: Signer) -> None:
    """A signer that answers pings keeps its link while a request takes longer than silence may."""
    signer.paired(daemon.pair_line())
    speaker = Speaker(signer)
    speaker.answers_records.clear()
    async with speaking(speaker) as peer:
        await speaker.asked.wait()
        while speaker.pings < 3 * GONE_AFTER / 0.2:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await peer.wait_closed()
            assert not peer.closed
        speaker.answers_records.set()
        assert await asyncio.to_thread(daemon.attached) == 1
    await until_lost(daemon)


async def test_a_silent_signer_is_gone_although_its_connection_stands(
    daemon: Daemon, signer: Signer
) -> None:
    """Pings without an answer end the link within the configured time, not earlier."""
    signer.paired(daemon.pair_line())
    speaker = Speaker(signer)
    async with speaking(speaker) as peer:
        await asyncio.to_thread(daemon.attached)
        speaker.answers_pings.clear()
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            await peer.wait_closed()
        assert time.monotonic() - began > GONE_AFTER / 2
    await until_lost(daemon)


async def test_a_hung_request_ends_by_its_own_deadline(
    place: Path, database_dsn: str, signer: Signer
) -> None:
    """A request that is never answered ends after its time; the pings had gone on until then."""
    daemon = Daemon(
        place / "hung",
        database_dsn,
        signer='ping_interval = "100ms"\ngone_after = "60s"\nrequest_timeout = "1s"\n',
    )
    daemon.service.start()
    try:
        signer.paired(daemon.pair_line())
        speaker = Speaker(signer)
        speaker.answers_records.clear()
        async with speaking(speaker) as peer, asyncio.timeout(PATIENCE):
            await peer.wait_closed()
        assert daemon.logged("signer_not_compared")["reason"] == "SignerSlow"
    finally:
        daemon.service.stop()


# -- strangers --------------------------------------------------------------------------------


async def test_an_answer_over_other_certificates_does_not_attach(
    daemon: Daemon, signer: Signer
) -> None:
    """What the identity signed for other certificates, or for a Unix socket, is worth nothing."""
    signer.paired(daemon.pair_line())
    speaker = Speaker(signer)
    for channel in (bytes(64), speaker.channel[32:] + speaker.channel[:32], b"\x01" * 64):
        peer = await speaker.connect()

        def relayed(challenge: bytes, channel: bytes = channel) -> bytes:
            return wallet().answer(challenge, channel)

        with pytest.raises(RpcError) as caught:
            await speaker.attach(peer, relayed)
        assert kind_of(caught.value) == "bad_signature"
        with pytest.raises(RpcError) as caught:  # nor is a challenge answered twice
            await peer.request(
                wire.LINK_ATTACH,
                wire.LinkAttachParams(bytes(65), bytes(20), bytes(16)),
                timeout=PATIENCE,
            )
        assert kind_of(caught.value) == "not_introduced"
        peer.abort()


async def test_without_the_paired_certificate_nobody_says_anything(
    daemon: Daemon, signer: Signer, tmp_path: Path
) -> None:
    """Another certificate, or none, ends with the handshake, also while a pairing is open."""
    signer.paired(daemon.pair_line())
    with psycopg.connect(daemon.dsn) as connection:
        connection.execute("update paired_signer set expires = now()")
    daemon.service.kill()
    daemon.service.start()
    speaker = Speaker(signer)
    speaker.own = tmp_path / "other.pem"
    ensure_pair(speaker.own, "customersigner", "client")
    peer = await speaker.connect()
    with pytest.raises(ConnectionLost):
        await speaker.hello(peer)
    await asyncio.to_thread(daemon.rpc, "signer-pair")
    peer = await speaker.connect()
    with pytest.raises(ConnectionLost):
        await speaker.hello(peer)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, ssl=anonymous)
    params = msgspec.json.encode(wire.LinkHelloParams(wire.LINK_VERSION, wallet().identity))
    writer.write(b'{"jsonrpc":"2.0","id":1,"method":"link.hello","params":%s}\n' % params)
    assert b'"not_paired"' in await reader.readline()
    writer.transport.abort()


def test_older_tls_and_noise_are_refused(daemon: Daemon, signer: Signer) -> None:
    """TLS 1.2 and what is no TLS at all end at the handshake; the attached signer stays."""
    signer.paired(daemon.pair_line())
    signer.service.start()
    generation = daemon.attached()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as raw,
        pytest.raises(OSError),  # noqa: PT011 - a reset or an alert, whichever comes first
    ):
        old.wrap_socket(raw)
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b'{"jsonrpc":"2.0"}\n' * 100, os.urandom(4096)):
        where = ("127.0.0.1", daemon.port)
        with socket.create_connection(where, PATIENCE) as raw, contextlib.suppress(OSError):
            raw.sendall(noise)
            while raw.recv(4096):
                pass
    assert daemon.rpc("signer-status")["generation"] == generation
    assert daemon.rpc("signer-status")["attached"]


def test_a_thousand_strangers_disturb_nobody(daemon: Daemon, signer: Signer) -> None:
    """They are bounded in number, the attached signer stays, and it gets in again among them."""
    signer.paired(daemon.pair_line())
    signer.service.start()
    generation = daemon.attached()
    before = descriptors(daemon.service.pid)
    with contextlib.ExitStack() as stack:
        where = ("127.0.0.1", daemon.port)
        strangers = [
            stack.enter_context(socket.create_connection(where, PATIENCE)) for _ in range(1000)
        ]
        for stranger in strangers[:900]:  # the older ones had to make room
            with contextlib.suppress(OSError):
                assert stranger.recv(1) == b""
        assert descriptors(daemon.service.pid) - before < 100
        status = daemon.rpc("signer-status")
        assert (status["attached"], status["generation"]) == (True, generation)
        signer.service.kill()
        signer.service.start()
        daemon.attached(after=generation)


def test_without_pairing_the_door_is_closed(daemon: Daemon) -> None:
    """Nobody is paired or awaited: a connection ends before any handshake."""
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as raw:
        assert raw.recv(1) == b""


# -- the Unix socket --------------------------------------------------------------------------


def test_another_user_attaches_only_as_the_paired_signer(
    place: Path, database_dsn: str, new_signer: SignerMaker
) -> None:
    """With a wider mode another user's signer is heard; it attaches once it is paired."""
    unix = Daemon(place / "unix", database_dsn, sockets='signer_mode = "0666"\n')
    capabilities = "+dac_override,+dac_read_search"
    other = (
        shutil.which("setpriv") or "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    )
    other += (f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}")
    prefix = other if os.geteuid() == 0 else ()
    unix.service.start()
    try:
        signer = new_signer(prefix=prefix, arguments=("--socket", str(unix.signer_socket)))
        assert unix.signer_socket.stat().st_mode & 0o777 == 0o666
        signer.service.start()
        if prefix:
            assert signer.logged("daemon_refused")["kind"] == "not_paired"
            assert unix.rpc("signer-status")["identity"] is None
        line = unix.pair_line()
        assert str(unix.signer_socket) in line
        signer.paired(line)
        unix.attached()
        unix.rpc("signer-forget")
        if prefix:
            unix.lost()
    finally:
        signer.service.kill()
        unix.service.stop()


def test_another_user_is_not_heard_by_default(
    daemon: Daemon, signer: Signer, new_signer: SignerMaker
) -> None:
    """The Unix socket is the owner's alone unless its mode is set; the owner needs no pairing."""
    assert daemon.signer_socket.stat().st_mode & 0o777 == 0o600
    own = new_signer(arguments=("--socket", str(daemon.signer_socket)))
    own.service.start()
    daemon.attached()
