"""Listening and connecting: who is let in, what is left when it stops, TLS."""

from __future__ import annotations

import asyncio
import datetime
import errno
import ipaddress
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.jsonrpc.support import (
    BIG,
    ECHO,
    SUM,
    WAIT,
    Nothing,
    Size,
    Summands,
    Text,
    connected,
    serving,
    wire,
)
from zkchannels.jsonrpc.errors import REFUSED, ConnectionLost, RpcError
from zkchannels.jsonrpc.peer import Limits, Peer
from zkchannels.jsonrpc.server import connect_tls, connect_unix


async def test_refused_connection(tmp_path: Path) -> None:
    """Who is not accepted reads one error line and the end; nothing it sends is executed."""
    seen: list[int] = []

    def accept(transport: asyncio.Transport) -> bool:
        seen.append(transport.get_extra_info("socket").family)
        return False

    async with serving(tmp_path, accept=accept) as served, wire(served.path) as client:
        client.call("sum", [1])
        answers = await client.rest()
        assert [answer["error"]["code"] for answer in answers] == [REFUSED]
        assert answers[0]["id"] is None
        assert served.sums == 0
        assert seen == [socket.AF_UNIX]
        assert served.events == ["connection_refused"]


async def test_refusal_with_a_reason(tmp_path: Path) -> None:
    """An RpcError raised while accepting is what the refused side reads."""

    def accept(transport: asyncio.Transport) -> bool:
        raise RpcError(-32015, "only the owner", {"kind": "forbidden"})

    async with serving(tmp_path, accept=accept) as served, wire(served.path) as client:
        [answer] = await client.rest()
        assert answer["error"] == {
            "code": -32015,
            "message": "only the owner",
            "data": {"kind": "forbidden"},
        }


async def test_who_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    """When the check itself fails the connection is refused, not let in."""

    def accept(transport: asyncio.Transport) -> bool:
        raise OSError(errno.ENOTCONN, "gone")

    async with serving(tmp_path, accept=accept) as served, wire(served.path) as client:
        client.call("sum", [1])
        [answer] = await client.rest()
        assert answer["error"]["code"] == REFUSED
        assert served.sums == 0


async def test_stop_closes_everything(tmp_path: Path) -> None:
    """Leaving the server closes its connections and its socket; the file is its owner's."""
    async with serving(tmp_path) as served:
        peer = await connect_unix(served.path)
        assert await peer.request(SUM, Summands(1)) == 1
    await peer.wait_closed()
    assert all(peer.closed for peer in served.peers)
    assert served.server.connections == set()
    assert served.path.exists()
    with pytest.raises(ConnectionRefusedError):
        await connect_unix(served.path)


async def test_stop_does_not_wait_for_who_reads_nothing(tmp_path: Path) -> None:
    """A client that reads nothing is cut when the grace is over."""
    async with AsyncExitStack() as later:
        async with serving(tmp_path, grace=0.05) as served:
            client = await later.enter_async_context(wire(served.path))
            client.call("sum", [1])
            await client.receive()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            served.peers[0].notify("log", "x" * (4 << 20))
            assert served.peers[0].transport.get_write_buffer_size() > 0
        assert served.server.connections == set()


async def test_no_such_socket(tmp_path: Path) -> None:
    """Connecting where nothing is raises the system's error, with the path."""
    with pytest.raises(FileNotFoundError) as caught:
        await connect_unix(tmp_path / "absent")
    assert caught.value.filename == str(tmp_path / "absent")


async def test_full_backlog(tmp_path: Path) -> None:
    """Connecting to a socket whose backlog is full waits until there is room."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(path)
        listening.listen(0)
        first.connect(path)
        connecting = asyncio.create_task(connect_unix(path))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.shield(connecting)
        listening.accept()[0].close()
        async with asyncio.timeout(20):
            peer = await connecting
        peer.abort()
        await peer.wait_closed()


class Authority:
    """A certificate authority that issues one certificate for each name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._issue("authority", self._key, None)
        self.path = directory / "authority.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, purpose: ssl.Purpose, name: str) -> ssl.SSLContext:
        """Return a context with a certificate for this name that trusts the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(name, key, self._certificate.subject)
        path = self._directory / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(purpose, cafile=str(self.path))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(path)
        return context

    def _issue(
        self, name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        authority = x509.BasicConstraints(ca=issuer is None, path_length=None)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(authority, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=issuer is None,
                    crl_sign=issuer is None,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority of this test alone."""
    return Authority(tmp_path)


async def test_tls(authority: Authority, tmp_path: Path) -> None:
    """Over TLS 1.3 with both certificates checked, calls work both ways, long ones too."""
    subjects: list[str] = []

    def accept(transport: asyncio.Transport) -> bool:
        certificate = transport.get_extra_info("peercert")
        subjects.append(certificate["subject"][0][0][1])
        return True

    server = authority.context(ssl.Purpose.CLIENT_AUTH, "merchant")
    client = authority.context(ssl.Purpose.SERVER_AUTH, "customer")
    async with serving(tmp_path, tls=server, accept=accept) as served:
        closed: list[Peer] = []
        peer = await connect_tls(
            "127.0.0.1",
            int(served.path.name),
            client,
            served.handlers,
            on_closed=closed.append,
            limits=Limits(max_line=8 << 20),
        )
        assert peer.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert await peer.request(SUM, Summands(1)) == 1
        assert subjects == ["customer"]
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(peer.request(SUM, Summands(n))) for n in range(200)]
            back = group.create_task(served.peers[0].request(ECHO, Text("back")))
        assert [call.result() for call in calls] == list(range(200))
        assert back.result() == "back"
        text = "x" * 1_000_000
        assert await peer.request(ECHO, Text(text)) == text
        assert await peer.request(BIG, Size(5_000_000)) == "x" * 5_000_000
        peer.close()
        await peer.wait_closed()
        assert closed == [peer]
        await served.peers[0].wait_closed()


async def test_tls_connection_ends(authority: Authority, tmp_path: Path) -> None:
    """Over TLS the end of either side fails pending calls at once."""
    server = authority.context(ssl.Purpose.CLIENT_AUTH, "merchant")
    client = authority.context(ssl.Purpose.SERVER_AUTH, "customer")
    async with serving(tmp_path, tls=server) as served:
        peer = await connect_tls("127.0.0.1", int(served.path.name), client)
        waiting = asyncio.create_task(peer.request(WAIT, Nothing()))
        await served.begun.get()
        served.peers[0].abort()
        with pytest.raises(ConnectionLost):
            await waiting
        await peer.wait_closed()
        served.release.set()


async def test_tls_checks_the_server(authority: Authority, tmp_path: Path) -> None:
    """A server of another authority, or of another name, is not spoken to."""
    server = authority.context(ssl.Purpose.CLIENT_AUTH, "merchant")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").context(ssl.Purpose.SERVER_AUTH, "customer")
    friend = authority.context(ssl.Purpose.SERVER_AUTH, "customer")
    async with serving(tmp_path, tls=server) as served:
        port = int(served.path.name)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect_tls("127.0.0.1", port, stranger)
        with pytest.raises(ssl.SSLCertVerificationError, match="otherhost"):
            await connect_tls("127.0.0.1", port, friend, server_hostname="otherhost")
        assert served.sums == 0


async def test_ended_connections_are_forgotten(tmp_path: Path) -> None:
    """A closed peer is forgotten by its server."""
    async with serving(tmp_path) as served:
        async with connected(served.path) as peer:
            await peer.request(SUM, Summands(1))
            assert len(served.server.connections) == 1
        await served.peers[0].wait_closed()
        assert served.server.connections == set()
