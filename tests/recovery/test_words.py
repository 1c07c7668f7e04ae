"""From the twelve words alone: a new machine, an empty database, a new signer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.recovery.support import Machine


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Iterator[Machine]:
    """Another machine of the same customer, with nothing on it but the words."""
    # The one that is lost must not act any more.
    with Machine(world, tmp_path) as machine:
        yield machine


def test_the_words_bring_the_channels_back(world: World, machine: Machine) -> None:
    """Both channels are found on chain, walked to the newest state, and pay on; then they close."""
    first, second = world.establish("1 ETH"), world.establish("2 ETH")
    ids = {world.show(label)["channel"]: label for label in (first, second)}
    world.pay(first, "0.1 ETH")
    world.pay(first, "0.2 ETH")
    world.rpc("refund", label=first, amount="0.05 ETH")
    machine.take_over()
    new = machine.world
    assert new.rpc("list")["channels"] == []
    address = world.network.merchants["coffee"].address
    told = new.rpc("recover", merchant=address)["recoveries"]
    found = {ids[each["channel"]]: each for each in told if each["channel"] in ids}
    assert {each["status"] for each in found.values()} == {"recovered"}, told
    assert found[first]["index"] == 3
    assert "vouches" in found[first]["message"]
    label = found[first]["label"]
    assert new.balances(label) == (750_000_000, 250_000_000)
    assert new.balances(found[second]["label"]) == (2_000_000_000, 0)
    new.pay(label, "0.25 ETH")
    assert [each for each in new.rpc("recover")["recoveries"] if each["label"] == label] == []
    refusal = new.refused("recover", label=label)
    assert refusal["kind"] == "wrong_status"
    closing = new.rpc("close", label=label, wait=False)["operation"]
    assert new.settle(closing)["status"] == "done"
    assert new.on_chain(label).customer_balance == 500_000_000


def test_wrong_words_find_nothing(world: World, machine: Machine) -> None:
    """Another wallet's words see no channel of this one."""
    world.establish("1 ETH")
    machine.take_over(words=None)
    address = world.network.merchants["coffee"].address
    assert machine.world.rpc("recover", merchant=address) == {"recoveries": []}


def test_a_wrong_escrow_is_refused(world: World, machine: Machine) -> None:
    """An address that is no escrow contract, or not the merchant's, brings nothing back."""
    machine.take_over()
    host = world.network.merchants["coffee"].address.rpartition("/")[0]
    bakery = world.network.merchants["bakery"].address.rpartition("/")[2]
    for escrow, kind in ((bakery, "rejected_by_merchant"), ("0x" + "11" * 20, None)):
        refusal = machine.world.refused("recover", merchant=f"{host}/{escrow}")
        assert kind in (None, refusal["kind"])
    assert machine.world.refused("recover", merchant="nonsense")["kind"] == "invalid_address"
    assert machine.world.refused("recover", label="nothing")["kind"] == "not_found"


def test_a_killed_daemon_goes_on_walking(world: World, machine: Machine) -> None:
    """SIGKILL at any moment of the walk: the recovery is an operation, and resumes."""
    label = world.establish("1 ETH")
    for _ in range(6):
        world.pay(label, "0.1 ETH")
    channel = world.show(label)["channel"]
    machine.take_over()
    address = world.network.merchants["coffee"].address
    told = machine.world.rpc("recover", merchant=address, wait=False)["recoveries"]
    ours = next(each["label"] for each in told if each["channel"] == channel)
    for entered in range(1, 6, 2):
        machine.killed_at_state(ours, entered)
    done = machine.network.wait_channel(ours, lambda shown: shown["status"] == "idle")
    assert (done["index"], done["customer_balance"]["units"]) == (6, 400_000_000)
    machine.world.pay(ours, "0.1 ETH")
