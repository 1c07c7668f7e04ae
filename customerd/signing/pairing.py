"""Which signer is paired, and the offer to pair one: kept in the database, known in memory.

An offer is taken up once, in the transaction that pairs the signer and ends an earlier pairing.
The one exception is a repeat by the very signer that took it up, whose answer may have been lost.
"""

from __future__ import annotations

import time

import msgspec

from customerd.store.events import Change, Store
from customerd.store.lease import CHANNEL
from zkchannels.service.tls import fingerprint_of
from zkchannels.wire import pairing as wire


class OfferGone(Exception):
    """The offer has expired, was used, or was replaced."""


class Offer(msgspec.Struct, frozen=True):
    """An open offer; shows nothing of its keys."""

    stored_key: bytes
    daemon_key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"Offer(expires={self.expires})"

    @property
    def keys(self) -> wire.Keys:
        """What recognises the holder of the secret."""
        return wire.Keys(self.stored_key, self.daemon_key)


class PairedSigner(msgspec.Struct, frozen=True):
    """The signer that is paired; shows nothing of its keys."""

    identity: bytes
    certificate: bytes | None
    stored_key: bytes
    daemon_key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"PairedSigner(identity={self.identity.hex()})"

    @property
    def fingerprint(self) -> bytes | None:
        """SHA-256 of its certificate; None for a signer that dials a Unix socket."""
        return None if self.certificate is None else fingerprint_of(self.certificate)

    @property
    def offer(self) -> Offer:
        """The offer that it took up."""
        return Offer(self.stored_key, self.daemon_key, self.expires)


class Pairing:
    """The one offer and the one paired signer; memory follows each commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offer: Offer | None = None
        self.paired: PairedSigner | None = None

    @property
    def offer(self) -> Offer | None:
        """The offer that may be taken up now."""
        offer = self._offer
        return offer if offer is not None and offer.expires > time.time() else None

    @property
    def awaited(self) -> bool:
        """Whether a stranger may have something to say: to take up an offer, or to repeat it."""
        return self.offer is not None or self.repeatable is not None

    @property
    def repeatable(self) -> PairedSigner | None:
        """The paired signer, as long as it may say again what paired it."""
        paired = self.paired
        return paired if paired is not None and paired.expires > time.time() else None

    async def load(self) -> None:
        """Read what is written; raises DatabaseUnavailable."""
        database = self._store.database
        self._offer = await database.fetch_one(
            "select stored_key, daemon_key, extract(epoch from expires)::float8 from pairing_offer",
            row=Offer,
        )
        self.paired = await database.fetch_one(
            """
            select identity, certificate, stored_key, daemon_key,
                   extract(epoch from expires)::float8
            from paired_signer
            """,
            row=PairedSigner,
        )

    async def open(self, line: wire.PairingLine) -> None:
        """Offer what a line says, instead of an earlier offer; on disk when this returns."""
        keys = wire.keys_of(line.secret)
        offer = Offer(keys.stored, keys.daemon, float(line.expires))

        async def body(change: Change) -> None:
            await change.execute(
                """
                insert into pairing_offer (stored_key, daemon_key, expires)
                values (%(stored_key)s, %(daemon_key)s, to_timestamp(%(expires)s))
                on conflict (single) do update set stored_key = excluded.stored_key,
                    daemon_key = excluded.daemon_key, expires = excluded.expires
                """,
                msgspec.structs.asdict(offer),
            )
            change.event("signer", "pairing_offered", expires=line.expires)

        await self._store.change(body)
        self._offer = offer

    async def take_up(self, offer: Offer, identity: bytes, certificate: bytes | None) -> None:
        """Pair a signer that proved it has the secret; raises OfferGone."""
        signer = PairedSigner(
            identity, certificate, offer.stored_key, offer.daemon_key, offer.expires
        )
        if signer == self.paired:
            return

        async def body(change: Change) -> None:
            taken = await change.execute(
                """
                delete from pairing_offer
                where stored_key = %(stored_key)s and expires > to_timestamp(%(now)s)
                """,
                {"stored_key": offer.stored_key, "now": time.time()},
            )
            if not taken:
                raise OfferGone
            await change.execute("delete from paired_signer")
            await change.execute(
                """
                insert into paired_signer (identity, certificate, stored_key, daemon_key, expires)
                values (%(identity)s, %(certificate)s, %(stored_key)s, %(daemon_key)s,
                        to_timestamp(%(expires)s))
                """,
                msgspec.structs.asdict(signer),
            )
            change.event("signer", "paired", identity=identity.hex())
            await _tell_standby(change)

        await self._store.change(body)
        self._offer, self.paired = None, signer

    async def forget(self) -> PairedSigner | None:
        """End the pairing and any offer; return what was paired. It is durable on return."""

        async def body(change: Change) -> None:
            await change.execute("delete from pairing_offer")
            if await change.execute("delete from paired_signer"):
                change.event("signer", "forgotten")
                await _tell_standby(change)

        await self._store.change(body)
        forgotten, self._offer, self.paired = self.paired, None, None
        return forgotten


async def _tell_standby(change: Change) -> None:
    """Wake a daemon that stands by, which lets in the paired signer to tell it so."""
    await change.execute("select pg_notify(%(channel)s, '')", {"channel": CHANNEL})
