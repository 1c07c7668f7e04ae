"""The pairing line and the proofs, without a network."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customerd.config import Settings
from customerd.rpc.signers import advertised
from customerd.signing.qr import qr_code
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import pairing
from zkchannels.wire.pairing import InvalidLine, PairingLine

SECRETS = st.binary(min_size=16, max_size=16)
FINGERPRINTS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.sampled_from(["home.example:9738", "192.0.2.7:1", "[2001:db8::1]:65535"])


@given(ADDRESSES, FINGERPRINTS, SECRETS, st.integers(0, 2**33))
def test_a_line_is_read_as_it_was_written(
    address: str, fingerprint: bytes, secret: bytes, expires: int
) -> None:
    """Reading a line gives back what was written, also for a Unix socket; no repr shows it."""
    for line in (
        PairingLine(address, fingerprint, secret, expires),
        PairingLine("/run/a,b/signer.sock", None, secret, expires),
    ):
        assert PairingLine.read(f" {line.text()}\n") == line
        assert line.text().split(",")[-2] not in repr(line)
        assert repr(secret) not in repr(line)


@given(st.text(max_size=200))
def test_nothing_else_is_a_line(text: str) -> None:
    """Any other text is refused with InvalidLine, whatever is in it."""
    for damaged in (text, f"customerd-pair-1,{text}", f"customerd-pair-1,h:1,{text},a,1"):
        with pytest.raises(InvalidLine):
            PairingLine.read(damaged)


@given(SECRETS, SECRETS, FINGERPRINTS, FINGERPRINTS)
def test_a_proof_is_for_one_secret_and_one_channel(
    secret: bytes, other: bytes, mine: bytes, impostors: bytes
) -> None:
    """Each proof holds for the secret and the certificates it was made with, and no others."""
    keys, nonces = pairing.keys_of(secret), (b"\x01" * 32, b"\x02" * 32)
    said = pairing.transcript(mine + mine, bytes(20), *nonces)
    proof = pairing.signers_proof(secret, said)
    assert pairing.is_signers_proof(keys, said, proof)
    assert pairing.is_daemons_proof(secret, said, pairing.daemons_proof(keys, said))
    relayed = pairing.transcript(impostors + mine, bytes(20), *nonces)
    assert pairing.is_signers_proof(keys, relayed, proof) is (impostors == mine)
    assert pairing.is_signers_proof(pairing.keys_of(other), said, proof) is (other == secret)


@given(SECRETS)
def test_what_the_daemon_keeps_passes_for_nobody(secret: bytes) -> None:
    """A thief of the daemon's database has no proof: the stored keys are not the signer's."""
    keys = pairing.keys_of(secret)
    said = pairing.transcript(bytes(64), bytes(20), bytes(32), bytes(32))
    for stolen in (keys.stored, keys.daemon, keys.stored[:16], keys.daemon[:16]):
        assert not pairing.is_signers_proof(keys, said, pairing.signers_proof(stolen, said))
    assert keys.stored.hex() not in repr(keys)


@pytest.mark.parametrize(
    ("asked", "listening", "address"),
    [
        (None, "home.example:9738", "home.example:9738"),
        ("other.example", "home.example:9738", "other.example:9738"),
        ("other.example:1", ":9738", "other.example:1"),
        ("[2001:db8::1]", ":9738", "[2001:db8::1]:9738"),
        (None, "/run/customerd/signer.sock", "/run/customerd/signer.sock"),
    ],
)
def test_the_address_is_the_one_asked_for_else_the_daemons(
    asked: str | None, listening: str, address: str
) -> None:
    """The line names the given host and port, and what is left out comes from the settings."""
    assert advertised(asked, listening) == address


@pytest.mark.parametrize(
    ("asked", "listening"),
    [(None, ":9738"), ("no port:x", "h:1"), ("a,b", "h:1"), ("h:99999", "h:1"), ("h", "/run/s")],
)
def test_an_address_nobody_could_dial_is_refused(asked: str | None, listening: str) -> None:
    """Where there is no host, no TCP socket, or no such address, the caller is told so."""
    with pytest.raises(RpcError) as caught:
        advertised(asked, listening)
    assert caught.value.data["kind"] == "invalid_address"


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("sockets", {"signer_tls": "9738"}),
        ("sockets", {"signer_tls": "home.example:99999"}),
        ("sockets", {"signer_mode": "0777"}),
        ("signer", {"ping_interval": 5.0, "gone_after": 5.0}),
        ("signer", {"ping_interval": 0.0}),
    ],
)
def test_settings_that_cannot_work_are_named(section: str, values: dict[str, object]) -> None:
    """An address without a port, an unknown mode, pings slower than patience are refused."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({section: values}, Settings)
    assert any(name in str(caught.value) for name in values)


def test_the_code_is_a_square_with_a_border() -> None:
    """The QR code is drawn with block characters, two rows in a line, light on every side."""
    lines = qr_code(PairingLine.fresh("h:1", bytes(32), lasting=1).text()).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert set("".join(lines)) <= set(" ▀▄█")
    assert set(lines[0]) == {"█"}
    assert all(line.startswith("██") and line.endswith("██") for line in lines)
    assert len(lines) == (len(lines[0]) + 1) // 2
