"""Pay and refund: propose, prove, authorize, revoke, complete (docs/protocol.md, pay).

Three commits beside the one that queued it: the proof before it is sent; the new closing
authorization before the old state's secret is sent; token, index and outcome together.
"""

from __future__ import annotations

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Status
from customerd.operations import queries as operations
from customerd.operations.confirm import ask_signer
from customerd.operations.queries import AttemptRow
from customerd.operations.run import Interrupted, Refused, Run, merchant_says, storable
from customerd.recovery import queries as recovery
from customerd.signing.compare import COMMITMENTS, authorize_close, catch_up
from customerd.store.events import Change
from customerd.store.writes import Writes
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import get_logger
from zkchannels.wire import merchant as merchant_wire
from zkchannels.wire import signer as signer_wire
from zkchannels.wire.errors import kind_of

log = get_logger("customerd.operations")

_IN_FLIGHT = (Status.PROVED, Status.REVOKING)
_CLOSED_BEFORE = ("wrong_status", "the channel was closed before the payment was bound")
_FORGED = (
    "merchant_misbehaved",
    "the merchant's authorization does not verify; nothing was paid, the channel is being closed",
)
_CLOSING = (Status.ASKED, Status.DECIDED, Status.CLOSED)


async def pay(run: Run) -> None:
    """Take the operation from its durable step to its outcome.

    Raises Refused when nothing was or ever will be paid, Interrupted when a step has to be taken
    again later.
    """
    channel = await run.channel()
    attempt = None
    if run.row.status != "queued":
        attempt = await operations.attempt_of(run.around.store.database, run.row.operation)
    if channel.state in _CLOSING:
        await _end_by_closing(run, channel, attempt)
        return
    if channel.state is Status.SUSPECT:
        raise Interrupted("the channel is suspect: it has to be recovered")
    if attempt is not None and channel.index is not None and attempt.index <= channel.index:
        await _end_behind(run, channel, attempt)
        return
    try:
        async with run.merchant(channel, bound=attempt is not None) as peer:
            if attempt is None or not attempt.live:
                attempt = await _propose_and_prove(run, peer, channel, attempt)
            blinded = await _send_proof(run, peer, channel, attempt)
            if blinded is None:
                raise Interrupted("the session is dead: propose again")
            authorized = await _authorize(run, channel, attempt, blinded)
            token = await _revoke(run, peer, channel, authorized)
            await _complete(run, channel, attempt, authorized.authorization, token)
    except channels.StatusChanged as changed:
        await _end_by_closing(run, changed.channel, attempt)
    except Refused:
        if attempt is not None:
            await _require_not_accepted(run, channel)
        raise


async def _require_not_accepted(run: Run, channel: Channel) -> None:
    """Make sure that nothing was paid before that is said, by whomever.

    The signer may have accepted the authorization, and its answer or the commit of it was lost:
    then the new state is the only one to close on. Raises Interrupted, having taken that over.
    """
    if await catch_up(run.around.gateway, run.around.store, channel):
        log.error("merchant_denies_a_bound_payment", channel=channel.label)
        raise Interrupted("the merchant had signed for this payment")


async def _propose_and_prove(
    run: Run, peer: Peer, channel: Channel, dead: AttemptRow | None
) -> AttemptRow:
    """Agree on the amount, then write the proof before it is sent.

    A payment whose session died before the merchant bound anything keeps its attempt.
    """
    run.step("propose")
    amount = run.row.amount
    assert amount is not None
    assert channel.index is not None
    assert channel.token is not None
    _require_balance(channel, amount)
    try:
        proposal = await run.ask(
            peer,
            merchant_wire.PAY_PROPOSE,
            merchant_wire.PayProposeParams(amount=amount, note=run.row.note),
            timeout=run.around.settings.merchant.approval_timeout,
        )
    except RpcError as error:
        if dead is not None and kind_of(error) != "rejected":
            raise Interrupted(error.message) from None
        raise merchant_says(run, error) from None
    except Interrupted as error:
        if dead is None and run.around.gateway.ready:
            raise Refused("merchant_unreachable", str(error)) from None
        raise
    run.step("prove")
    try:
        proof = await ask_signer(
            run,
            signer_wire.PAY_PROVE,
            signer_wire.PayProveParams(
                channel=channel.channel,
                index=channel.index + 1,
                attempt=channel.attempt,
                operation=run.row.operation,
                amount=amount,
                session=proposal.session,
                token=channel.token,
                note=run.row.note,
            ),
        )
    except RpcError as error:
        if kind_of(error) == "already_different":
            await _next_attempt(run, channel)
        raise _signer_refuses(error) from None
    attempt = AttemptRow(
        operation=run.row.operation,
        channel=channel.channel,
        index=channel.index + 1,
        attempt=channel.attempt,
        session=proposal.session,
        nonce=proof.nonce,
        proof=proof.proof,
        live=True,
        receipt=None,
        service_note=None,
    )

    def write(writes: Writes) -> None:
        operations.write_attempt(writes, attempt)
        # A payment whose session died is proved already.
        was = Status.IDLE if dead is None else Status.PROVED
        channels.move_channel(writes, channel, was=was, status="proved")

    await run.commit(write)
    return attempt


