"""Every decision about a channel: its record and a request give a new record, or a refusal.

Pure functions. The caller verifies signatures where the docstring says so, writes the new record
durably, and only then lets the answer leave. Names of rules are those of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from customersigner.record import Accepted, Channel, Closing, Step, Terms
from zkchannels.abacus import MAX_BALANCE
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.signer import ERRORS

FORGOTTEN_ATTEMPTS = 64
"""How many numbers of attempts are tried to recognise a payment that the record does not have."""


class NewerState(Exception):
    """A close was asked for on a state that a newer closing authorization has replaced."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment to prove: the record to write first, the state spent and the state reached."""

    channel: Channel
    old: Step
    new: Step


def establish(channel: Channel | None, terms: Terms, operation: bytes) -> Channel:
    """Bind a channel id to its deposits and operation (rule signer-counter)."""
    if terms.customer_deposit + terms.merchant_deposit > MAX_BALANCE:
        raise _refusal("invalid", "the deposits together exceed the largest balance")
    first = Step(0, 0, operation, 0, terms.customer_deposit, terms.merchant_deposit)
    if channel is None:
        return Channel(terms, attempts=(first,))
    if channel.terms != terms:
        raise _refusal("already_different", "this channel was proved with other terms")
    if channel.next_index > 1 or channel.closing is not None:
        raise _refusal("out_of_order", "the channel is past its establishment")
    if (channel.attempts[0] if channel.accepted is None else channel.accepted.step) != first:
        raise _refusal("already_different", "this channel was proved for another operation")
    return channel


def authorize(channel: Channel, index: int, attempt: int) -> Step | None:
    """Say which step a closing authorization has to be verified for.

    None means that it was accepted before: the answer is repeated from the record, and nothing
    about the request needs to be verified.
    """
    accepted = channel.accepted
    if accepted is not None and (index, attempt) == (accepted.step.index, accepted.step.attempt):
        _require_no_older_close(channel, index)
        return None
    if index != channel.next_index:
        raise _refusal("out_of_order", f"the next closing authorization is {channel.next_index}")
    if channel.closing is not None:
        raise _refusal("closing", f"a close on state {channel.closing.index} was signed")
    step = channel.attempt(attempt)
    if step is None:
        raise _refusal("out_of_order", "no proof of this attempt left the signer")
    return step


def accept(
    channel: Channel, step: Step, *, lock: int, signature: bytes, guard: bytes, permit: bytes
) -> Channel:
    """Keep the *verified* closing authorization for a step that `authorize` named.

    From this write on the state before is revoked: its secret may leave (rules signer-refuses,
    verify-ca), it is never closed on again, and no other attempt is accepted.
    """
    previous = None if channel.accepted is None else channel.accepted.step
    accepted = Accepted(step, previous, lock, signature, guard, permit)
    return replace(channel, accepted=accepted, attempts=())


def permit(channel: Channel, *, guard: bytes, permit: bytes) -> Channel:
    """Name another guard for the newest closing authorization."""
    assert channel.accepted is not None
    return replace(channel, accepted=replace(channel.accepted, guard=guard, permit=permit))


def complete(channel: Channel, index: int, attempt: int) -> Channel:
    """Note that the pay token of the newest state arrived; the caller verifies the token."""
    accepted = channel.accepted
    if accepted is None or (index, attempt) != (accepted.step.index, accepted.step.attempt):
        raise _refusal("out_of_order", "a pay token is checked for the newest state alone")
    return replace(channel, completed=index)


def pay(channel: Channel, *, index: int, attempt: int, operation: bytes, amount: int) -> Payment:
    """Bind an attempt to one operation and amount (rules signer-counter, operation-once).

    The next attempt is admitted until a closing authorization was accepted, which ends them all.
    The caller checks the pay token on the old state.
    """
    accepted = channel.accepted
    if accepted is None:
        raise _refusal("out_of_order", "the channel has no closing authorization yet")
    if channel.closing is not None:
        raise _refusal("closing", f"a close on state {channel.closing.index} was signed")
    if index == accepted.step.index and accepted.previous is not None:
        step = _same(accepted.step, attempt, operation, amount)
        return Payment(channel, accepted.previous, step)
    if index != channel.next_index or channel.completed != accepted.step.index:
        raise _refusal("out_of_order", "a payment starts from the newest state and its pay token")
    known = channel.attempt(attempt)
    if known is not None:
        return Payment(channel, accepted.step, _same(known, attempt, operation, amount))
    if attempt != (channel.attempts[-1].attempt + 1 if channel.attempts else 0):
        raise _refusal("out_of_order", "attempts are counted from 0 without a gap")
    new = after(accepted.step, attempt, operation, amount)
    return Payment(replace(channel, attempts=(*channel.attempts, new)), old=accepted.step, new=new)


def close(channel: Channel, index: int, kind: Literal["mutual", "unilateral"]) -> Channel:
    """Write down a close before its authorization leaves (rules signs, close-new).

    From this write on no payment is prepared and no authorization accepted. The oldest state with
    a signed close is remembered, also when a recovery brings a newer one to close on: what was
    signed may still be included. Raises NewerState for a revoked state.
    """
    accepted = channel.accepted
    if accepted is None or index > accepted.step.index:
        raise _refusal("out_of_order", "there is no closing authorization for this state")
    if index < accepted.step.index:
        raise NewerState
    before = channel.closing or Closing(index, mutual=False, unilateral=False)
    return replace(
        channel,
        closing=Closing(
            before.index,
            mutual=before.mutual or kind == "mutual",
            unilateral=before.unilateral or kind == "unilateral",
        ),
    )


