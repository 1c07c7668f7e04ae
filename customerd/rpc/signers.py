"""The methods that pair a signer and forget it."""

from __future__ import annotations

from customerd.rpc import methods
from customerd.rpc.errors import failure
from customerd.signing.gateway import Gateway
from customerd.signing.qr import qr_code
from zkchannels.escrow.ethereum import checksum
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire.pairing import (
    AddressLine,
    InvalidLine,
    PairingLine,
    read_address,
    write_address,
)


class Signers:
    """What `signer-pair`, `signer-address` and `signer-forget` do."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def pair(self, params: methods.SignerPairParams, _peer: Peer) -> methods.SignerPairing:
        """Offer one pairing; an earlier offer that was not taken up is withdrawn."""
        address, fingerprint = self._place(params.address)
        line = PairingLine.fresh(address, fingerprint, lasting=params.expires)
        await self._gateway.pairing.open(line)
        text = line.text()
        return methods.SignerPairing(
            line=text,
            qr=qr_code(text),
            address=address,
            fingerprint=None if fingerprint is None else fingerprint.hex(),
            expires=line.expires,
        )

    def address(self, params: methods.SignerAddressParams, _peer: Peer) -> methods.SignerAddress:
        """Say where this daemon is; a standby, too."""
        address, fingerprint = self._place(params.address)
        text = AddressLine(address, fingerprint).text()
        return methods.SignerAddress(
            line=text,
            qr=qr_code(text),
            address=address,
            fingerprint=None if fingerprint is None else fingerprint.hex(),
        )

    def _place(self, asked: str | None) -> tuple[str, bytes | None]:
        """Return the address for the signer, and the fingerprint of the certificate there."""
        address = advertised(asked, self._gateway.address)
        return address, None if address.startswith("/") else self._gateway.fingerprint

    async def forget(self, _params: methods.NoParams, _peer: Peer) -> methods.SignerForgotten:
        """Forget the paired signer at once and for good."""
        forgotten = await self._gateway.forget_signer()
        if forgotten is None:
            raise failure("not_found", "no signer is paired")
        fingerprint = forgotten.fingerprint
        return methods.SignerForgotten(
            checksum(forgotten.identity), None if fingerprint is None else fingerprint.hex()
        )


def advertised(asked: str | None, listening: str) -> str:
    """Return the address for the signer; pure.

    asked: "host:port" or only a host, where the signer comes by another name than this daemon's;
    listening: "host:port", without a host for every address, or the path of the Unix socket.
    Raises RpcError.
    """
    if listening.startswith("/"):
        if asked is not None:
            raise failure(
                "invalid_address",
                "the daemon does not listen on TCP for its signer",
                hint="set signer_tls in the section [sockets] of the configuration",
            )
        return listening
    host, port = read_address(listening)
    if asked is not None:
        host, port = _read(asked, port)
    if not host:
        raise failure(
            "invalid_address",
            "the daemon listens on every address",
            hint="say by which one the signer comes: --address HOST",
        )
    return write_address(host, port)


def _read(asked: str, port: int) -> tuple[str, int]:
    """Return host and port of what was asked for; the port may be left out."""
    for text in (asked, f"{asked}:{port}"):
        try:
            return read_address(text)
        except InvalidLine:
            continue
    raise _unreadable()


def _unreadable() -> RpcError:
    return failure("invalid_address", "the address is not host:port")
