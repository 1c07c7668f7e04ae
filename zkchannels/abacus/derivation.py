"""What a customer can compute again from the seed: nonces, revocation secrets, blindings."""

from __future__ import annotations

import hmac

from zkchannels.abacus.encoding import encode_amount, encode_scalar
from zkchannels.abacus.errors import InvalidKey, InvalidStatement
from zkchannels.abacus.establish import EstablishBlindings
from zkchannels.abacus.parameters import R
from zkchannels.abacus.pay_prover import PayBlindings
from zkchannels.abacus.states import SECRET_LENGTH, State, lock_of

_MINIMUM_SEED_KEY = 32


class ChannelSecrets:
    """Derives a channel's secrets by HMAC-SHA-512 from a seed key; none of them is stored.

    `index` counts the states of the channel from 0, `attempt` the tries to reach a state. An
    attempt must be bound to one amount, durably, before anything derived from it is sent. Masks
    of proofs are never derived: used twice they would reveal everything.
    """

    def __init__(self, seed_key: bytes, channel_id: int) -> None:
        """Raises InvalidKey for a seed key below 32 bytes, InvalidEncoding for an id >= R."""
        if len(seed_key) < _MINIMUM_SEED_KEY:
            raise InvalidKey(f"a seed key has at least {_MINIMUM_SEED_KEY} bytes")
        self._channel_id = channel_id
        self._key = hmac.digest(
            seed_key, b"zkchannels/abacus/channel/1" + encode_scalar(channel_id), "sha512"
        )

    def nonce(self, index: int, attempt: int) -> int:
        """Return the nonce of a state. One equal to CLOSE (never seen) makes no State: skip it."""
        return self._scalar(b"nonce", index, attempt)

    def secret(self, index: int, attempt: int) -> bytes:
        """Return the revocation secret of a state, 32 bytes."""
        return self._derive(b"secret", index, attempt)[:SECRET_LENGTH]

    def lock(self, index: int, attempt: int) -> int:
        """Return the lock of a state."""
        return lock_of(self.secret(index, attempt))

    def state(
        self, index: int, attempt: int, customer_balance: int, merchant_balance: int
    ) -> State:
        """Return a state of the channel; raises InvalidStatement as State does."""
        return State(
            channel_id=self._channel_id,
            nonce=self.nonce(index, attempt),
            lock=self.lock(index, attempt),
            customer_balance=customer_balance,
            merchant_balance=merchant_balance,
        )

    def establish_blindings(
        self, index: int = 0, attempt: int = 0, amount: int = 0
    ) -> EstablishBlindings:
        """Return the blindings of an establish proof."""
        suffix = encode_amount(amount)
        return EstablishBlindings(
            state=self._scalar(b"state-blinding", index, attempt, suffix),
            close=self._scalar(b"close-blinding", index, attempt, suffix),
        )

    def pay_blindings(self, index: int, attempt: int, amount: int) -> PayBlindings:
        """Return the blindings of the pay proof that leads to state `index` by an amount."""
        suffix = encode_amount(amount)
        return PayBlindings(
            state=self._scalar(b"state-blinding", index, attempt, suffix),
            close=self._scalar(b"close-blinding", index, attempt, suffix),
            lock=self._scalar(b"lock-blinding", index, attempt, suffix),
        )

    def __repr__(self) -> str:
        return "ChannelSecrets(..)"

    def _scalar(self, label: bytes, index: int, attempt: int, suffix: bytes = b"") -> int:
        return int.from_bytes(self._derive(label, index, attempt, suffix), "big") % R

    def _derive(self, label: bytes, index: int, attempt: int, suffix: bytes = b"") -> bytes:
        if not 0 <= index < 2**64 or not 0 <= attempt < 2**32:
            raise InvalidStatement("index or attempt out of range")
        message = len(label).to_bytes(2, "big") + label
        message += index.to_bytes(8, "big") + attempt.to_bytes(4, "big")
        return hmac.digest(self._key, message + suffix, "sha512")
