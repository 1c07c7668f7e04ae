"""Comparing the signer's records with the database on every attach; whoever is behind catches up.

docs/protocol.md, rules `compare`, `signer-copy` and `signs`: a database that went back in time is
recognised by a signer that wrote more, a signer that went back in time by a database that holds a
newer closing authorization.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from customerd.channels import queries
from customerd.channels.escrows import escrows as all_escrows
from customerd.channels.record import Channel, Escrow, State, Status
from customerd.operations import queries as operations
from customerd.operations.queries import AttemptRow
from customerd.recovery import ledger
from customerd.recovery import queries as recovery
from customerd.store.events import Change, Store
from customerd.tokens import queries as tokens
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import get_logger
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from customerd.signing.gateway import Gateway

log = get_logger("customerd.signing")

PAGE = 500
COMMITMENTS = slice(96, 240)
"""Where a pay proof has its three commitments: to state, close state and lock."""


class Verdict(Enum):
    """What the comparison of one channel found."""

    SAME = "same"
    SIGNER_OLDER = "signer older"
    DATABASE_OLDER = "database older"
    ONE_STEP_AHEAD = "one step ahead"
    WALKED = "walked"
    CLOSE_FORGOTTEN = "close forgotten"


@dataclass(frozen=True, slots=True)
class Local:
    """The daemon's side of the comparison of one channel."""

    channel: Channel
    in_flight: AttemptRow | None
    """The request of the operation at work on the channel, if it wrote one."""


def compare(local: Local, record: wire.Record | None) -> Verdict:
    """Return who of the two is behind on one channel; pure.

    The signer writes before it answers, so it may be ahead by the one step in flight: a proof is
    simply made again, a closing authorization is taken over, as the state before it may not be
    closed on any more.
    """
    channel = local.channel
    ours = -1 if channel.authorized is None else channel.authorized
    theirs = -1
    if record is not None and record.authorization is not None:
        theirs = record.authorization.index
    if theirs < ours:
        return Verdict.SIGNER_OLDER
    if record is None:
        return Verdict.SAME
    if theirs > ours:
        return _why_ahead(local, record, ours + 1)
    if record.proved.index > theirs and not _proof_is_known(local, record):
        return Verdict.DATABASE_OLDER
    if record.closing is not None and channel.closing is None and channel.status != "closed":
        return Verdict.CLOSE_FORGOTTEN
    return Verdict.SAME


def _why_ahead(local: Local, record: wire.Record, following: int) -> Verdict:
    """Return what made the signer's authorization newer; `following` is the one after ours."""
    if _is_walked(local.channel, record, following):
        return Verdict.WALKED
    return Verdict.ONE_STEP_AHEAD if _is_in_flight(local, record) else Verdict.DATABASE_OLDER


def _is_in_flight(local: Local, record: wire.Record) -> bool:
    """Whether the signer's newer authorization answers the request that the database holds."""
    flight, newest = local.in_flight, record.authorization
    return (
        flight is not None
        and newest is not None
        and (flight.index, flight.attempt) == (newest.index, newest.attempt)
        and flight.operation == record.proved.operation
    )


def _is_walked(channel: Channel, record: wire.Record, following: int) -> bool:
    """Whether the signer's newer authorization is the one step that a recovery did not hear of.

    A payment that was asked for leads to its state under its own operation, and then an old
    database has to be told from one that waits for the walk's answer.
    """
    newest, reached = record.authorization, record.reached
    return (
        channel.doubtful
        and newest is not None
        and reached is not None
        and newest.index == reached.index == following
        and reached.operation == ledger.forgotten_operation(channel.channel, reached.index)
        and record.proved.index <= reached.index
        and record.closing == channel.closing
    )


def _proof_is_known(local: Local, record: wire.Record) -> bool:
    """Whether the proof that left the signer can be made again or is known to be refused.

    A proof that the database does not know cannot have left the daemon, which writes it first,
    unless the database is an old one; then the operation is unknown or not at work either.
    """
    proved, flight = record.proved, local.in_flight
    if flight is not None and (flight.index, flight.attempt) == (proved.index, proved.attempt):
        return flight.operation == proved.operation
    base = -1 if local.channel.index is None else local.channel.index
    return proved.index == base + 1 and proved.attempt <= local.channel.attempt


