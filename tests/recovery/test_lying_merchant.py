"""A merchant that answers a recovery with something else gains nothing, and closes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.flow.world import World
from tests.recovery.support import Machine, merchant_dsn

# What a merchant could answer, written into the records of a real one.
LIES = {
    "another's first authorization": (
        "update channel set closing_answer = (select closing_answer from channel"
        " where channel <> %(id)s limit 1) where channel = %(id)s"
    ),
    "another's first commitments": (
        "update channel set commitments = other.commitments from (select * from verdict"
        " where octet_length(commitments) = 96 and subject <> %(id)s limit 1) as other"
        " where channel = %(id)s"
    ),
    "another amount": "update payment set amount = amount - 1",
    "an older token": (
        "update payment set token_answer = (select token_answer from channel"
        " where channel = %(id)s) where token_answer is not null"
    ),
    "an older authorization": (
        "update payment set closing_answer = (select closing_answer from channel"
        " where channel = %(id)s)"
    ),
    "garbage": "update payment set closing_answer = decode(repeat('aa', 96), 'hex')",
}


@pytest.fixture
def machine(own_world: World, tmp_path: Path) -> Iterator[Machine]:
    """Another machine of the same customer, with nothing on it but the words."""
    with Machine(own_world, tmp_path) as machine:
        yield machine


class Records:
    """The merchant's records, changed behind its back and put right again."""

    def __init__(self, world: World) -> None:
        self._connection = psycopg.connect(merchant_dsn(world), autocommit=True)
        self._connection.execute("set session_replication_role = replica")
        self._kept: dict[str, list[Any]] = {}
        for table in ("channel", "payment"):
            self._connection.execute(f"create temporary table true_{table} as table {table}")

    def lie(self, statement: str, channel: bytes) -> None:
        """Change what will be answered, from one moment to the next."""
        with self._connection.transaction():
            self.tell_the_truth()
            self._connection.execute(statement, {"id": channel})

    def tell_the_truth(self) -> None:
        """Put everything back."""
        with self._connection.transaction():
            for table in ("payment", "channel"):
                self._connection.execute(f"delete from {table}")
                self._connection.execute(f"insert into {table} select * from true_{table}")

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()


def test_lies_are_seen_and_wait_for_the_truth(own_world: World, machine: Machine) -> None:
    """Every lie leaves the channel waiting, nothing on chain; with the truth it is recovered."""
    world = own_world
    label, other = world.establish("1 ETH"), world.establish("1 ETH")
    for number in range(3):
        world.pay(label, 100 + number)
    world.pay(other, 7)
    channel = world.show(label)["channel"]
    records = Records(world)
    machine.take_over()
    new, address = machine.world, world.network.merchants["coffee"].address
    lied = iter(LIES.items())
    name, statement = next(lied)
    records.lie(statement, bytes.fromhex(channel[2:]))
    told = new.rpc("recover", merchant=address, timeout=2)["recoveries"]
    ours = next(each for each in told if each["channel"] == channel)
    assert ours["status"] == "waiting", name
    for name, statement in lied:
        records.lie(statement, bytes.fromhex(channel[2:]))
        told = new.rpc("recover", timeout=1)["recoveries"]
        states = {each["channel"]: each["status"] for each in told}
        assert states.get(channel) == "waiting", name
        shown = new.show(ours["label"])
        assert shown["chain_status"] == "open", name
        assert shown["status"] in ("new", "suspect"), name
    records.tell_the_truth()
    records.close()
    done = machine.network.wait_channel(ours["label"], lambda shown: shown["status"] == "idle")
    assert done["customer_balance"]["units"] == 10**9 - 303
    new.pay(ours["label"], 1)


def test_a_merchant_that_stops_early_gets_no_close(own_world: World, machine: Machine) -> None:
    """Shown an older state as the newest, the customer is not made to close on it by itself."""
    world = own_world
    label = world.establish("1 ETH")
    world.pay(label, "0.6 ETH")
    world.rpc("refund", label=label, amount="0.5 ETH")
    channel = world.show(label)["channel"]
    machine.take_over()
    records = Records(world)
    records.lie("delete from payment where amount < 0", bytes.fromhex(channel[2:]))
    new, address = machine.world, world.network.merchants["coffee"].address
    (told,) = new.rpc("recover", merchant=address)["recoveries"]
    assert (told["status"], told["index"]) == ("recovered", 1)
    assert "only the merchant vouches" in told["message"]
    world.network.merchants["coffee"].service.kill()
    new.rpc("close", label=told["label"], wait=False)
    for _ in range(5):
        machine.network.chain.mine()
    assert new.show(told["label"])["chain_status"] == "open"
    records.tell_the_truth()
    records.close()
    world.network.merchants["coffee"].service.start()
    # The close waits for an agreement, and goes over to the newest state once that is known.
    (told,) = new.rpc("recover", label=told["label"])["recoveries"]
    assert (told["status"], told["index"]) == ("closing", 2)
    new.until(told["label"], status="closed")
    assert new.on_chain(told["label"]).customer_balance == 900_000_000
