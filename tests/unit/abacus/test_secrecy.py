"""Secrets stay out of repr and exceptions, and randomness is never used twice."""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.abacus import (
    CLOSE,
    AbacusError,
    ChannelSecrets,
    InvalidEncoding,
    InvalidKey,
    InvalidProof,
    InvalidSignature,
    InvalidStatement,
    PayBlindings,
    PayCommitments,
    R,
    SecretKey,
    State,
    check_blinded,
    decode_scalar,
    encode_scalar,
    lock_of,
    prove_pay,
)
from zkchannels.abacus.encoding import random_nonzero_scalar, random_scalar, random_scalars
from zkchannels.abacus.establish import EstablishMasks
from zkchannels.abacus.pay_prover import PayMasks, Payment
from zkchannels.recent import Recent

from .support import CONTEXT, SEED_KEY, Tokened

SECRET = 0x5EC2E75EC2E75EC2E75EC2E75EC2E7


def test_nothing_secret_is_shown() -> None:
    """Keys, states, blindings, masks and derivations do not show their secrets."""
    key = SecretKey([SECRET] * 6)
    secrets = ChannelSecrets(SEED_KEY, 7)
    state = State(7, SECRET, SECRET, 1000, 500)
    blindings = PayBlindings(SECRET, SECRET, SECRET)
    payment = Payment(state, b"token", SECRET, state, 0, blindings)
    masks = PayMasks(SECRET, SECRET, SECRET, (SECRET,), *[SECRET] * 10, (SECRET,))
    shown = [key, secrets, state, blindings, payment, masks, EstablishMasks(*[SECRET] * 4)]
    for value in shown:
        for text in (repr(value), str(value), f"{value}"):
            assert str(SECRET) not in text
            assert f"{SECRET:x}" not in text.lower()
            assert SEED_KEY.hex() not in text


def test_nothing_secret_is_in_an_exception(merchant: SecretKey, opened: Tokened) -> None:
    """Refusals, with their causes, show no value that was passed."""
    state = State(7, SECRET, SECRET, 1000, 500)
    new = State(7, 1, 1, 900, 600)
    attempts = (
        lambda: encode_scalar(SECRET + 2**256),
        lambda: decode_scalar((SECRET + R).to_bytes(33, "big")),
        lambda: State(7, SECRET + R, 1, 1, 1),
        lambda: State(7, 1, SECRET << 200, 1, 1),
        lambda: State(7, 1, 1, SECRET, 1),
        lambda: SecretKey([0, *[SECRET] * 5]),
        lambda: SecretKey.from_bytes(SECRET.to_bytes(192, "big")),
        lambda: ChannelSecrets(b"short", SECRET),
        lambda: check_blinded(merchant.public, opened.token, state, SECRET),
        lambda: prove_pay(
            merchant.public,
            CONTEXT,
            state,
            opened.token,
            SECRET,
            new,
            100,
            PayBlindings(SECRET, SECRET, SECRET),
        ),
    )
    for attempt in attempts:
        with pytest.raises(AbacusError) as caught:
            attempt()
        # The lines of source that a traceback quotes are not values.
        text = "".join(traceback.format_exception_only(caught.value))
        text += "".join(map(str, (caught.value.__cause__, caught.value.__context__)))
        assert str(SECRET) not in text
        assert f"{SECRET:x}" not in text.lower()


def test_randomness_differs_between_calls() -> None:
    """Scalars and masks are drawn anew for every use, and lie in their range."""
    singles = [random_scalar() for _ in range(20)] + random_scalars(200)
    singles += [random_nonzero_scalar() for _ in range(20)]
    assert len(set(singles)) == 240
    assert all(0 <= scalar < R for scalar in singles)
    assert random_scalars(0) == []
    first, second = PayMasks.draw(), PayMasks.draw()
    assert not set(_values(first)) & set(_values(second))
    assert len(set(_values(first))) == len(_values(first)) == 49
    assert EstablishMasks.draw() != EstablishMasks.draw()


def _values(masks: PayMasks) -> list[int]:
    values: list[int] = []
    for name in PayMasks.__slots__:
        value = getattr(masks, name)
        values.extend(value if isinstance(value, tuple) else (value,))
    return values


# In a process of its own: forking is safe only where no other thread runs.
FORKING = """
from multiprocessing import get_context
from zkchannels.abacus import SecretKey, prepare_pay
from zkchannels.recent import Recent
from zkchannels.abacus.pay_prover import PayMasks

KEY = SecretKey.generate()
PREPARED = prepare_pay(KEY.public)

def draw(_):
    assert PREPARED.take(KEY.public, refund=False) is None, "shared with another process"
    signature = KEY.blind_sign(KEY.public.to_bytes()[:48])
    return PayMasks.draw().token_factor, signature[:48].hex()

with get_context("fork").Pool(2) as pool:
    for factor, first in pool.map(draw, range(6), chunksize=1):
        print(factor, first)
"""