async def compare_all(gateway: Gateway, store: Store, guard: bytes) -> None:
    """Register the escrows, then compare every channel and let whoever is behind catch up."""
    escrows = await all_escrows(store.database)
    for escrow in escrows.values():
        try:
            await register_escrow(gateway, escrow)
        except RpcError as error:
            log.error("escrow_not_registered", escrow=escrow.escrow.hex(), reason=error.message)
    records = {record.channel: record for record in await all_records(gateway)}
    rows = await queries.channels(store.database)
    authorized = {r.channel for r in records.values() if r.authorization is not None}
    unknown = authorized - {row.channel for row in rows}
    for channel_id in sorted(unknown):
        # Nothing is done about such a channel until it is restored: the operator must know.
        log.error("channel_missing_from_database", channel_id=channel_id.hex())
    gateway.unknown_channels = frozenset(unknown)
    gateway.completed_states = {
        r.channel: r.completed for r in records.values() if r.completed is not None
    }
    in_flight = await _in_flight(store)
    for channel in rows:
        if channel.state is Status.CLOSED:
            continue
        try:
            local = Local(channel, in_flight.get(channel.channel))
            await _compare_one(gateway, store, local, records.get(channel.channel), guard)
        except RpcError as error:
            # The others must not wait for one that cannot be brought together.
            log.error("channel_not_compared", channel=channel.label, reason=error.message)


async def _compare_one(
    gateway: Gateway, store: Store, local: Local, record: wire.Record | None, guard: bytes
) -> None:
    channel = local.channel
    verdict = compare(local, record)
    if verdict is Verdict.SIGNER_OLDER:
        await _fast_forward(gateway, store, local, await store.escrow(channel.escrow))
    elif verdict is Verdict.DATABASE_OLDER and record is not None:
        await _take_record(store, channel, record)
    elif verdict is Verdict.WALKED and record is not None:
        await _take_over(store, channel, partial(take_walked, record=record, receipt=None))
    elif verdict is Verdict.CLOSE_FORGOTTEN and record is not None:
        await _remember_close(store, channel, record)
    elif verdict is Verdict.ONE_STEP_AHEAD and record is not None:
        await _take_over(store, channel, partial(adopt, record=record))
    elif channel.authorized is not None:
        await _renew_permit(gateway, store, channel, guard)


async def register_escrow(gateway: Gateway, escrow: Escrow) -> None:
    """Make the signer check and keep an escrow's key; a repeat is answered at once."""
    ask = gateway.request if gateway.ready else gateway.request_uncompared
    await ask(
        wire.ESCROW,
        wire.EscrowParams(
            chain_id=escrow.chain_id,
            escrow=escrow.escrow,
            merchant=escrow.merchant,
            token=escrow.token,
            unit=escrow.unit,
            g1_half=escrow.g1_half,
            escrow_key=escrow.escrow_key,
        ),
    )


async def all_records(gateway: Gateway) -> list[wire.Record]:
    """Return everything the signer has written; raises SignerAway, SignerSlow."""
    found: list[wire.Record] = []
    while True:
        after = found[-1].channel if found else b""
        page = await gateway.request_uncompared(
            wire.RECORDS, wire.RecordsParams(after=after, limit=PAGE)
        )
        found.extend(page.records)
        if len(page.records) < PAGE:
            return found


async def record_of(gateway: Gateway, channel: bytes) -> wire.Record | None:
    """Return the signer's record of one channel; raises SignerAway."""
    before = (int.from_bytes(channel) - 1).to_bytes(32)
    page = await gateway.request(wire.RECORDS, wire.RecordsParams(after=before, limit=1))
    return next((record for record in page.records if record.channel == channel), None)


async def _in_flight(store: Store) -> dict[bytes, AttemptRow]:
    """Return by channel the request of the operation at work on it, where one was written."""
    found: dict[bytes, AttemptRow] = {}
    for row in await operations.unfinished(store.database):
        if row.channel is None or row.channel in found:
            continue
        attempt = await operations.attempt_of(store.database, row.operation)
        if attempt is not None:
            found[row.channel] = attempt
    return found


