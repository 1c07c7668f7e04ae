"""The commitments of a state computed again, to recognise a record of them as one's own."""

from __future__ import annotations

from zkchannels.abacus.commitments import commit_lock, commit_pair
from zkchannels.abacus.establish import EstablishBlindings, EstablishCommitments
from zkchannels.abacus.keys import PublicKey, points_of
from zkchannels.abacus.parameters import CLOSE
from zkchannels.abacus.pay_prover import PayBlindings
from zkchannels.abacus.pay_verifier import PayCommitments
from zkchannels.abacus.states import State


def establish_commitments(
    key: PublicKey, state: State, blindings: EstablishBlindings
) -> EstablishCommitments:
    """Return the commitments that every establish proof of this state carries."""
    points = points_of(key)
    pair = commit_pair(points, (blindings.state, blindings.close), state.messages, CLOSE)
    return EstablishCommitments(*(points.backend.encode_g1(point) for point in pair))


def pay_commitments(
    key: PublicKey, old_lock: int, new: State, blindings: PayBlindings
) -> PayCommitments:
    """Return the commitments that every proof of this payment carries."""
    points = points_of(key)
    encode = points.backend.encode_g1
    state, close = commit_pair(points, (blindings.state, blindings.close), new.messages, CLOSE)
    lock = commit_lock(points.generators, blindings.lock, old_lock)
    return PayCommitments(encode(state), encode(close), encode(lock))