def dispute(channel: Channel, index: int) -> None:
    """Admit giving the secret of a state again, if it left before."""
    if channel.released is None or index > channel.released:
        raise _refusal("out_of_order", "the secret of this state was never released")
    closing = channel.closing
    if closing is not None and closing.unilateral and closing.index <= index:
        raise _refusal("out_of_order", "the account signed a close on this state itself")


def recover_first(channel: Channel | None, terms: Terms, operation: bytes) -> Channel:
    """Take a channel's terms back from the chain; the caller verifies its first authorization."""
    if channel is None:
        return establish(None, terms, operation)
    if channel.terms != terms:
        raise _refusal("already_different", "this channel was proved with other terms")
    return channel


def recoverable(channel: Channel, *, index: int, operation: bytes, amount: int) -> Iterator[Step]:
    """Yield the steps that a merchant's record of the payment to state `index` may be about.

    The caller computes each one's commitments and goes on with `accept` for the one that they fit:
    only somebody with the secrets of this wallet can have made them. A close that was signed is no
    obstacle (rule suspect): what is accepted is closed on instead, and the secret of the state
    that the signed close is on never leaves (`authorize`, `dispute`).
    """
    accepted = channel.accepted
    if accepted is None or index not in (accepted.step.index, channel.next_index) or index == 0:
        raise _refusal("out_of_order", f"the next state is {channel.next_index}")
    if index == accepted.step.index:
        yield accepted.step
        return
    yield from channel.attempts
    # Recorded numbers as well: a signer that went back in time may have used one again.
    for attempt in range(FORGOTTEN_ATTEMPTS):
        yield after(accepted.step, attempt, operation, amount)


def nonce_of(channel: Channel, index: int) -> int:
    """Return the attempt that led to a state whose nonce may be shown to the merchant."""
    accepted = channel.accepted
    if accepted is not None:
        for step in (accepted.step, accepted.previous):
            if step is not None and step.index == index:
                return step.attempt
    raise _refusal("out_of_order", "only the two newest states are looked up")


def adopt(
    channel: Channel | None,
    terms: Terms,
    accepted: Accepted,
    *,
    proved: Step | None,
    released: int | None,
    completed: int | None,
    closing: int | None,
) -> Channel:
    """Join a record with what the daemon's database knows; nothing recorded is ever taken back.

    The caller verifies the closing authorization and derives its lock.
    """
    index = accepted.step.index
    if any(known is not None and known > index for known in (completed, closing)):
        raise _refusal("invalid", "a state is named for which there is no closing authorization")
    if released is not None and released >= index:
        raise _refusal("invalid", "the newest state is said to be revoked")
    if channel is None:
        channel = Channel(terms)
    if channel.terms != terms:
        raise _refusal("invalid", "the channel is recorded with other terms")
    own = channel.accepted
    if own is not None and (own.step.index, own.step.attempt) > (index, accepted.step.attempt):
        raise _refusal("out_of_order", "the signer's own record is newer")
    if own is None or own.step.index < index:
        channel = replace(channel, accepted=accepted, attempts=())
    elif own.step != accepted.step:
        raise _refusal("out_of_order", "the signer accepted another attempt for this state")
    if proved is not None and proved.attempt > _last_attempt(channel):
        channel = replace(channel, attempts=(*channel.attempts, proved))
    return replace(
        channel,
        completed=_later(channel.completed, completed),
        closing=_first_closing(channel.closing, closing),
    )


def after(old: Step, attempt: int, operation: bytes, amount: int) -> Step:
    """The step that a payment leads to; refused when a balance does not cover it."""
    customer, merchant = old.customer_balance - amount, old.merchant_balance + amount
    if customer < 0 or merchant < 0:
        raise _refusal("invalid", "the amount exceeds the balance")
    return Step(old.index + 1, attempt, operation, amount, customer, merchant)


def before(step: Step, attempt: int, operation: bytes, amount: int) -> Step:
    """The step to the state that `step` left; its balances follow from the amount of `step`."""
    return Step(
        step.index - 1,
        attempt,
        operation,
        amount,
        step.customer_balance + step.amount,
        step.merchant_balance - step.amount,
    )


def _same(step: Step, attempt: int, operation: bytes, amount: int) -> Step:
    if (step.attempt, step.operation, step.amount) != (attempt, operation, amount):
        raise _refusal("already_different", "this attempt is bound to another payment")
    return step


def _require_no_older_close(channel: Channel, index: int) -> None:
    """No secret leaves once a close on the state that it revokes was signed (rule signs)."""
    if channel.closing is not None and channel.closing.index < index:
        raise _refusal("closing", f"a close on state {channel.closing.index} was signed")


def _last_attempt(channel: Channel) -> int:
    return channel.attempts[-1].attempt if channel.attempts else -1


def _later(own: int | None, other: int | None) -> int | None:
    known = [index for index in (own, other) if index is not None]
    return max(known, default=None)


def _first_closing(own: Closing | None, other: int | None) -> Closing | None:
    """What the signer knows of its own closes is never replaced by what the daemon says."""
    if own is not None or other is None:
        return own
    return Closing(other, mutual=False, unilateral=False)


def _refusal(kind: str, message: str) -> RpcError:
    return ERRORS.error(kind, message)
