"""Recover: walk a channel forward from the last known state, with the merchant's records.

Each record is judged by the signer, which recognises only what was made from its own secrets and
verifies every signature. What the merchant does not show stays unknown: so a channel that came from
a backup keeps its doubt even when the walk has ended (docs/recovery.md; rule suspect).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Status
from customerd.operations.run import Interrupted, Refused, Run, storable
from customerd.recovery import ledger
from customerd.recovery import queries as recovery
from customerd.signing.compare import record_of, register_escrow, take_walked
from customerd.store.events import Change
from zkchannels.escrow.record import ChannelStatus
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.logging import get_logger
from zkchannels.wire import merchant as merchant_wire
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

log = get_logger("customerd.recovery")

_ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED, ChannelStatus.CLOSING)
_UNFUNDED = (ChannelStatus.ABSENT, ChannelStatus.AWAITING_MERCHANT)


def recoverable(channel: Channel) -> bool:
    """Whether there is something about the channel that only a walk can find out."""
    if channel.state is Status.NEW:
        return channel.doubtful
    closing = channel.state in (Status.ASKED, Status.DECIDED) and channel.doubtful
    return channel.state is Status.SUSPECT or closing


async def recover(run: Run) -> None:
    """Take the operation to its outcome; raises Refused or Interrupted.

    Every state that is found is committed before the next is asked for, so an interruption
    anywhere goes on where it was.
    """
    run.step("compare")
    channel = await run.channel()
    if not recoverable(channel):
        await run.done()
        return
    if not run.around.watcher.following:
        raise Interrupted("the chain is not followed")
    chain = await run.around.watcher.record(channel.channel)
    if chain.status in _ENDED:
        await run.done()
        return
    if chain.status in _UNFUNDED:
        raise Refused("wrong_status", "nothing is deposited in this channel (yet)")
    try:
        await register_escrow(run.around.gateway, await run.escrow(channel))
    except RpcError as error:
        raise Interrupted(f"the signer refuses the escrow: {error.message}") from None
    try:
        async with run.merchant(channel, bound=True) as peer:
            walk = _Walk(run, peer, channel)
            await walk.catch_up()
            if walk.channel.authorized is None:
                await walk.first_state()
            run.step("walk")
            while await walk.next_state():
                continue
            run.step("complete")
            await walk.complete(chain.status)
    except channels.StatusChanged as changed:
        raise Interrupted(f"the channel is {changed.channel.status} now") from None
    run.around.watcher.kick(channel.channel)
    await run.done()


class _Walk:
    """One run of the operation: the channel as far as it is known, and whom to ask."""

    def __init__(self, run: Run, peer: Peer, channel: Channel) -> None:
        self.run = run
        self.peer = peer
        self.channel = channel
        self._record: wire.Record | None = None
        self._last: merchant_wire.PaymentRecord | None = None
        """What the merchant showed of the payment that led to the newest known state."""
        self._first: merchant_wire.EstablishRecord | None = None

    async def _signer(self, method: Method[P, R], params: P) -> R:
        """Ask the signer about what the merchant showed; raises Interrupted when it says no."""
        try:
            return await self.run.around.gateway.request(method, params)
        except RpcError as error:
            kind = kind_of(error)
            if kind in ("foreign", "bad_signature", "invalid"):
                log.error("record_does_not_fit", channel=self.channel.label, kind=kind)
                raise Interrupted(
                    f"what the merchant shows does not fit this channel: {error.message}"
                ) from None
            raise Interrupted(f"the signer refuses: {error.message}") from None

    async def _merchant(self, method: Method[P, R], params: P, *, unless: str) -> R | None:
        """Ask the merchant; return None for an error of the kind `unless`."""
        try:
            return await self.run.ask(self.peer, method, params)
        except RpcError as error:
            if kind_of(error) == unless:
                return None
            raise Interrupted(f"the merchant does not help: {error.message}") from None

    async def catch_up(self) -> None:
        """Take over what the signer knows already, after a crash or an old database."""
        self._record = await record_of(self.run.around.gateway, self.channel.channel)
        known = None if self._record is None else self._record.authorization
        ours = -1 if self.channel.authorized is None else self.channel.authorized
        if self._record is not None and known is not None and known.index > ours:
            await self._take(self._record, receipt=None, note=None)

    async def _take(self, record: wire.Record, *, receipt: bool | None, note: str | None) -> None:
        """Adopt the signer's newest authorization, and enter the payment that led to it."""

        async def write(change: Change) -> None:
            before = await channels.lock_channel(
                change.connection, self.channel.channel, allowed=frozenset(Status)
            )
            await take_walked(change, before, record, receipt=receipt, note=note)

        await self.run.change(write)
        self._record = record
        self.channel = await self.run.channel()

    async def first_state(self) -> None:
        """Get closing authorization 0 back; the terms are those on chain."""
        self.run.step("establish")
        shown, row = await self._establishment(), self.channel
        if (shown.customer_deposit, shown.merchant_deposit) != (
            row.customer_deposit,
            row.merchant_deposit,
        ):
            raise Interrupted("the merchant's deposits are not those of the escrow")
        escrow = await self.run.escrow(row)
        record = await self._signer(
            wire.RECOVER_ESTABLISH,
            wire.RecoverEstablishParams(
                channel=row.channel,
                chain_id=escrow.chain_id,
                escrow=escrow.escrow,
                salt=row.salt,
                customer_deposit=row.customer_deposit,
                merchant_deposit=row.merchant_deposit,
                operation=ledger.forgotten_operation(row.channel, 0),
                state_commitment=shown.state_commitment,
                close_commitment=shown.close_commitment,
                signature=shown.authorization,
                guard=self.run.around.watcher.guard_address,
            ),
        )
        await self._take(record, receipt=shown.token is not None, note=None)

    async def _establishment(self) -> merchant_wire.EstablishRecord:
        if self._first is None:
            escrow = await self.run.escrow(self.channel)
            credential = await self._signer(
                wire.RECOVER_SIGN,
                wire.RecoverParams(
                    channel=self.channel.channel, chain_id=escrow.chain_id, escrow=escrow.escrow
                ),
            )
            self._first = await self._merchant(
                merchant_wire.ESTABLISH_RECOVER,
                merchant_wire.EstablishRecoverParams(self.channel.channel, credential.signature),
                unless="channel_unknown",
            )
        if self._first is None:
            raise Interrupted("the merchant says that it does not know this channel")
        return self._first

    async def next_state(self) -> bool:
        """Take one step forward; return whether the merchant knew of one."""
        index = self.channel.authorized
        assert index is not None
        shown = await self._payment_from(index)
        if shown is None:
            return False
        commitments = shown.state_commitment + shown.close_commitment + shown.lock_commitment
        if await recovery.was_refused(
            self.run.around.store.database, self.channel.channel, index + 1, commitments
        ):
            await self._stop_before_refused()
            return False
        record = await self._signer(
            wire.RECOVER_PAY,
            wire.RecoverPayParams(
                channel=self.channel.channel,
                index=index + 1,
                operation=ledger.forgotten_operation(self.channel.channel, index + 1),
                amount=shown.amount,
                state_commitment=shown.state_commitment,
                close_commitment=shown.close_commitment,
                lock_commitment=shown.lock_commitment,
                signature=shown.authorization,
                guard=self.run.around.watcher.guard_address,
            ),
        )
        note = storable(shown.note) if shown.token is not None else None
        await self._take(record, receipt=shown.token is not None or None, note=note)
        log.info("state_recovered", channel=self.channel.label, index=index + 1)
        self._last = shown
        return True

    async def _stop_before_refused(self) -> None:
        """The merchant signed for a payment that it had refused, which an honest one never does.

        It stays unpaid, as was said: its authorization is not accepted, so the state before it is
        the one to close on. Of a restored channel nobody knows whether that is the newest.
        """
        log.error("refused_payment_was_bound", channel=self.channel.label)
        if self.channel.closing is not None:
            return
        if self.channel.restored:
            raise Interrupted("the merchant shows a payment as made that it had refused")
        await self.run.decide_close(self.channel, allowed=(Status.SUSPECT,))
        self.channel = await self.run.channel()

    async def _payment_from(self, index: int) -> merchant_wire.PaymentRecord | None:
        """Return what the merchant recorded under the nonce of a state."""
        answer = await self._signer(
            wire.RECOVER_NONCE, wire.RecoverNonceParams(self.channel.channel, index)
        )
        return await self._merchant(
            merchant_wire.PAY_RECOVER,
            merchant_wire.PayRecoverParams(answer.nonce),
            unless="nonce_unknown",
        )

    async def complete(self, chain: ChannelStatus) -> None:
        """The merchant knows no more: make the channel usable again, or close it where it must."""
        row = self.channel
        if row.closing is not None:
            return
        assert row.authorized is not None
        if chain is ChannelStatus.EXPIRING:
            # Asked as long as there was time; from here on silence would be the only sure loss.
            await self.run.decide_close(row, allowed=(Status.SUSPECT,))
            return
        if row.restored:
            await self._require_nothing_on_its_way()
        token, note = row.token, None
        if token is None or row.index != row.authorized:
            token, note = await self._token(row.authorized)
        state = await channels.state_at(self.run.around.store.database, row.channel, row.authorized)
        assert state is not None
        method: Method[Any, Any] = wire.PAY_COMPLETE if state.index else wire.ESTABLISH_COMPLETE
        await self._signer(
            method, wire.CompleteParams(row.channel, state.index, state.attempt, token)
        )
        await self._resume(token, note)

    async def _require_nothing_on_its_way(self) -> None:
        """A close that was sent after the backup may still be included: then nothing may be paid.

        Both daemon and signer have forgotten it; the node may not (rule recover-closes).
        """
        account, client = self.run.around.gateway.account, self.run.around.watcher.client
        if account is None:
            raise Interrupted("no signer is attached")
        sent = await client.transaction_count(account, "pending")
        if sent > await client.transaction_count(account, "latest"):
            raise Interrupted("transactions of the account are on their way, perhaps a close")

    async def _token(self, index: int) -> tuple[bytes, str | None]:
        """Get the pay token on the newest state, revoking the one before if nobody did yet."""
        if index == 0:
            shown = await self._establishment()
            return (await self._activated() if shown.token is None else shown.token), None
        last = self._last or await self._payment_from(index - 1)
        if last is None:
            raise Interrupted("the merchant denies a payment that it has signed for")
        if last.token is not None:
            return last.token, storable(last.note)
        return await self._revoked(index)

    async def _activated(self) -> bytes:
        answer = await self._merchant(
            merchant_wire.ESTABLISH_ACTIVATE,
            merchant_wire.EstablishActivateParams(self.channel.channel),
            unless="channel_unknown",
        )
        if answer is None or answer.token is None:
            raise Interrupted("the deposit is not final for the merchant")
        return answer.token

    async def _revoked(self, index: int) -> tuple[bytes, str]:
        """Give the old state's secret away, which is only asked for while the escrow is OPEN."""
        state = await channels.state_at(self.run.around.store.database, self.channel.channel, index)
        assert state is not None
        again = wire.AuthorizeParams(
            channel=self.channel.channel,
            index=index,
            attempt=state.attempt,
            signature=bytes(96),
            guard=self.run.around.watcher.guard_address,
        )
        record = await self.run.around.watcher.record(self.channel.channel)
        if record.status is not ChannelStatus.OPEN or not self.run.around.watcher.following:
            raise Interrupted(f"the channel is {record.status.name} on chain")
        # The signer accepted this very authorization before, and answers from its record.
        opening = await self._signer(wire.PAY_AUTHORIZE, again)
        answer = await self._merchant(
            merchant_wire.PAY_REVOKE,
            merchant_wire.PayRevokeParams(opening.nonce, opening.secret, opening.lock_blinding),
            unless="nonce_unknown",
        )
        if answer is None:
            raise Interrupted("the merchant denies a payment that it has signed for")
        return answer.token, storable(answer.note)

    async def _resume(self, token: bytes, note: str | None) -> None:
        """Write token and index; a payment that sent its proof from this state goes on with it."""
        newest = self.channel.authorized
        assert newest is not None
        assert self._record is not None
        reached, proved = self._record.reached, self._record.proved
        assert reached is not None

        async def write(change: Change) -> None:
            row = await channels.lock_channel(
                change.connection, self.channel.channel, allowed=(Status.SUSPECT,)
            )
            flight = await recovery.unfinished_attempt(change, row.channel, newest + 1)
            attempt = proved.attempt + 1 if proved.index == newest + 1 else 0
            await channels.update_channel(
                change,
                row,
                status="idle" if flight is None else "proved",
                index=newest,
                attempt=attempt if flight is None else flight,
                token=token,
                doubtful=row.restored,
            )
            await ledger.enter(change, row, reached, receipt=True, note=note)
            change.event("channel", "recovered", channel=row.channel, label=row.label, index=newest)

        await self.run.change(write)
        log.info("channel_recovered", channel=self.channel.label, index=newest)
