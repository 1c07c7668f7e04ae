"""The daemons that this signer is paired with, and the pairing itself."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from customersigner.errors import PairingFailed
from customersigner.questions import plain
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_tls, connect_unix
from zkchannels.service.secretfile import SecretFileError, read_secret, write_secret
from zkchannels.service.tls import (
    fingerprint_of,
    own_certificate,
    peer_certificate,
    pinning_client_context,
)
from zkchannels.wire import pairing
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

TIMEOUT: Final = 10.0
ATTEMPTS: Final = 3
"""How often the pairing is said when the answer is lost: the daemon answers a repeat again."""


class PairedDaemon(msgspec.Struct, frozen=True):
    """A daemon to dial: "host:port" and its certificate, or the path of its Unix socket."""

    address: str
    certificate: bytes | None


def read_paired(path: Path) -> list[PairedDaemon]:
    """Return what was paired, in the order of pairing; raises SecretFileError."""
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(read_secret(path), type=list[PairedDaemon])
    except msgspec.MsgspecError:
        raise SecretFileError(f"{path} is damaged: pair again") from None


def write_paired(path: Path, daemons: list[PairedDaemon]) -> None:
    """Keep these, in place of earlier ones; raises SecretFileError."""
    write_secret(path, msgspec.json.encode(daemons))


def joined(known: list[PairedDaemon], added: PairedDaemon) -> list[PairedDaemon]:
    """Return the known daemons with one more, or with what is new about one; pure."""
    if added.address not in [each.address for each in known]:
        return [*known, added]
    return [added if each.address == added.address else each for each in known]


async def pair(line: pairing.PairingLine, identity: bytes, own: Path) -> PairedDaemon:
    """Pair with the daemon that made a line; `own` is the signer's certificate with its key.

    Raises PairingFailed, OSError when the daemon is not reached, SecretFileError.
    """
    if line.expires <= time.time():
        raise PairingFailed("this pairing line has expired: make a new one")
    lost: Exception | None = None
    for _ in range(ATTEMPTS):
        peer, certificate = await _connect(line)
        try:
            await _prove(peer, line, identity, own)
        except (ConnectionLost, RequestTimeout) as error:
            lost = error
            continue
        except RpcError as error:
            raise _refused(error) from None
        finally:
            peer.abort()
        return PairedDaemon(line.address, certificate)
    raise PairingFailed(f"the daemon did not answer: {lost}")


async def meet(line: pairing.AddressLine, identity: bytes, own: Path) -> PairedDaemon:
    """Look up another daemon on the paired one's database: it knows this signer, or stands by.

    Raises PairingFailed, OSError when it is not reached, SecretFileError.
    """
    peer, certificate = await _connect(line, own)
    try:
        await peer.request(
            wire.LINK_HELLO, wire.LinkHelloParams(wire.LINK_VERSION, identity), timeout=TIMEOUT
        )
    except RpcError as error:
        if kind_of(error) != "standby":
            raise _refused(error) from None
    except (ConnectionLost, RequestTimeout) as error:
        raise PairingFailed(
            f"{line.address} does not know this signer, or does not answer: {error}"
        ) from None
    finally:
        peer.abort()
    return PairedDaemon(line.address, certificate)


def _refused(error: RpcError) -> PairingFailed:
    # Whoever made the line wrote this, too: it must not steer the terminal it is shown on.
    return PairingFailed(f"the daemon refused: {plain(error.message)}")


async def _connect(
    line: pairing.PairingLine | pairing.AddressLine, own: Path | None = None
) -> tuple[Peer, bytes | None]:
    """Connect, and over TLS have the certificate compared before anything is said."""
    async with asyncio.timeout(TIMEOUT):
        if line.fingerprint is None:
            return await connect_unix(line.address, name="daemon"), None
        host, port = pairing.read_address(line.address)
        context = pinning_client_context(own, pinned=None)
        peer = await connect_tls(host, port, context, name="daemon")
    certificate = peer_certificate(peer.transport)
    if certificate is None or fingerprint_of(certificate) != line.fingerprint:
        peer.abort()
        raise PairingFailed(
            f"{line.address} shows another certificate than the pairing line names: "
            "somebody may be in between"
        )
    return peer, certificate


async def _prove(peer: Peer, line: pairing.PairingLine, identity: bytes, own: Path) -> None:
    certificate, channel = b"", pairing.NO_CHANNEL
    if line.fingerprint is not None:
        certificate = own_certificate(own)
        channel = line.fingerprint + fingerprint_of(certificate)
    nonce = secrets.token_bytes(32)
    challenge = await peer.request(
        wire.PAIR_HELLO,
        wire.PairHelloParams(wire.LINK_VERSION, identity, certificate, nonce),
        timeout=TIMEOUT,
    )
    said = pairing.transcript(channel, identity, nonce, challenge.nonce)
    answer = await peer.request(
        wire.PAIR_PROVE,
        wire.PairProveParams(pairing.signers_proof(line.secret, said)),
        timeout=TIMEOUT,
    )
    if not pairing.is_daemons_proof(line.secret, said, answer.proof):
        raise PairingFailed("the other side did not make this pairing line")
