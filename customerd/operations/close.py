"""Close: decide, then by agreement with the merchant or unilaterally; the watcher sends and claims.

A decision is written before anything leaves and names the state (rules `decide-before-close`,
`close-new`). A close cannot be cancelled.
"""

from __future__ import annotations

import time

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Status
from customerd.operations.run import Interrupted, Refused, Run
from customerd.signing.compare import authorize_close
from customerd.store.events import Change
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import get_logger
from zkchannels.wire import merchant as merchant_wire
from zkchannels.wire import signer as signer_wire
from zkchannels.wire.errors import kind_of

log = get_logger("customerd.operations")

_UNILATERAL_FROM = (
    Status.FUNDING,
    Status.IDLE,
    Status.PROVED,
    Status.REVOKING,
    Status.ASKED,
    Status.DECIDED,
    Status.SUSPECT,
)
_ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


async def close(run: Run) -> None:
    """Take the operation from its durable step to its outcome; raises Refused or Interrupted."""
    run.step("decide")
    channel = await _decide(run)
    if channel.state is Status.ASKED and channel.mutual_signature is None:
        await _ask_merchant(run, channel)
    run.around.watcher.kick(channel.channel)
    run.step("settle")
    await run.commit()
    await run.around.watcher.wait_for_final(channel.channel, _settled)
    await run.done()


def _settled(record: ChannelRecord) -> bool:
    """The close is final on chain; a claim that is still to come is the watcher's."""
    return record.status in (*_ENDED, ChannelStatus.CLOSING)


async def _decide(run: Run) -> Channel:
    """Write the decision, or find the one that stands."""
    wanted = Status.DECIDED if run.row.force else Status.ASKED

    async def write(change: Change) -> None:
        assert run.row.channel is not None
        row = await channels.lock_channel(
            change.connection, run.row.channel, allowed=frozenset(Status)
        )
        if row.state in (Status.CLOSED, Status.DECIDED, wanted):
            return
        if row.state not in _UNILATERAL_FROM or row.authorized is None:
            raise channels.StatusChanged(row)
        closing = row.closing if row.closing is not None else row.authorized
        await channels.update_channel(change, row, status=wanted.value, closing=closing)

    try:
        await run.change(write)
    except channels.StatusChanged as changed:
        raise Refused("wrong_status", f"the channel is {changed.channel.status}") from None
    return await run.channel()


async def _ask_merchant(run: Run, channel: Channel) -> None:
    """Get the merchant's agreement; after some patience the close becomes unilateral."""
    run.step("agree")
    record = await run.around.watcher.record(channel.channel)
    only_agreed = channel.doubtful and record.status is ChannelStatus.OPEN
    waited = time.time() - run.began
    if waited > run.around.settings.merchant.mutual_patience and not only_agreed:
        await _go_unilateral(run, channel, "the merchant did not answer in time")
        return
    if record.status is ChannelStatus.EXPIRING:
        await _go_unilateral(run, channel, "the merchant expires the channel")
        return
    authorization = await _authorize(run, channel)
    assert authorization.request is not None, "a mutual close was asked for"
    try:
        async with run.merchant(channel, bound=True) as peer:
            agreement = await run.ask(
                peer,
                merchant_wire.CLOSE_MUTUAL,
                merchant_wire.CloseMutualParams(
                    channel=channel.channel,
                    lock=authorization.lock,
                    customer_balance=authorization.customer_balance,
                    merchant_balance=authorization.merchant_balance,
                    signature=authorization.signature,
                    request=authorization.request,
                ),
            )
    except RpcError as error:
        if kind_of(error) == "later":
            raise Interrupted(error.message) from None
        await _go_unilateral(run, channel, f"the merchant refused: {error.message}")
        return
    if not run.around.watcher.is_agreement(channel, authorization, agreement.signature):
        await _go_unilateral(run, channel, "the merchant's agreement does not verify")
        return

    async def write(change: Change) -> None:
        row = await channels.lock_channel(
            change.connection, channel.channel, allowed=(Status.ASKED, Status.DECIDED)
        )
        await channels.update_channel(change, row, mutual_signature=agreement.signature)

    await run.change(write)


async def _authorize(run: Run, channel: Channel) -> signer_wire.CloseAuthorization:
    """Have the signer write the close down before the merchant hears of it."""
    try:
        return await authorize_close(
            run.around.gateway,
            run.around.store,
            channel,
            guard=run.around.watcher.guard_address,
            kind="mutual",
        )
    except RpcError as error:
        raise Interrupted(error.message) from None


async def _go_unilateral(run: Run, channel: Channel, reason: str) -> None:
    """Close without the merchant; but not on a state that may be old, unless the merchant expires.

    An honest merchant disputes an old state, and everything is lost (rule `suspect`).
    """
    record = await run.around.watcher.record(channel.channel)
    if channel.doubtful and record.status is ChannelStatus.OPEN:
        raise Interrupted(f"{reason}; this channel is closed by agreement only, or by force")
    log.warning("mutual_close_failed", channel=channel.label)
    log.debug("closing_unilaterally", reason=reason)  # it may have the merchant's words

    async def write(change: Change) -> None:
        row = await channels.lock_channel(
            change.connection, channel.channel, allowed=(Status.ASKED, Status.DECIDED)
        )
        await channels.update_channel(change, row, status="decided")

    await run.change(write)