def _require_balance(channel: Channel, amount: int) -> None:
    """Earlier operations on the channel may have spent what was there when this one was queued."""
    if amount > channel.customer_balance:
        raise Refused("insufficient_balance", "the channel does not hold that much")
    if -amount > channel.merchant_balance:
        raise Refused("insufficient_balance", "the merchant's side does not hold that much")


async def _next_attempt(run: Run, channel: Channel) -> None:
    """The signer used this attempt for an operation that ended before its proof was written.

    That proof never left the daemon, so the next attempt is free; raises Interrupted.
    """

    def write(writes: Writes) -> None:
        channels.move_channel(writes, channel, was=Status.IDLE, attempt=channel.attempt + 1)

    await run.commit(write)
    raise Interrupted("the attempt is taken: use the next one")


async def _send_proof(run: Run, peer: Peer, channel: Channel, attempt: AttemptRow) -> bytes | None:
    """Send the written proof; return the blinded authorization, or None when the session is dead.

    Raises Refused when the merchant durably refuses these commitments.
    """
    assert attempt.nonce is not None
    try:
        answer = await run.ask(
            peer,
            merchant_wire.PAY_PROVE,
            merchant_wire.PayProveParams(
                session=attempt.session, nonce=attempt.nonce, proof=attempt.proof
            ),
        )
    except RpcError as error:
        kind = kind_of(error)
        if channel.state is Status.REVOKING and kind in (
            "session_unknown",
            "bad_proof",
            "nonce_bound",
        ):
            # The secret may have left: whatever the merchant says now, the payment is bound.
            log.error("merchant_denies_a_bound_payment", channel=channel.label, kind=kind)
            await run.decide_close(channel, allowed=_IN_FLIGHT)
            raise Interrupted(error.message) from None
        if kind == "session_unknown":
            await run.commit(lambda writes: operations.session_is_dead(writes, run.row.operation))
            return None
        if kind == "bad_proof":
            raise Refused("rejected_by_merchant", "the merchant refused the proof") from None
        if kind == "nonce_bound":
            await _suspect(run, channel)
            return None
        raise Interrupted(error.message) from None
    return answer.signature


async def _suspect(run: Run, channel: Channel) -> None:
    """The merchant knows other commitments under our nonce: one of us went back in time."""
    log.error("nonce_bound_to_other_commitments", channel=channel.label)

    def write(writes: Writes) -> None:
        channels.move_channel(writes, channel, was=Status.PROVED, status="suspect", doubtful=True)

    await run.commit(write)
    run.around.watcher.kick(channel.channel)


