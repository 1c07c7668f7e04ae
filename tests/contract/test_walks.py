"""Random walks: whoever does what in whatever order, the table decides, the books balance."""

from __future__ import annotations

import random

import pytest

from tests.contract.test_statuses import ALLOWED
from tests.contract.world import CUSTOMER_DEPOSIT, DELAY, MERCHANT_DEPOSIT, World
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

STEPS = 60
SECRET = 32 * b"\x0d"


def _situation(record: ChannelRecord, now: int) -> str:
    """The row of the table a channel is in."""
    name = {
        ChannelStatus.AWAITING_MERCHANT: "awaiting",
        ChannelStatus.OPEN: "open",
        ChannelStatus.EXPIRING: "struck off" if record.guard_struck_off else "expiring",
        ChannelStatus.CLOSING: "closing by guard" if record.closed_by_guard else "closing",
        ChannelStatus.CLOSED: "closed",
        ChannelStatus.RECLAIMED: "reclaimed",
    }[record.status]
    late = record.deadline and now > record.deadline
    return f"{name}, late" if late else name


def _call(world: World, name: str, channel: int, chosen: random.Random) -> tuple[bytes, int]:
    """A call with right arguments and random balances; its value in units."""
    record = world.record(channel)
    total = record.customer_deposit + record.merchant_deposit
    balance = chosen.choice([0, 1, total // 2, total])
    value = record.merchant_deposit if world.escrow.native else 0
    match name:
        case "fund":
            data = calls.fund(channel, record.customer_deposit, record.merchant_deposit)
            return data, value
        case "close":
            return world.close_call(channel, SECRET, customer_balance=balance), 0
        case "defend":
            return world.defend_call(channel, SECRET, customer_balance=balance), 0
        case "mutual_close":
            return world.mutual_call(channel, customer_balance=balance), 0
        case "dispute":
            return calls.dispute(channel, SECRET), 0
    simple = {"reclaim": calls.reclaim, "expire": calls.expire, "claim": calls.claim}
    return simple[name](channel), 0


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_calls_follows_the_table(anvil_world: World, seed: int) -> None:
    """Each call of a random walk succeeds exactly if the table says so."""
    world, chosen = anvil_world, random.Random(seed)
    actors = {
        "customer": world.customer,
        "merchant": world.merchant,
        "guard": world.guard,
        "stranger": world.stranger,
    }
    names = ["fund", "reclaim", "expire", "close", "defend", "dispute", "claim", "mutual_close"]
    channels = [world.open(merchant_deposit=deposit) for deposit in (0, 0, MERCHANT_DEPOSIT)]
    for _ in range(STEPS):
        channel = chosen.choice(channels)
        if chosen.random() < 0.15:
            world.chain.increase_time(chosen.choice([10, DELAY + 100]))
        record = world.record(channel)
        if record.status in (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED):
            channels.remove(channel)
            channels.append(world.open(customer_deposit=CUSTOMER_DEPOSIT))
        row = ALLOWED[_situation(record, world.chain.time())]
        # Mostly what is possible: random calls alone seldom get anywhere
        name = chosen.choice(sorted(row) if row and chosen.random() < 0.6 else names)
        allowed = row.get(name, set())
        actor = chosen.choice(sorted(allowed) if allowed and chosen.random() < 0.7 else [*actors])
        data, value = _call(world, name, channel, chosen)
        receipt = world.chain.send(
            actors[actor], world.escrow.address, data, value=value * world.escrow.unit
        )
        assert receipt.succeeded == (actor in allowed), (name, actor, record)
    world.escrow.check_books()
