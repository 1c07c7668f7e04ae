"""The establish proof: two commitments hide one nonce and one lock, all else in them is public."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from zkchannels.abacus.commitments import commit_pair, commit_pair_as_owner
from zkchannels.abacus.encoding import decode_scalar, encode_scalar, random_scalars
from zkchannels.abacus.errors import InvalidEncoding, InvalidProof, InvalidStatement
from zkchannels.abacus.keys import PublicKey, SecretKey, points_of
from zkchannels.abacus.parameters import (
    CHALLENGE_LENGTH,
    CLOSE,
    G1_LENGTH,
    HASH_BITS,
    MAX_BALANCE,
    SCALAR_LENGTH,
    R,
)
from zkchannels.abacus.states import State
from zkchannels.abacus.transcript import Transcript

_RESPONSES = 4
ESTABLISH_PROOF_LENGTH = 2 * G1_LENGTH + CHALLENGE_LENGTH + _RESPONSES * SCALAR_LENGTH


@dataclass(frozen=True, slots=True, repr=False)
class EstablishBlindings:
    """Blindings of the commitments to the first state and its close state; secret."""

    state: int
    close: int


@dataclass(frozen=True, slots=True)
class EstablishCommitments:
    """Commitments of an accepted establish proof, 48 bytes each, for the merchant to sign."""

    state: bytes
    close: bytes


@dataclass(frozen=True, slots=True, repr=False)
class EstablishMasks:
    """The prover's masks, used for one proof; secret."""

    state: int
    close: int
    nonce: int
    lock: int

    @classmethod
    def draw(cls) -> Self:
        """Return fresh masks from the operating system's generator."""
        return cls(*random_scalars(_RESPONSES))


def prove_establish(
    key: PublicKey, context: bytes, state: State, blindings: EstablishBlindings
) -> bytes:
    """Prove that two commitments hold the first state of a channel and its close state.

    Args:
        key: the merchant's key
        context: from `context`
        state: the first state; channel id and balances are public
        blindings: of the two commitments

    Returns:
        the proof, 240 bytes

    Raises:
        InvalidStatement: the balances add up to more than MAX_BALANCE
    """
    if state.customer_balance + state.merchant_balance > MAX_BALANCE:
        raise InvalidStatement("the balances add up to more than 2**63 - 1")
    return prove_establish_with(key, context, state, blindings, EstablishMasks.draw())


def prove_establish_with(
    key: PublicKey,
    context: bytes,
    state: State,
    blindings: EstablishBlindings,
    masks: EstablishMasks,
) -> bytes:
    """Do the work of prove_establish with given masks, for this package and its test vectors."""
    points = points_of(key)
    encode = points.backend.encode_g1
    committed = commit_pair(points, (blindings.state, blindings.close), state.messages, CLOSE)
    masked = commit_pair(points, (masks.state, masks.close), (0, masks.nonce, masks.lock, 0, 0), 0)
    commitments = EstablishCommitments(encode(committed[0]), encode(committed[1]))
    public = (state.channel_id, state.customer_balance, state.merchant_balance)
    x = _challenge(key, context, public, commitments, [encode(point) for point in masked])
    responses = (
        masks.state + x * blindings.state,
        masks.close + x * blindings.close,
        masks.nonce + x * state.nonce,
        masks.lock + x * state.lock,
    )
    return (
        commitments.state
        + commitments.close
        + x.to_bytes(CHALLENGE_LENGTH, "big")
        + b"".join(encode_scalar(response % R) for response in responses)
    )


def verify_establish(  # noqa: PLR0917 - the statement has this many parts
    key: PublicKey | SecretKey,
    context: bytes,
    channel_id: int,
    customer_balance: int,
    merchant_balance: int,
    proof: bytes,
) -> EstablishCommitments:
    """Verify an establish proof, as anybody or as the owner of the key, with the same result.

    Args:
        key: the merchant's key; with the secret key the work is less
        context: from `context`, with the merchant's own session id
        channel_id: computed by the verifier from what the customer will open
        customer_balance: the customer's deposit
        merchant_balance: the merchant's deposit
        proof: 240 bytes

    Returns:
        the commitments to sign: `close` at once, `state` when the escrow holds the deposits

    Raises:
        InvalidProof: whatever is wrong, deposits out of range included
    """
    public = (channel_id, customer_balance, merchant_balance)
    if not _in_range(*public):
        raise InvalidProof
    try:
        return _verify(key, context, public, proof)
    except InvalidEncoding as error:
        raise InvalidProof from error


def _verify(
    key: PublicKey | SecretKey, context: bytes, public: tuple[int, int, int], proof: bytes
) -> EstablishCommitments:
    commitments, x, responses = _parse(proof)
    z_state, z_close, z_nonce, z_lock = responses
    public_key = key.public if isinstance(key, SecretKey) else key
    points = points_of(public_key)
    backend = points.backend
    received = [backend.decode_g1(data) for data in (commitments.state, commitments.close)]
    channel_id, customer, merchant = (x * value % R for value in public)
    values = (channel_id, z_nonce, z_lock, customer, merchant)
    close_tag = x * CLOSE % R
    if isinstance(key, SecretKey):
        sums = commit_pair_as_owner(key, (z_state, z_close), values, close_tag)
    else:
        sums = commit_pair(points, (z_state, z_close), values, close_tag)
    masks = [
        backend.encode_g1(total + -backend.multiply_g1(commitment, x))
        for total, commitment in zip(sums, received, strict=True)
    ]
    if _challenge(public_key, context, public, commitments, masks) != x:
        raise InvalidProof
    return commitments


def _in_range(channel_id: int, customer_balance: int, merchant_balance: int) -> bool:
    # The bound on the sum is what lets a payment prove only the balance that decreases.
    return (
        0 <= channel_id < 2**HASH_BITS
        and customer_balance >= 0
        and merchant_balance >= 0
        and customer_balance + merchant_balance <= MAX_BALANCE
    )


def _parse(proof: bytes) -> tuple[EstablishCommitments, int, list[int]]:
    if len(proof) != ESTABLISH_PROOF_LENGTH:
        raise InvalidProof
    start = 2 * G1_LENGTH + CHALLENGE_LENGTH
    x = int.from_bytes(proof[2 * G1_LENGTH : start], "big")
    if x == 0:
        raise InvalidProof
    responses = [
        decode_scalar(proof[at : at + SCALAR_LENGTH])
        for at in range(start, ESTABLISH_PROOF_LENGTH, SCALAR_LENGTH)
    ]
    return EstablishCommitments(proof[:G1_LENGTH], proof[G1_LENGTH : 2 * G1_LENGTH]), x, responses


def _challenge(
    key: PublicKey,
    context: bytes,
    public: tuple[int, int, int],
    commitments: EstablishCommitments,
    masks: Sequence[bytes],
) -> int:
    channel_id, customer_balance, merchant_balance = public
    transcript = Transcript(b"zkchannels/abacus/establish/1")
    transcript.absorb(b"key", key.digest)
    transcript.absorb(b"context", context)
    transcript.absorb(b"channel", encode_scalar(channel_id))
    transcript.absorb(b"customer", customer_balance.to_bytes(8, "big"))
    transcript.absorb(b"merchant", merchant_balance.to_bytes(8, "big"))
    transcript.absorb(b"state", commitments.state)
    transcript.absorb(b"close", commitments.close)
    transcript.absorb(b"state-mask", masks[0])
    transcript.absorb(b"close-mask", masks[1])
    return transcript.short_challenge(b"x")
