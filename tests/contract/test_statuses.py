"""The table of calls: what each sender may do in each status, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from tests.contract.world import CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT, World
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelStatus

SALT = 32 * b"\x07"
SECRET = 32 * b"\x01"

ANYONE = {"customer", "merchant", "guard", "stranger"}
CUSTOMER, MERCHANT, GUARD = {"customer"}, {"merchant"}, {"guard"}
# Statuses as the table of the design has them, split where a deadline or a strike matters.
ALLOWED: dict[str, dict[str, set[str]]] = {
    "absent": {"open": CUSTOMER},
    "awaiting": {"fund": MERCHANT},
    "awaiting, late": {"fund": MERCHANT, "reclaim": ANYONE},
    "open": {"expire": MERCHANT, "close": CUSTOMER, "mutual_close": CUSTOMER},
    "expiring": {"close": CUSTOMER, "mutual_close": CUSTOMER, "defend": GUARD},
    "expiring, late": {
        "close": CUSTOMER,
        "mutual_close": CUSTOMER,
        "defend": GUARD,
        "claim": ANYONE,
    },
    "closing": {"dispute": ANYONE},
    "closing, late": {"dispute": ANYONE, "claim": ANYONE},
    "closing by guard": {"dispute": ANYONE},
    "closing by guard, late": {"dispute": ANYONE, "claim": ANYONE},
    "struck off": {"close": CUSTOMER, "mutual_close": CUSTOMER},
    "struck off, late": {"close": CUSTOMER, "mutual_close": CUSTOMER, "claim": ANYONE},
    "closed": {},
    "reclaimed": {},
}
REASONS = {"sender", "status", "early", "struck off", "permit", "used"}


def _reach(world: World, situation: str) -> int:
    """Bring a new channel into a situation of the table."""
    name, _, late = situation.partition(", ")
    channel = world.channel_id(SALT)
    if name == "absent":
        return channel
    awaiting = name in ("awaiting", "reclaimed")
    assert world.open(merchant_deposit=MERCHANT_DEPOSIT if awaiting else 0, salt=SALT) == channel
    steps: dict[str, list[Callable[[], object]]] = {
        "expire": [lambda: world.do(world.merchant, calls.expire(channel))],
        "close": [lambda: world.do(world.customer, world.close_call(channel, SECRET))],
        "defend": [lambda: world.do(world.guard, world.defend_call(channel, SECRET))],
        "dispute": [lambda: world.do(world.stranger, calls.dispute(channel, SECRET))],
        "wait": [lambda: world.pass_deadline(channel)],
        "reclaim": [lambda: world.do(world.stranger, calls.reclaim(channel))],
    }
    path = {
        "awaiting": "",
        "open": "",
        "expiring": "expire",
        "closing": "close",
        "closing by guard": "expire defend",
        "struck off": "expire defend dispute",
        "closed": "close dispute",
        "reclaimed": "wait reclaim",
    }[name]
    for step in path.split() + (["wait"] if late else []):
        for action in steps[step]:
            action()
    return channel


def _calls(world: World, channel: int) -> dict[str, tuple[bytes, int]]:
    """Every call with arguments that are right for the channel, and its value in units."""
    merchant_value = MERCHANT_DEPOSIT if world.escrow.native else 0
    return {
        "open": world.open_call(SALT, CUSTOMER_DEPOSIT, 0),
        "fund": (calls.fund(channel, CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT), merchant_value),
        "reclaim": (calls.reclaim(channel), 0),
        "expire": (calls.expire(channel), 0),
        "close": (world.close_call(channel, SECRET), 0),
        "defend": (world.defend_call(channel, SECRET), 0),
        "dispute": (calls.dispute(channel, SECRET), 0),
        "claim": (calls.claim(channel), 0),
        "mutual_close": (world.mutual_call(channel), 0),
    }


@pytest.mark.parametrize("situation", ALLOWED)
def test_only_the_calls_of_the_table_are_possible(world: World, situation: str) -> None:
    """In each status exactly the calls of the table work, for exactly its senders."""
    channel = _reach(world, situation)
    actors = {
        "customer": world.customer,
        "merchant": world.merchant,
        "guard": world.guard,
        "stranger": world.stranger,
    }
    found: dict[str, set[str]] = {}
    for name, (data, value) in _calls(world, channel).items():
        for actor, key in actors.items():
            if name == "open" and actor != "customer":
                continue  # another customer's channel has another id
            reason = world.refusal(key, data, value=value * world.escrow.unit)
            if reason is None:
                found.setdefault(name, set()).add(actor)
            else:
                assert reason in REASONS, (name, actor, reason)
    assert found == ALLOWED[situation]


def test_an_id_is_opened_once_whatever_the_terms(world: World) -> None:
    """A second open with the same salt is refused also with other deposits."""
    world.open(salt=SALT)
    data, value = world.open_call(SALT, 1, 1)
    assert world.refusal(world.customer, data, value=value * world.escrow.unit) == "used"


def test_another_customer_may_use_the_same_salt(world: World) -> None:
    """The id binds the customer: nobody can occupy another's channel id."""
    salt = secrets.token_bytes(32)
    mine = world.open(salt=salt)
    other = World(world.escrow)
    assert other.open(salt=salt) != mine
    assert world.record(mine).customer == world.customer.address
    assert mine < 2**253


def test_an_unknown_channel_is_absent(world: World) -> None:
    """The view of a channel that was never opened is all zero."""
    assert world.record(12345).status is ChannelStatus.ABSENT
