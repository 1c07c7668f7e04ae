"""What a connection says before it is the signer's link: introduction, attaching, pairing.

docs/signer.md says who may attach: on the Unix socket the daemon's own user and root, everybody
else only as the paired signer; over TCP the holder of the paired certificate. Each of them proves
besides, with a fresh challenge, that it has the wallet's identity key.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from customerd.signing.listening import Caller
from customerd.signing.pairing import Offer, OfferGone, Pairing
from zkchannels.escrow.ethereum import checksum, keccak256, recover
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import get_logger
from zkchannels.service.patience import Patience
from zkchannels.wire import pairing
from zkchannels.wire import signer as wire

GUESSES: Final = 5
"""Wrong secrets that one address may send in an hour."""

log = get_logger("customerd.signing")


@dataclass(frozen=True, slots=True)
class Introduction:
    """What `link.hello` said, and the challenge it got."""

    identity: bytes
    challenge: bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """What `pair.hello` said, and what is to be proved."""

    identity: bytes
    certificate: bytes | None
    said: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """What the handshake needs to know of its surroundings."""

    wallet: Callable[[], bytes | None]
    """Identity of the wallet that the database belongs to."""
    fingerprint: Callable[[], bytes]
    """SHA-256 of the daemon's certificate."""
    is_readable: Callable[[bytes], bool]
    """Whether a certificate in DER can be pinned."""
    idle: Callable[[], str]
    """Why this daemon does not act now; empty while it does."""
    attach: Callable[[Peer, Caller, bytes, wire.LinkAttachParams], Awaitable[wire.Attached]]
    """Makes the connection the link; raises RpcError."""
    paired: Callable[[], None]
    """Hears that another signer may be paired now."""


