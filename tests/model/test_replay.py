"""The schedules of the counterexamples, met by the real processes: nothing is lost."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fault.lab import Lab
from tests.model.replay import AMOUNT, DEPOSIT, Channel, dying, guard_key
from tests.model.replays import REASONS, REPLAYS
from tests.model.rules import RULES
from tests.recovery.support import Snapshot


def test_the_guard_closes_in_the_middle_of_a_payment_and_the_signer_returns(lab: Lab) -> None:
    """The signer let the secret go and died: the guard's close on the old state stands.

    Disputed by ourselves it would be void, and the channel lost with the signer. Nothing was paid,
    and the operation says so.
    """
    channel = Channel.opened(lab)
    operation = channel.die_while(
        "customersigner", "customersigner pay.authorize commit", "after", "pay", amount=AMOUNT
    )
    channel.expire()
    channel.until_closing(by_guard=True, customer=DEPOSIT)
    lab.bring_back("customersigner")
    lab.network.wait_mode("ready")
    lab.network.chain.mine(4)
    assert not channel.on_chain().guard_struck_off
    channel.end((DEPOSIT, 0))
    assert channel.outcome(operation)["status"] == "refused"
    assert lab.balances(channel.label) == (DEPOSIT, 0)


def test_a_daemon_dead_before_the_secret_leaves_closes_on_the_new_state(lab: Lab) -> None:
    """The authorization is written, the secret perhaps sent: the guard closes on the new state.

    Not compared since its start, the guard waits for half of the delay.
    """
    channel = Channel.opened(lab)
    operation = channel.die_while(
        "customerd", "customerd operation pay authorize commit", "after", "pay", amount=AMOUNT
    )
    lab.keep_down("customersigner")
    channel.expire()
    lab.bring_back("customerd")
    lab.network.wait_channel(channel.label, lambda found: found["chain_status"] == "expiring")
    lab.network.chain.mine(3)
    assert channel.on_chain().status.name == "EXPIRING"
    lab.network.chain.increase_time(lab.network.delay // 2 + 1)
    channel.until_closing(by_guard=True, customer=DEPOSIT - AMOUNT)
    channel.end((DEPOSIT - AMOUNT, AMOUNT))
    outcome = channel.outcome(operation)
    assert outcome["status"] == "done"


def test_a_close_that_an_old_database_forgot_is_remembered(lab: Lab) -> None:
    """A close was signed and the database went back before it: no payment, the close goes on."""
    channel = Channel.opened(lab)
    lab.world.pay(channel.label, AMOUNT)
    snapshot = Snapshot(lab.network.dsn("customerd"))
    channel.die_while(
        "customerd", "customerd transaction close send node", "before", "close", force=True
    )
    lab.forget_connections()
    snapshot.restore()
    lab.bring_back("customerd")
    channel.until_closing(by_guard=False, customer=DEPOSIT - AMOUNT)
    assert lab.world.refused("pay", label=channel.label, amount=1)["kind"] == "wrong_status"
    channel.end((DEPOSIT - AMOUNT, AMOUNT))


def test_a_decision_to_close_outlives_the_daemon(lab: Lab) -> None:
    """A daemon that dies after the decision pays no more, and closes after its start."""
    channel = Channel.opened(lab)
    closing = channel.die_while(
        "customerd", "customerd operation close decide commit", "after", "close", force=True
    )
    lab.bring_back("customerd")
    lab.network.wait_mode("ready")
    assert lab.world.refused("pay", label=channel.label, amount=1)["kind"] == "wrong_status"
    assert channel.outcome(closing)["status"] == "done"
    channel.end((DEPOSIT, 0))


def test_an_old_database_closes_on_the_signers_newest_state(lab: Lab) -> None:
    """The database forgot two payments, the merchant is silent and has expired: nothing is lost."""
    channel = Channel.opened(lab)
    snapshot = Snapshot(lab.network.dsn("customerd"))
    lab.world.pay(channel.label, AMOUNT)
    lab.world.pay(channel.label, AMOUNT)
    lab.keep_down("customerd")
    channel.expire()
    lab.forget_connections()
    snapshot.restore()
    lab.bring_back("customerd")
    # In the first half the merchant is asked for what it has recorded.
    lab.network.wait_channel(channel.label, lambda found: found["status"] == "suspect")
    lab.network.chain.increase_time(lab.network.delay // 2 + 1)
    channel.until_closing(by_guard=False, customer=DEPOSIT - 2 * AMOUNT)
    channel.end((DEPOSIT - 2 * AMOUNT, 2 * AMOUNT))


def test_an_old_database_takes_the_first_authorization_from_the_signer(lab: Lab) -> None:
    """The database went back to before closing authorization 0; the deposit is on the chain.

    The merchant is silent and has expired: the signer's copy is all there is to close on.
    """
    label = lab.new_label()
    address = lab.network.merchants["coffee"].address
    with dying(lab, "customerd", "customerd operation establish prove commit", "after"):
        lab.world.rpc("establish", merchant=address, deposit="1 ETH", label=label, wait=False)
    snapshot = Snapshot(lab.network.dsn("customerd"))
    lab.bring_back("customerd")
    lab.drive(lambda: True if lab.world.show(label)["status"] == "idle" else None, blocks=True)
    channel = Channel(lab, label, int(lab.world.show(label)["channel"], 16))
    lab.keep_down("customerd")
    channel.expire()
    lab.forget_connections()
    snapshot.restore()
    lab.bring_back("customerd")
    channel.until_closing(by_guard=False, customer=DEPOSIT)
    channel.end((DEPOSIT, 0))


@pytest.mark.parametrize("late", [False, True])
def test_a_stale_close_with_the_stolen_guard_is_disputed(lab: Lab, *, late: bool) -> None:
    """A thief closes on an old, poorer state and the merchant keeps still: the customer disputes.

    In OPEN the contract refuses the guard; after the deadline the dispute is still made.
    """
    channel, key = Channel.opened(lab), guard_key(lab)
    lab.world.pay(channel.label, AMOUNT)
    stolen = channel.stolen_defence(1)
    lab.world.rpc("refund", label=channel.label, amount=AMOUNT // 2)
    send = lab.network.chain.send
    assert not send(key, channel.escrow, stolen).succeeded
    lab.keep_down("customerd")
    channel.expire()
    assert send(key, channel.escrow, stolen).succeeded
    if late:
        lab.network.chain.increase_time(lab.network.delay + 1)
    lab.bring_back("customerd")
    channel.until_closing(by_guard=False, customer=DEPOSIT - AMOUNT // 2)
    assert channel.on_chain().guard_struck_off
    channel.end((DEPOSIT - AMOUNT // 2, AMOUNT // 2))


def test_every_counterexample_has_a_replay_or_a_reason() -> None:
    """Each rule that the model needs is met by real processes in a test, or says why not."""
    needed = {name for name, rule in RULES.items() if not rule.reason}
    assert needed == REPLAYS.keys() | REASONS.keys()
    assert not REPLAYS.keys() & REASONS.keys()


def test_every_replay_exists() -> None:
    """The tests that the table names are there."""
    root = Path(__file__).parents[2]
    for place in {place for places in REPLAYS.values() for place in places}:
        file, _, name = place.partition("::")
        tree = ast.parse((root / "tests" / file).read_text())
        functions = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, place
