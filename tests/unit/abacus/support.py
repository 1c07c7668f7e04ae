"""An honest customer and merchant for the tests, and the deterministic draws of the vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from zkchannels.abacus import (
    ChannelSecrets,
    EstablishBlindings,
    EstablishCommitments,
    PayBlindings,
    PayCommitments,
    PublicKey,
    R,
    SecretKey,
    State,
    check_blinded,
    context,
    prove_establish,
    prove_pay,
    verify_establish,
    verify_pay,
)

CHAIN = 31337
ESCROW = b"\x11" * 20
SESSION = b"\x44" * 16
CONTEXT = context(CHAIN, ESCROW, SESSION)
SEED_KEY = b"a seed key of at least 32 bytes.."

Verifier = PublicKey | SecretKey


def draws(seed: bytes = b"zkchannels/abacus/vector/1") -> Iterator[int]:
    """Yield the reproducible scalars of the test vectors."""
    for number in count():
        digest = hashlib.sha512(seed + number.to_bytes(8, "big")).digest()
        yield int.from_bytes(digest, "big") % R


@dataclass(frozen=True)
class Tokened:
    """A state with the merchant's token on it, as the customer keeps it."""

    state: State
    token: bytes
    blinding: int


class Customer:
    """One channel's customer, with secrets derived as in production."""

    def __init__(self, key: SecretKey, channel: int = 7) -> None:
        self.merchant = key
        self.key = key.public
        self.secrets = ChannelSecrets(SEED_KEY, channel)
        self.channel = channel
        self.index = 0

    def establish(self, customer_balance: int, merchant_balance: int) -> Tokened:
        """Open the channel with an honest merchant and return the first tokened state."""
        state = self.secrets.state(0, 0, customer_balance, merchant_balance)
        blindings = self.secrets.establish_blindings()
        commitments = self.proven(state, blindings)
        check_blinded(
            self.key,
            self.merchant.blind_sign(commitments.close),
            state.close_state(),
            blindings.close,
        )
        token = self.merchant.blind_sign(commitments.state)
        check_blinded(self.key, token, state, blindings.state)
        return Tokened(state, token, blindings.state)

    def proven(self, state: State, blindings: EstablishBlindings) -> EstablishCommitments:
        """Prove and verify the first state."""
        proof = prove_establish(self.key, CONTEXT, state, blindings)
        return verify_establish(
            self.merchant,
            CONTEXT,
            self.channel,
            state.customer_balance,
            state.merchant_balance,
            proof,
        )

    def next_state(self, old: State, amount: int) -> tuple[State, PayBlindings]:
        """Return the state after a payment, with its blindings."""
        self.index += 1
        new = self.secrets.state(
            self.index, 0, old.customer_balance - amount, old.merchant_balance + amount
        )
        return new, self.secrets.pay_blindings(self.index, 0, amount)

    def pay(self, old: Tokened, amount: int, verifier: Verifier) -> Tokened:
        """Make one whole payment and return the new tokened state."""
        new, blindings = self.next_state(old.state, amount)
        proof = prove_pay(
            self.key, CONTEXT, old.state, old.token, old.blinding, new, amount, blindings
        )
        commitments: PayCommitments = verify_pay(verifier, CONTEXT, old.state.nonce, amount, proof)
        closing = self.merchant.blind_sign(commitments.close)
        check_blinded(self.key, closing, new.close_state(), blindings.close)
        token = self.merchant.blind_sign(commitments.state)
        check_blinded(self.key, token, new, blindings.state)
        return Tokened(new, token, blindings.state)