async def _authorize(
    run: Run, channel: Channel, attempt: AttemptRow, blinded: bytes
) -> signer_wire.PayAuthorized:
    """Have the authorization checked and write it; from then on it is the one to close on."""
    run.step("authorize")
    await _require_open(run, channel)
    # While the signer is at work, merchant and daemon have time for the next payment's connection.
    run.around.merchants.prepare(channel.host, channel.port)
    try:
        authorized = await run.around.gateway.request(
            signer_wire.PAY_AUTHORIZE,
            signer_wire.AuthorizeParams(
                channel=channel.channel,
                index=attempt.index,
                attempt=attempt.attempt,
                signature=blinded,
                guard=run.around.watcher.guard_address,
            ),
        )
    except RpcError as error:
        if kind_of(error) == "bad_signature":
            log.error("authorization_does_not_verify", channel=channel.label)
            await run.decide_close(channel, allowed=_IN_FLIGHT)
            closing = await run.channel()
            await _end_by_closing(run, closing, attempt, because=_FORGED)
        raise Interrupted(error.message) from None
    new = authorized.authorization

    def write(writes: Writes) -> None:
        channels.adopt_with(writes, channel, new)
        channels.move_channel(
            writes,
            channel,
            was=Status.PROVED,
            status="revoking",
            authorized=new.index,
            customer_balance=new.customer_balance,
            merchant_balance=new.merchant_balance,
        )

    # Taken up again after its commit: the authorization is there already.
    await run.commit(None if channel.state is Status.REVOKING else write)
    return authorized


async def _revoke(
    run: Run, peer: Peer, channel: Channel, authorized: signer_wire.PayAuthorized
) -> merchant_wire.PayToken:
    """Give the old state's secret away; a merchant that cannot take it leaves only the close."""
    run.step("revoke")
    await _require_open(run, channel)
    try:
        return await run.ask(
            peer,
            merchant_wire.PAY_REVOKE,
            merchant_wire.PayRevokeParams(
                nonce=authorized.nonce,
                secret=authorized.secret,
                lock_blinding=authorized.lock_blinding,
            ),
        )
    except RpcError as error:
        if kind_of(error) in ("lock_used", "bad_opening"):
            log.error("revocation_refused", channel=channel.label, kind=kind_of(error))
            await run.decide_close(channel, allowed=_IN_FLIGHT)
        raise Interrupted(error.message) from None


async def _complete(
    run: Run,
    channel: Channel,
    attempt: AttemptRow,
    new: signer_wire.Authorization,
    answer: merchant_wire.PayToken,
) -> None:
    """Check the new token; write token, index and the outcome in one transaction."""
    run.step("complete")
    try:
        await run.around.gateway.request(
            signer_wire.PAY_COMPLETE,
            signer_wire.CompleteParams(
                channel=channel.channel,
                index=attempt.index,
                attempt=attempt.attempt,
                token=answer.token,
            ),
        )
    except RpcError as error:
        if kind_of(error) == "bad_signature":
            log.error("pay_token_does_not_verify", channel=channel.label)
            await run.decide_close(channel, allowed=_IN_FLIGHT)
        raise Interrupted(error.message) from None
    note = storable(answer.note)

    def write(writes: Writes) -> None:
        channels.move_channel(
            writes,
            channel,
            was=Status.REVOKING,
            status="idle",
            index=attempt.index,
            attempt=0,
            token=answer.token,
        )
        operations.write_receipt(writes, run.row.operation, receipt=True, service_note=note)

    await run.done(write, receipt=True, service_note=note, customer_balance=new.customer_balance)


async def _require_open(run: Run, channel: Channel) -> None:
    """A secret leaves only while the escrow is seen OPEN (rule `open-only`)."""
    if not run.around.watcher.following:
        raise Interrupted("the chain is not followed")
    record = await run.around.watcher.record(channel.channel)
    if record.status is not ChannelStatus.OPEN:
        run.around.watcher.kick(channel.channel)
        raise Interrupted(f"the channel is {record.status.name} on chain")


async def _end_by_closing(
    run: Run,
    channel: Channel,
    attempt: AttemptRow | None,
    *,
    because: tuple[str, str] = _CLOSED_BEFORE,
) -> None:
    """Give the outcome of a payment whose channel closes: what it is closed on decides.

    `because` is the refusal of a payment that the channel is not closed on, kind and message.
    """
    if channel.state not in _CLOSING:
        raise Interrupted(f"the channel is {channel.status} now")
    if attempt is None:
        raise Refused("wrong_status", f"the channel is {channel.status}")
    if channel.authorized is None or channel.authorized < attempt.index:
        await _require_unbound(run, channel)
        raise Refused(*because)
    if channel.state is Status.DECIDED and await _old_state_stands(run, channel, attempt):
        raise Refused("wrong_status", "the channel was closed on the state before the payment")
    await _is_done(run, receipt=False)


