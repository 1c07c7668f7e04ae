"""From rows to results: how channels, operations and events are shown."""

from __future__ import annotations

from customerd.channels import record as channels
from customerd.merchants import MerchantAddress
from customerd.operations.queries import OperationRow
from customerd.rpc import methods
from customerd.rpc.errors import hint_for
from customerd.store.events import Event
from zkchannels.amounts import Asset
from zkchannels.escrow.ethereum import checksum
from zkchannels.escrow.record import ChannelRecord


def amount(asset: Asset, units: int) -> methods.Amount:
    """Show units of an escrow as number and text."""
    return methods.Amount(units=units, text=asset.format(units))


def channel(
    row: channels.Channel,
    escrow: channels.Escrow,
    record: ChannelRecord,
    operation: OperationRow | None,
) -> methods.Channel:
    """Show a channel as it is recorded and as the chain has it."""
    asset = escrow.asset
    return methods.Channel(
        label=row.label,
        channel="0x" + row.channel.hex(),
        merchant=str(MerchantAddress(row.host, row.port, row.escrow)),
        escrow=checksum(row.escrow),
        chain_id=escrow.chain_id,
        symbol=escrow.symbol,
        status=row.status,
        chain_status=record.status.name.lower(),
        customer_balance=amount(asset, row.customer_balance),
        merchant_balance=amount(asset, row.merchant_balance),
        customer_deposit=amount(asset, row.customer_deposit),
        merchant_deposit=amount(asset, row.merchant_deposit),
        index=-1 if row.index is None else row.index,
        deadline=record.deadline or None,
        operation=None if operation is None else operation.operation.hex(),
        created=row.created,
    )


def operation(
    row: OperationRow, asset: Asset | None, held: methods.Amount | None
) -> methods.Operation:
    """Show an operation with its steps."""
    units = row.amount
    if units is not None and row.kind == "refund":
        units = -units
    return methods.Operation(
        operation=row.operation.hex(),
        kind=row.kind,  # type: ignore[arg-type]
        label=row.label,
        status=row.status,  # type: ignore[arg-type]
        step=row.step,
        amount=None if units is None or asset is None else amount(asset, units),
        customer_balance=held,
        held=row.held,
        receipt=row.receipt,
        service_note=row.service_note,
        error=None
        if row.error_kind is None
        else methods.Failure(
            kind=row.error_kind,
            message=row.error_message or "",
            hint=hint_for(row.error_kind),
        ),
        created=row.created,
        updated=row.updated,
        steps=[methods.Step(step.name, step.started, step.finished) for step in row.steps],
    )


def event(row: Event) -> methods.HistoryEvent:
    """Show a recorded event."""
    return methods.HistoryEvent(
        seq=row.seq,
        time=row.time,
        topic=row.topic,  # type: ignore[arg-type]
        kind=row.kind,
        label=row.label,
        operation=None if row.operation is None else row.operation.hex(),
        details=row.details,
    )
