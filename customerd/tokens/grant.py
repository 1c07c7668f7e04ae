"""What one presented token allows: a pure judgement of its restrictions and of the time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from zkchannels.caveats import Rate, Restrictions, Spend


@dataclass(frozen=True, slots=True)
class Grant:
    """A token whose signature was found good."""

    token: bytes
    restrictions: Restrictions
    spends: bool
    """Whether it was made with a spending limit."""

    def expired(self, now: float) -> bool:
        """Whether its time is over; `now` is a Unix time."""
        return self.restrictions.expires is not None and now >= self.restrictions.expires

    def allows(self, method: str, grant: str) -> bool:
        """Whether a method that is open to tokens for `grant` may be called with it."""
        if grant not in ("read", "spend") or (grant == "spend" and not self.spends):
            return False
        return self.restrictions.methods is not None and method in self.restrictions.methods

    def limits_for(self, asset: bytes) -> list[Spend] | None:
        """Return what a payment of this asset counts against; None when it may not be spent."""
        spends = self.restrictions.spends
        if not self.spends or not spends or any(limit.asset != asset for limit in spends):
            return None
        return spends


class Scope:
    """What a caller may see and spend; the owner everything."""

    __slots__ = ("channels", "grant")

    def __init__(self, grant: Grant | None = None) -> None:
        self.grant = grant
        self.channels = None if grant is None else grant.restrictions.channels

    @property
    def name(self) -> str:
        """A name that callers share only who see the same: the token's, and its channels'."""
        assert self.grant is not None
        channels = b"" if self.channels is None else b"".join(sorted(self.channels))
        return f"{self.grant.token.hex()}{hashlib.sha256(channels).hexdigest()[:16]}"

    @property
    def whole(self) -> bool:
        """Whether all channels may be seen, and with them what concerns none alone."""
        return self.channels is None

    def sees(self, channel: bytes | None) -> bool:
        """Whether something about this channel, or about none, may be seen."""
        return self.channels is None or channel in self.channels


OWNER = Scope()


class Rates:
    """Counts calls per limit, for all connections and all tokens that share it."""

    SWEEP = 4096

    def __init__(self) -> None:
        self._full_at: dict[bytes, float] = {}

    def take(self, limits: list[Rate], now: float) -> bool:
        """Count one call at a time in seconds, unless one of the limits is reached.

        For each limit the time is kept at which all its calls would be free again.
        """
        begins = [max(self._full_at.get(limit.account, now), now) for limit in limits]
        for limit, begin in zip(limits, begins, strict=True):
            # A tolerance of a millionth: sums of shares are not exact.
            share = limit.seconds / limit.count
            if begin + share - now > limit.seconds * 1.000001:
                return False
        for limit, begin in zip(limits, begins, strict=True):
            self._full_at[limit.account] = begin + limit.seconds / limit.count
        if len(self._full_at) > self.SWEEP:
            self._full_at = {name: full for name, full in self._full_at.items() if full > now}
        return True