async def _fast_forward(gateway: Gateway, store: Store, local: Local, escrow: Escrow) -> None:
    """Hand the database's newer authorization to a signer that went back in time."""
    channel, flight = local.channel, local.in_flight
    assert channel.authorized is not None
    state = await queries.state_at(store.database, channel.channel, channel.authorized)
    assert state is not None
    reached = await _proved(store, channel, state.index)
    assert reached is not None, "an authorized state was proved"
    proved = None
    if flight is not None and flight.index == state.index + 1:
        proved = _with_commitments(await _proved(store, channel, flight.index), flight)
    log.warning("signer_fast_forwarded", channel=channel.label, index=state.index)
    await gateway.request_uncompared(
        wire.ADOPT,
        wire.AdoptParams(
            channel=channel.channel,
            chain_id=escrow.chain_id,
            escrow=escrow.escrow,
            salt=channel.salt,
            customer_deposit=channel.customer_deposit,
            merchant_deposit=channel.merchant_deposit,
            authorization=as_authorization(state),
            reached=reached,
            previous=await _proved(store, channel, state.index - 1),
            proved=proved,
            released=state.index - 1 if state.index > 0 else None,
            completed=channel.index,
            closing=channel.closing,
        ),
    )


async def _proved(store: Store, channel: Channel, index: int) -> wire.Proved | None:
    """Return the attempt that led to a state, or the last that is to lead there."""
    return await store.database.fetch_one(
        """
        select made.index, made.attempt, operation,
            case kind when 'establish' then 0 else amount end
        from attempt as made join operation using (operation)
            left join state on state.channel = made.channel and state.index = made.index
        where made.channel = %(channel)s and made.index = %(index)s
            and made.attempt = coalesce(state.attempt, made.attempt)
        order by made.attempt desc limit 1
        """,
        {"channel": channel.channel, "index": index},
        row=wire.Proved,
    )


def _with_commitments(proved: wire.Proved | None, flight: AttemptRow) -> wire.ProvedWith | None:
    """Return the attempt in flight with what its proof shows of it."""
    if proved is None or (proved.index, proved.attempt) != (flight.index, flight.attempt):
        return None
    shown = flight.proof[COMMITMENTS]
    return wire.ProvedWith(
        **msgspec.structs.asdict(proved),
        state_commitment=shown[:48],
        close_commitment=shown[48:96],
        lock_commitment=shown[96:],
    )


def as_authorization(state: State) -> wire.Authorization:
    """Return the newest state's closing authorization in the form of the link."""
    assert state.signature is not None
    assert state.permit is not None
    return wire.Authorization(
        index=state.index,
        attempt=state.attempt,
        lock=state.lock,
        customer_balance=state.customer_balance,
        merchant_balance=state.merchant_balance,
        signature=state.signature,
        guard=state.guard,
        permit=state.permit,
    )


async def adopt(change: Change, row: Channel, record: wire.Record) -> Channel:
    """Take over the signer's newer closing authorization, on a locked row.

    From the signer's write on it is the only one to close on: a decision on an older state moves
    to it, and a payment in flight has reached its next step (rules `signer-copy`, `close-new`).
    """
    newest = record.authorization
    if newest is None or (row.authorized is not None and newest.index <= row.authorized):
        return row
    await queries.adopt_authorization(change, row, newest)
    values: dict[str, Any] = {
        "authorized": newest.index,
        "customer_balance": newest.customer_balance,
        "merchant_balance": newest.merchant_balance,
    }
    if row.state is Status.NEW and newest.index == 0:
        # The deposit may be on the chain already: from now on there is something to close on.
        values["status"] = "funding"
    elif row.state is Status.PROVED and row.index is not None and newest.index == row.index + 1:
        values["status"] = "revoking"
    elif row.index is not None and newest.index > row.index + 1:
        values |= {"index": None, "token": None, "status": "suspect", "doubtful": True}
    if row.closing is not None:
        values |= {"closing": newest.index, "mutual_signature": None}
        values.pop("status", None)
    await queries.update_channel(change, row, **values)
    change.event("channel", "adopted", channel=row.channel, label=row.label, index=newest.index)
    return await queries.lock_channel(change.connection, row.channel, allowed=frozenset(Status))


async def authorize_close(
    gateway: Gateway,
    store: Store,
    channel: Channel,
    *,
    guard: bytes,
    kind: Literal["mutual", "unilateral"],
) -> wire.CloseAuthorization:
    """Have the signer write the decided close down before anything leaves (rule `signs`).

    Raises its RpcError; when it knows a newer state, that is taken over first, so that the next
    look closes on it.
    """
    assert channel.closing is not None
    params = wire.CloseAuthorizeParams(
        channel=channel.channel, index=channel.closing, kind=kind, guard=guard
    )
    try:
        return await gateway.request(wire.CLOSE_AUTHORIZE, params)
    except RpcError as error:
        data = error.data if isinstance(error.data, dict) else {}
        if data.get("kind") == "newer_state":
            record = msgspec.json.decode(msgspec.json.encode(data["record"]), type=wire.Record)
            await _take_over(store, channel, partial(adopt, record=record))
        raise


