"""What an operation would cost and take, before it is done."""

from __future__ import annotations

from customerd.channels.record import Escrow
from customerd.rpc import methods
from customerd.watch.costs import GAS
from zkchannels.amounts import Asset
from zkchannels.chain.client import ChainClient
from zkchannels.chain.model import FeeSuggestion
from zkchannels.escrow.ethereum import ZERO_ADDRESS

PAYMENT_SECONDS = 0.05


async def estimate(
    params: methods.EstimateParams,
    *,
    client: ChainClient,
    fees: FeeSuggestion,
    escrow: Escrow | None,
    native: Asset,
) -> methods.Estimate:
    """Return gas, its fee at today's prices, and the expected duration."""
    if params.operation in ("pay", "refund"):
        return methods.Estimate(
            transactions=[],
            gas=0,
            fee=native.format(0),
            seconds=PAYMENT_SECONDS,
            notes=["a payment sends no transaction"],
        )
    interval = await _block_interval(client)
    transactions, seconds, notes = _plan(params, escrow, interval)
    gas = sum(GAS[name] for name in transactions)
    return methods.Estimate(
        transactions=transactions,
        gas=gas,
        fee=native.format(gas * (fees.base_fee + fees.tip)),
        seconds=seconds,
        notes=notes,
    )


def _plan(
    params: methods.EstimateParams, escrow: Escrow | None, interval: float
) -> tuple[list[str], float, list[str]]:
    if params.operation == "establish":
        token = escrow is not None and escrow.token != ZERO_ADDRESS
        return (
            ["open_token" if token else "open"],
            64 * interval,
            ["the merchant gives the first pay token when the funding is final"],
        )
    if not params.force:
        return ["mutual_close"], 2 * interval, ["if the merchant agrees"]
    delay = 0 if escrow is None else escrow.delay
    return ["close", "claim"], delay + 2 * interval, ["the money is paid out after the delay"]


async def _block_interval(client: ChainClient) -> float:
    head = await client.block("latest")
    if head is None or head.number == 0:
        return 12.0
    span = min(head.number, 20)
    earlier = await client.block(head.number - span)
    return 12.0 if earlier is None else max(0.1, (head.timestamp - earlier.timestamp) / span)
