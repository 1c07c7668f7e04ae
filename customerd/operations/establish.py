"""Establish: propose, prove, authorize, fund, activate, complete (docs/protocol.md, establish)."""

from __future__ import annotations

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Status
from customerd.operations import queries as operations
from customerd.operations.confirm import ask_signer
from customerd.operations.queries import AttemptRow
from customerd.operations.run import Interrupted, Refused, Run, merchant_says
from customerd.signing.compare import register_escrow
from customerd.signing.policies import policy_refusal
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

_ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


async def establish(run: Run) -> None:
    """Take the operation from its durable step to its outcome; raises Refused or Interrupted."""
    channel = await run.channel()
    if channel.state is Status.NEW:
        await _authorize(run, channel)
        channel = await run.channel()
    run.around.watcher.kick(channel.channel)
    await _fund(run, channel)
    token = await _activate(run, channel)
    await _complete(run, channel, token)


async def _authorize(run: Run, channel: Channel) -> None:
    """Get the first closing authorization; without it no deposit is ever sent."""
    attempt = await operations.attempt_of(run.around.store.database, run.row.operation)
    async with run.merchant(channel, bound=False) as peer:
        if attempt is None or not attempt.live:
            attempt = await _propose_and_prove(run, peer, channel)
        try:
            answer = await run.ask(
                peer,
                merchant_wire.ESTABLISH_PROVE,
                merchant_wire.EstablishProveParams(session=attempt.session, proof=attempt.proof),
            )
        except RpcError as error:
            if kind_of(error) == "session_unknown":
                await run.commit(
                    lambda writes: operations.session_is_dead(writes, run.row.operation)
                )
                raise Interrupted("the session is dead: propose again") from None
            raise merchant_says(run, error) from None
    run.step("authorize")
    try:
        authorization = await run.around.gateway.request(
            signer_wire.ESTABLISH_AUTHORIZE,
            signer_wire.AuthorizeParams(
                channel=channel.channel,
                index=0,
                attempt=0,
                signature=answer.signature,
                guard=run.around.watcher.guard_address,
            ),
        )
    except RpcError as error:
        if kind_of(error) == "bad_signature":
            raise Refused(
                "merchant_misbehaved", "the closing authorization does not verify"
            ) from None
        raise Interrupted(error.message) from None

    def write(writes: Writes) -> None:
        channels.adopt_with(writes, channel, authorization)
        channels.move_channel(writes, channel, was=Status.NEW, status="funding", authorized=0)

    try:
        await run.commit(write)
    except channels.StatusChanged as changed:  # a signer that came back told it already
        raise Interrupted(f"the channel is {changed.channel.status} now") from None


async def _propose_and_prove(run: Run, peer: Peer, channel: Channel) -> AttemptRow:
    run.step("propose")
    escrow = await run.escrow(channel)
    account = run.around.gateway.account
    if account is None:
        raise Interrupted("no signer is attached")
    try:
        proposal = await run.ask(
            peer,
            merchant_wire.ESTABLISH_PROPOSE,
            merchant_wire.EstablishProposeParams(
                customer=account,
                salt=channel.salt,
                customer_deposit=channel.customer_deposit,
                merchant_deposit=channel.merchant_deposit,
                note=run.row.note,
            ),
            timeout=run.around.settings.merchant.approval_timeout,
        )
    except RpcError as error:
        raise merchant_says(run, error) from None
    run.step("prove")
    try:
        await register_escrow(run.around.gateway, escrow)
        proof = await ask_signer(
            run,
            signer_wire.ESTABLISH_PROVE,
            signer_wire.EstablishProveParams(
                channel=channel.channel,
                chain_id=escrow.chain_id,
                escrow=escrow.escrow,
                salt=channel.salt,
                customer_deposit=channel.customer_deposit,
                merchant_deposit=channel.merchant_deposit,
                session=proposal.session,
                operation=run.row.operation,
                note=run.row.note,
            ),
        )
    except RpcError as error:
        if kind_of(error) == "bad_key":
            raise Refused("merchant_misbehaved", error.message) from None
        if kind_of(error) == "policy_refused":
            raise Refused(*policy_refusal(error)) from None
        if kind_of(error) in ("invalid", "already_different", "out_of_order"):
            raise Refused("policy_refused", error.message) from None
        raise Interrupted(error.message) from None
    attempt = AttemptRow(
        operation=run.row.operation,
        channel=channel.channel,
        index=0,
        attempt=0,
        session=proposal.session,
        nonce=None,
        proof=proof.proof,
        live=True,
        receipt=None,
        service_note=None,
    )
    await run.commit(lambda writes: operations.write_attempt(writes, attempt))
    return attempt


async def _fund(run: Run, channel: Channel) -> None:
    """Wait until the watcher's open transaction is on chain, and the merchant's share with it."""
    run.step("fund")
    await run.commit()

    def settled(record: ChannelRecord) -> bool:
        return record.status not in (ChannelStatus.ABSENT, ChannelStatus.AWAITING_MERCHANT)

    record = await run.around.watcher.wait_for(channel.channel, settled)
    await _require_life(run, record)


async def _activate(run: Run, channel: Channel) -> bytes:
    """Ask for the first pay token again at every new head until the funding is final."""
    run.step("activate")
    await run.commit()
    async with run.merchant(channel, bound=True) as peer:
        while True:
            await _require_life(run, await run.around.watcher.record(channel.channel))
            head = run.around.watcher.head_number
            try:
                answer = await run.ask(
                    peer,
                    merchant_wire.ESTABLISH_ACTIVATE,
                    merchant_wire.EstablishActivateParams(channel=channel.channel),
                )
            except RpcError as error:
                raise Interrupted(error.message) from None
            if answer.token is not None:
                return answer.token
            log.debug(
                "funding_not_final", confirmations=answer.confirmations, required=answer.required
            )
            await run.around.watcher.wait_head_after(head)


async def _require_life(run: Run, record: ChannelRecord) -> None:
    if record.status in _ENDED:
        raise Refused("wrong_status", f"the channel is {record.status.name.lower()} on chain")
    channel = await run.channel()
    if channel.state in (Status.ASKED, Status.DECIDED, Status.CLOSED):
        raise Refused("wrong_status", "the channel was closed before it could pay")


async def _complete(run: Run, channel: Channel, token: bytes) -> None:
    run.step("complete")
    try:
        await run.around.gateway.request(
            signer_wire.ESTABLISH_COMPLETE,
            signer_wire.CompleteParams(channel=channel.channel, index=0, attempt=0, token=token),
        )
    except RpcError as error:
        if kind_of(error) == "bad_signature":
            await run.decide_close(channel, allowed=(Status.FUNDING,))
            raise Refused("merchant_misbehaved", "the first pay token does not verify") from None
        raise Interrupted(error.message) from None

    def write(writes: Writes) -> None:
        channels.move_channel(
            writes, channel, was=Status.FUNDING, status="idle", index=0, attempt=0, token=token
        )
        operations.write_receipt(writes, run.row.operation, receipt=True, service_note=None)

    try:
        await run.done(write)
    except channels.StatusChanged as changed:
        raise Refused("wrong_status", f"the channel is {changed.channel.status}") from None


async def undo(change: Change, run: Run) -> None:
    """A refused establish leaves nothing behind, unless the deposit may already be on its way."""
    assert run.row.channel is not None
    await channels.delete_new_channel(change, run.row.channel)