async def catch_up(gateway: Gateway, store: Store, channel: Channel) -> bool:
    """Take over an authorization that the signer has and `channel` lacks; tell if there was one.

    Raises SignerAway, SignerSlow.
    """
    record = await record_of(gateway, channel.channel)
    if record is None or record.authorization is None:
        return False
    if channel.authorized is not None and record.authorization.index <= channel.authorized:
        return False
    await _take_over(store, channel, partial(adopt, record=record))
    return True


async def _take_over(
    store: Store, channel: Channel, take: Callable[[Change, Channel], Awaitable[object]]
) -> None:
    """Do what catches up with a signer that is ahead, on the locked row."""

    async def body(change: Change) -> None:
        row = await queries.lock_channel(
            change.connection, channel.channel, allowed=frozenset(Status) - {Status.CLOSED}
        )
        await take(change, row)

    await store.change(body)
    log.warning("signer_is_ahead", channel=channel.label)


async def take_walked(
    change: Change,
    before: Channel,
    record: wire.Record,
    *,
    receipt: bool | None,
    note: str | None = None,
) -> None:
    """Take over a state that a recovery found; the channel, locked, stays in recovery."""
    row = await adopt(change, before, record)
    if before.state is Status.NEW:
        await queries.update_channel(change, row, status="suspect")
    await ledger.enter_record(change, row, record, receipt=receipt, note=note)


async def _take_record(store: Store, channel: Channel, record: wire.Record) -> None:
    """Take over what an old database does not know; the channel pays no more until recovered.

    What is queued waits for the user's word: nobody knows what was cancelled or done since.
    """
    log.error("database_went_back", channel=channel.label, proved=record.proved.index)

    async def body(change: Change) -> None:
        row = await queries.lock_channel(
            change.connection, channel.channel, allowed=frozenset(Status) - {Status.CLOSED}
        )
        row = await adopt(change, row, record)
        values: dict[str, Any] = {"doubtful": True}
        if record.closing is not None and row.authorized is not None:
            values |= {"status": "decided", "closing": row.authorized}
        elif row.authorized is not None and row.state not in (Status.ASKED, Status.DECIDED):
            values["status"] = "suspect"
        await queries.update_channel(change, row, **values)
        await ledger.enter_record(change, row, record, receipt=None)
        if held := await recovery.hold_queue(change):
            change.event("operation", "held", count=held)
        # What their limits count went back as well.
        await tokens.end_spending(change)
        change.event("channel", "database_went_back", channel=row.channel, label=row.label)

    await store.change(body)


async def _renew_permit(gateway: Gateway, store: Store, channel: Channel, guard: bytes) -> None:
    """Get a permit for the present guard where the newest authorization names another."""
    assert channel.authorized is not None
    state = await queries.state_at(store.database, channel.channel, channel.authorized)
    assert state is not None
    if state.guard == guard or state.signature is None:
        return
    # A repeat is answered from the signer's record; it does not look at the signature again.
    again = wire.AuthorizeParams(
        channel=channel.channel,
        index=state.index,
        attempt=state.attempt,
        signature=bytes(96),
        guard=guard,
    )
    if state.index == 0:
        renewed = await gateway.request_uncompared(wire.ESTABLISH_AUTHORIZE, again)
    else:
        renewed = (await gateway.request_uncompared(wire.PAY_AUTHORIZE, again)).authorization

    async def body(change: Change) -> None:
        row = await queries.lock_channel(
            change.connection, channel.channel, allowed=frozenset(Status)
        )
        await queries.adopt_authorization(change, row, renewed)

    await store.change(body)
    log.info("permit_renewed", channel=channel.label)


async def _remember_close(store: Store, channel: Channel, record: wire.Record) -> None:
    """A close was signed that the database forgot: the decision stands, on the newest state."""
    log.error("close_was_forgotten", channel=channel.label, index=record.closing)

    async def body(change: Change) -> None:
        row = await queries.lock_channel(
            change.connection, channel.channel, allowed=frozenset(Status) - {Status.CLOSED}
        )
        # The signer names the oldest state that it signed a close on, perhaps replaced since.
        await queries.update_channel(change, row, status="decided", closing=row.authorized)

    await store.change(body)