def test_randomness_differs_between_forked_workers() -> None:
    """Masks and u of workers that were forked from one process have nothing in common."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True, timeout=60
    )
    words = done.stdout.split()
    assert len(words) == len(set(words)) == 12


def test_a_channels_secrets_are_derived_and_separate() -> None:
    """Derived values repeat exactly, and differ by seed, channel, index, attempt and label."""
    first, again = (ChannelSecrets(SEED_KEY, 7) for _ in range(2))
    assert first.state(3, 1, 10, 20) == again.state(3, 1, 10, 20)
    assert first.lock(3, 1) == lock_of(first.secret(3, 1))
    assert len(first.secret(3, 1)) == 32
    values = []
    for secrets in (first, ChannelSecrets(SEED_KEY, 8), ChannelSecrets(SEED_KEY[::-1], 7)):
        for index, attempt in ((0, 0), (0, 1), (1, 0), (2**64 - 1, 2**32 - 1)):
            values += [secrets.nonce(index, attempt), secrets.lock(index, attempt)]
            blindings = secrets.pay_blindings(index, attempt, 5)
            values += [blindings.state, blindings.close, blindings.lock]
    assert len(set(values)) == len(values)


def test_blindings_depend_on_the_amount() -> None:
    """Two amounts under one attempt, which must not happen, would still not share a blinding."""
    secrets = ChannelSecrets(SEED_KEY, 7)
    first, second = (secrets.pay_blindings(1, 0, amount) for amount in (5, -5))
    assert first.state != second.state
    assert first.close != second.close
    assert first.lock != second.lock
    opening = secrets.establish_blindings()
    assert opening.state == secrets.pay_blindings(0, 0, 0).state


def test_derivation_follows_the_specification() -> None:
    """The values equal HMAC-SHA-512 chained by hand over labels, index, attempt and amount."""
    import hashlib
    import hmac

    def mac(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, hashlib.sha512).digest()

    channel = mac(SEED_KEY, b"zkchannels/abacus/channel/1" + (7).to_bytes(32, "big"))
    place = (2).to_bytes(8, "big") + (1).to_bytes(4, "big")
    amount = (-3).to_bytes(8, "big", signed=True)
    secrets = ChannelSecrets(SEED_KEY, 7)
    nonce = int.from_bytes(mac(channel, b"\0\5nonce" + place), "big") % R
    assert secrets.nonce(2, 1) == nonce
    assert secrets.secret(2, 1) == mac(channel, b"\0\6secret" + place)[:32]
    lock = int.from_bytes(mac(channel, b"\0\x0dlock-blinding" + place + amount), "big") % R
    assert secrets.pay_blindings(2, 1, -3).lock == lock


@pytest.mark.parametrize("index", [-1, 2**64])
def test_positions_out_of_range_are_refused(index: int) -> None:
    """Index and attempt have fixed widths; nothing wraps around."""
    secrets = ChannelSecrets(SEED_KEY, 7)
    with pytest.raises(InvalidStatement):
        secrets.nonce(index, 0)
    with pytest.raises(InvalidStatement):
        secrets.nonce(0, index)
    with pytest.raises(InvalidEncoding):
        secrets.pay_blindings(0, 0, 2**63)
    with pytest.raises(InvalidEncoding):
        ChannelSecrets(SEED_KEY, -1)
    with pytest.raises(InvalidKey):
        ChannelSecrets(b"", 7)


@given(st.integers(0, R - 1))
def test_scalars_survive_their_bytes(value: int) -> None:
    """A scalar has one encoding, which is read back."""
    assert decode_scalar(encode_scalar(value)) == value


@pytest.mark.parametrize(
    "data", [b"", bytes(31), bytes(33), R.to_bytes(32, "big"), (R + 1).to_bytes(32, "big")]
)
def test_other_bytes_are_no_scalar(data: bytes) -> None:
    """Wrong lengths and values of R or more are refused."""
    with pytest.raises(InvalidEncoding):
        decode_scalar(data)


def test_the_tag_is_the_word() -> None:
    """CLOSE spells its name."""
    assert CLOSE.to_bytes(5, "big") == b"CLOSE"


@pytest.mark.parametrize(
    "error",
    [
        InvalidProof(),
        InvalidEncoding("a point is not in the group"),
        InvalidKey("no key"),
        InvalidSignature("no signature"),
        InvalidStatement("no statement"),
    ],
)
def test_errors_and_results_travel_between_processes(error: AbacusError) -> None:
    """What a worker that verifies proofs raises and returns arrives unchanged."""
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))
    commitments = PayCommitments(b"a", b"b", b"c")
    assert pickle.loads(pickle.dumps(commitments)) == commitments


def test_the_memory_of_checked_tokens_is_bounded() -> None:
    """Only the latest digests are remembered; the oldest are forgotten first."""
    recent: Recent[None] = Recent(limit=2)
    for digest in (b"a", b"b", b"a", b"c", b"d"):
        recent.keep(digest, None)
    assert b"a" not in recent
    assert b"b" not in recent
    assert b"c" in recent
    assert b"d" in recent
