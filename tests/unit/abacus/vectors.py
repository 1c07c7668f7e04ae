"""Computes the test vectors from their seeds; as a program, prints what vectors.json holds."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import islice

from zkchannels.abacus import (
    CLOSE,
    EstablishBlindings,
    PayBlindings,
    SecretKey,
    State,
    channel_id,
    context,
    lock_of,
    use_backend,
)
from zkchannels.abacus.establish import EstablishMasks, prove_establish_with
from zkchannels.abacus.keys import points_of
from zkchannels.abacus.parameters import DIGITS, MAX_BALANCE
from zkchannels.abacus.pay_prover import PayMasks, Payment, prove_pay_with
from zkchannels.abacus.signatures import decode_signature, unblind

from .support import draws

CHAIN, ESCROW, CUSTOMER, SALT = 31337, b"\x11" * 20, b"\x22" * 20, b"\x33" * 32
ESTABLISH_CONTEXT = context(CHAIN, ESCROW, b"\x44" * 16)
PAY_CONTEXT = context(CHAIN, ESCROW, b"\x55" * 16)
CHANNEL = channel_id(CHAIN, ESCROW, CUSTOMER, SALT)
LOCKS = (lock_of(bytes(range(32))), lock_of(bytes(range(32, 64))))

# name: customer's and merchant's first balance, amount
CASES = {
    "payment": (1_000_000, 250_000, 1234),
    "refund": (1_000_000, 250_000, -1234),
    "nothing": (1_000_000, 250_000, 0),
    "everything": (MAX_BALANCE, 0, MAX_BALANCE),
    "everything refunded": (0, MAX_BALANCE, -MAX_BALANCE),
    "nothing of everything": (MAX_BALANCE, 0, 0),
    "the last unit": (1, MAX_BALANCE - 1, 1),
}


def merchant_key(scalars: Iterator[int]) -> SecretKey:
    """Return the key of the first six draws, on the current backend."""
    return SecretKey(list(islice(scalars, 6)))


def masks_of(scalars: Iterator[int]) -> PayMasks:
    """Return the masks in the order in which the vectors draw them."""
    factor, shift, blinding = islice(scalars, 3)
    digits = tuple(islice(scalars, DIGITS))
    singles = list(islice(scalars, 10))
    coefficients = tuple(islice(scalars, 4))
    return PayMasks(factor, shift, blinding, digits, *singles, coefficients)


def payment_vector(case: tuple[int, int, int]) -> dict[str, object]:
    """Return all that one channel sends from its first state to a close after one payment."""
    customer, merchant, amount = case
    scalars = draws()
    key = merchant_key(scalars)
    points = points_of(key.public)
    first = State(CHANNEL, next(scalars), LOCKS[0], customer, merchant)
    opening = EstablishBlindings(*islice(scalars, 2))
    masks = EstablishMasks(*islice(scalars, 4))
    establish = prove_establish_with(key.public, ESTABLISH_CONTEXT, first, opening, masks)
    token = key._blind_sign(establish[:48], next(scalars))
    second = State(CHANNEL, next(scalars), LOCKS[1], customer - amount, merchant + amount)
    blindings = PayBlindings(*islice(scalars, 3))
    payment = Payment(first, token, opening.state, second, amount, blindings)
    proof = prove_pay_with(key.public, PAY_CONTEXT, payment, masks_of(scalars)).to_bytes()
    # Beyond the numbered draws of the payment: the answer and the factor of the close.
    closing = key._blind_sign(proof[144:192], next(scalars))
    final = unblind(points, decode_signature(points, closing), blindings.close, next(scalars))
    return {
        "customer_balance": customer,
        "merchant_balance": merchant,
        "amount": amount,
        "nonce": f"{first.nonce:064x}",
        "token_blinding": f"{opening.state:064x}",
        "new_nonce": f"{second.nonce:064x}",
        "close_blinding": f"{blindings.close:064x}",
        "lock_blinding": f"{blindings.lock:064x}",
        "establish_proof": establish.hex(),
        "token": token.hex(),
        "pay_proof": proof.hex(),
        "closing_answer": closing.hex(),
        "closing_authorization": final.hex(),
    }


def compute() -> dict[str, object]:
    """Return all vectors as the current backend computes them."""
    key = merchant_key(draws())
    return {
        "secret_key": key.to_bytes().hex(),
        "public_key": key.public.to_bytes().hex(),
        "escrow_key": key.public.to_escrow_key().hex(),
        "key_digest": key.public.digest.hex(),
        "generators": points_of(key.public).generators.encoded.hex(),
        "close": f"{CLOSE:x}",
        "channel_id": f"{CHANNEL:064x}",
        "locks": [f"{lock:064x}" for lock in LOCKS],
        "cases": {name: payment_vector(case) for name, case in CASES.items()},
    }


def sha256(data: str) -> str:
    """Return the SHA-256 of bytes given in hexadecimal, in hexadecimal."""
    return hashlib.sha256(bytes.fromhex(data)).hexdigest()


if __name__ == "__main__":
    with use_backend("pyblst"):
        json.dump(compute(), sys.stdout, indent=1)
        sys.stdout.write("\n")