class Handshake:
    """Answers the methods that the signer calls."""

    def __init__(self, pairing: Pairing, rules: Rules) -> None:
        self._pairing = pairing
        self._rules = rules
        self._introductions: dict[Peer, Introduction] = {}
        self._candidates: dict[Peer, Candidate] = {}
        self._guesses = Patience(GUESSES)

    def register(self, handlers: Handlers) -> None:
        """Answer with these handlers."""
        handlers.register(wire.LINK_HELLO, self._hello)
        handlers.register(wire.LINK_ATTACH, self._attach)
        handlers.register(wire.PAIR_HELLO, self._pair_hello)
        handlers.register(wire.PAIR_PROVE, self._pair_prove)

    def forget(self, peer: Peer) -> None:
        """Hear that a connection has ended."""
        self._introductions.pop(peer, None)
        self._candidates.pop(peer, None)

    # -- attaching ----------------------------------------------------------------------------

    def _hello(self, params: wire.LinkHelloParams, peer: Peer) -> wire.LinkChallenge:
        self._check_version(params.version)
        self._check_acting()
        self._check_paired(Caller(peer), params.identity)
        self._check_wallet(params.identity)
        challenge = secrets.token_bytes(32)
        self._introductions[peer] = Introduction(params.identity, challenge)
        return wire.LinkChallenge(challenge)

    async def _attach(self, params: wire.LinkAttachParams, peer: Peer) -> wire.Attached:
        self._check_acting()
        introduction = self._introductions.pop(peer, None)
        if introduction is None:
            raise wire.LINK_ERRORS.error("not_introduced", "call link.hello first")
        identity, caller = introduction.identity, Caller(peer)
        digest = keccak256(
            wire.CHALLENGE_TAG + introduction.challenge + identity + self._channel(caller)
        )
        try:
            signed_by = recover(digest, params.signature)
        except ValueError:
            signed_by = b""
        if signed_by != identity:
            log.warning("signer_refused", reason="bad signature", identity=checksum(identity))
            raise wire.LINK_ERRORS.error("bad_signature", "the challenge is not signed by it")
        self._check_paired(caller, identity)
        return await self._rules.attach(peer, caller, identity, params)

    def _channel(self, caller: Caller) -> bytes:
        """Return what the identity key signs about the TLS channel."""
        if caller.fingerprint is None:
            return pairing.NO_CHANNEL
        return self._rules.fingerprint() + caller.fingerprint

    def _check_version(self, version: int) -> None:
        if version != wire.LINK_VERSION:
            raise wire.LINK_ERRORS.error(
                "version_unsupported", f"this daemon speaks version {wire.LINK_VERSION}"
            )

    def _check_acting(self) -> None:
        if reason := self._rules.idle():
            raise wire.LINK_ERRORS.error("standby", reason)

    def _check_wallet(self, identity: bytes) -> None:
        wallet = self._rules.wallet()
        if wallet is not None and identity != wallet:
            log.warning("signer_refused", reason="wrong wallet", identity=checksum(identity))
            raise wrong_wallet()

    def _check_paired(self, caller: Caller, identity: bytes) -> None:
        if not self.may_attach(caller):
            raise wire.LINK_ERRORS.error(
                "not_paired", "this daemon does not know this signer: customerctl signer-pair"
            )
        paired = self._pairing.paired
        if not caller.trusted and paired is not None and paired.identity != identity:
            log.warning("signer_refused", reason="wrong wallet", identity=checksum(identity))
            raise wrong_wallet()

    def may_attach(self, caller: Caller) -> bool:
        """Whether a connection may be the signer's, whoever it proves to be."""
        paired = self._pairing.paired
        if caller.trusted:
            return True
        if paired is None:
            return False
        if caller.secured:
            return caller.certificate is not None and caller.certificate == paired.certificate
        return True

    # -- pairing ------------------------------------------------------------------------------

    def _pair_hello(self, params: wire.PairHelloParams, peer: Peer) -> wire.PairChallenge:
        self._check_version(params.version)
        self._check_acting()
        caller = Caller(peer)
        if not self._pairing.awaited:
            raise _refused("no pairing is open: customerctl signer-pair opens one")
        if caller.secured is not bool(params.certificate):
            raise _refused("a certificate goes with TLS, and with nothing else")
        certificate = params.certificate or None
        nonce = secrets.token_bytes(32)
        channel = pairing.NO_CHANNEL
        if certificate is not None:
            channel = self._rules.fingerprint() + pairing.fingerprint_of(certificate)
        said = pairing.transcript(channel, params.identity, params.nonce, nonce)
        self._candidates[peer] = Candidate(params.identity, certificate, said)
        return wire.PairChallenge(nonce)

    async def _pair_prove(self, params: wire.PairProveParams, peer: Peer) -> wire.Paired:
        self._check_acting()
        candidate, caller = self._candidates.pop(peer, None), Caller(peer)
        if candidate is None:
            raise wire.LINK_ERRORS.error("not_introduced", "call pair.hello first")
        if self._guesses.exhausted(caller.source):
            raise _refused("too many wrong secrets from this address: try again in an hour")
        offer = self._offer_for(candidate, params.proof)
        if offer is None:
            self._guesses.strike(caller.source)
            log.warning("pairing_refused", reason="no such secret", source=caller.source)
            raise _refused("the secret is wrong, or was used, or has expired")
        self._check_wallet(candidate.identity)
        # Looked at last: that is work, and only for who has the secret.
        certificate = candidate.certificate
        if certificate is not None and not self._rules.is_readable(certificate):
            raise _refused("the signer's certificate cannot be read")
        try:
            await self._pairing.take_up(offer, candidate.identity, candidate.certificate)
        except OfferGone:
            raise _refused("this pairing was used, or has expired") from None
        log.info("signer_paired", identity=checksum(candidate.identity), source=caller.source)
        self._rules.paired()
        return wire.Paired(pairing.daemons_proof(offer.keys, candidate.said))

    def _offer_for(self, candidate: Candidate, proof: bytes) -> Offer | None:
        """Return the offer whose secret was proved: the open one, or its own in a repeat."""
        offers = [] if self._pairing.offer is None else [self._pairing.offer]
        paired = self._pairing.repeatable
        if paired is not None and (paired.identity, paired.certificate) == (
            candidate.identity,
            candidate.certificate,
        ):
            offers.append(paired.offer)
        for offer in offers:
            if pairing.is_signers_proof(offer.keys, candidate.said, proof):
                return offer
        return None


def readable(own: Callable[[bytes], ssl.SSLContext], certificate: bytes) -> bool:
    """Whether TLS settings can be made that pin a certificate."""
    try:
        own(certificate)
    except (ssl.SSLError, ValueError):
        return False
    return True


def wrong_wallet() -> RpcError:
    """Return the error for a signer of another wallet."""
    return wire.LINK_ERRORS.error("wrong_wallet", "this daemon belongs to another wallet")


def _refused(message: str) -> RpcError:
    return wire.LINK_ERRORS.error("pairing_refused", message)
