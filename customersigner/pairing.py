"""The daemon that this signer is paired with, and the pairing itself."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from customersigner.errors import PairingFailed
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

TIMEOUT: Final = 10.0
ATTEMPTS: Final = 3
"""How often the pairing is said when the answer is lost: the daemon answers a repeat again."""


class PairedDaemon(msgspec.Struct, frozen=True):
    """The daemon to dial: "host:port" and its certificate, or the path of its Unix socket."""

    address: str
    certificate: bytes | None

    @classmethod
    def read(cls, path: Path) -> PairedDaemon | None:
        """Return what was paired, None when nothing was; raises SecretFileError."""
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(read_secret(path), type=cls)
        except msgspec.MsgspecError:
            raise SecretFileError(f"{path} is damaged: pair again") from None

    def write(self, path: Path) -> None:
        """Keep it, in place of an earlier one; raises SecretFileError."""
        write_secret(path, msgspec.json.encode(self))


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
            raise PairingFailed(f"the daemon refused: {error.message}") from None
        finally:
            peer.abort()
        return PairedDaemon(line.address, certificate)
    raise PairingFailed(f"the daemon did not answer: {lost}")


async def _connect(line: pairing.PairingLine) -> tuple[Peer, bytes | None]:
    """Connect, and over TLS have the certificate compared before anything is said."""
    async with asyncio.timeout(TIMEOUT):
        if line.fingerprint is None:
            return await connect_unix(line.address, name="daemon"), None
        host, port = pairing.read_address(line.address)
        context = pinning_client_context(None, pinned=None)
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