async def _old_state_stands(run: Run, channel: Channel, attempt: AttemptRow) -> bool:
    """Whether the channel ends on the state that the payment was to leave, for good.

    A close on that state may have been sent before the new authorization was known here. It stands
    unless the merchant disputes it, so the chain alone knows the outcome.
    """
    new = await channels.state_at(run.around.store.database, channel.channel, attempt.index)
    assert new is not None, "an authorized state is written"

    def is_new(record: ChannelRecord) -> bool:
        return (record.customer_balance, record.merchant_balance) == (
            new.customer_balance,
            new.merchant_balance,
        )

    watcher = run.around.watcher
    record = await watcher.wait_for_final(
        channel.channel,
        lambda found: (
            found.status is ChannelStatus.CLOSED
            or (found.status is ChannelStatus.CLOSING and is_new(found))
        ),
    )
    return not is_new(record)


async def _end_behind(run: Run, channel: Channel, attempt: AttemptRow) -> None:
    """Give the outcome of a payment whose state a recovery has walked past.

    Of all attempts to leave a state one alone was bound. A later one than that was never refused to
    anybody: it is made again, from the newest state.
    """
    state = await channels.state_at(run.around.store.database, channel.channel, attempt.index)
    if state is None:
        await _end_by_record(run, channel, attempt)
        return
    if state.attempt == attempt.attempt:
        await _is_done(run, receipt=attempt.receipt or False)
        return
    if state.attempt > attempt.attempt:
        raise Refused("rejected_by_merchant", "another payment was made instead of this one")

    async def write(change: Change) -> None:
        await recovery.forget_attempt(change, run.row.operation)

    await run.change(write)
    raise Interrupted("another payment was bound to this state: the next one is used")


async def _end_by_record(run: Run, channel: Channel, attempt: AttemptRow) -> None:
    """Ask the merchant which payment it bound to the nonce that this one showed."""
    assert attempt.nonce is not None
    async with run.merchant(channel, bound=True) as peer:
        try:
            shown = await run.ask(
                peer, merchant_wire.PAY_RECOVER, merchant_wire.PayRecoverParams(attempt.nonce)
            )
        except RpcError as error:
            raise Interrupted(error.message) from None
    ours = attempt.proof[COMMITMENTS]
    if ours != shown.state_commitment + shown.close_commitment + shown.lock_commitment:
        raise Refused("rejected_by_merchant", "another payment was made instead of this one")
    await _is_done(run, receipt=shown.token is not None)


async def _is_done(run: Run, *, receipt: bool) -> None:
    def write(writes: Writes) -> None:
        operations.write_receipt(writes, run.row.operation, receipt=receipt, service_note=None)

    await run.done(write)


async def _require_unbound(run: Run, channel: Channel) -> None:
    """Make sure that the channel closes on the old state before "nothing was paid" is said.

    The signer may be one authorization ahead of the database; then only the new state closes.
    Raises Interrupted, having taken over what the signer knows.
    """
    record = await run.around.watcher.record(channel.channel)
    if channel.closing is None or record.status in (ChannelStatus.CLOSING, ChannelStatus.CLOSED):
        return
    try:
        await authorize_close(
            run.around.gateway,
            run.around.store,
            channel,
            guard=run.around.watcher.guard_address,
            kind="unilateral",
        )
    except RpcError as error:
        run.around.watcher.kick(channel.channel)
        raise Interrupted(error.message) from None


async def undo(change: Change, run: Run) -> None:
    """What follows from a refused payment: the channel is as usable as before it."""
    assert run.row.channel is not None
    attempt = await operations.attempt_of(run.around.store.database, run.row.operation)
    if attempt is None:
        return
    row = await channels.lock_channel(change.connection, run.row.channel, allowed=frozenset(Status))
    if row.state is Status.PROVED and row.attempt == attempt.attempt:
        await channels.update_channel(change, row, status="idle", attempt=row.attempt + 1)


def _signer_refuses(error: RpcError) -> Exception:
    """Return a refusal for what asking again cannot change, else to ask again."""
    kind = kind_of(error)
    log.warning("signer_refuses", kind=kind)
    log.debug("signer_refused_it", reason=error.message)  # a policy's words have amounts
    if kind in ("invalid", "closing", "channel_unknown", "out_of_order"):
        return Refused("policy_refused", f"the signer refuses: {error.message}")
    return Interrupted(error.message)
