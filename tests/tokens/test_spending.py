"""A spending limit holds: in races, over restarts, with refusals, and after a restored database."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import psycopg

from tests.flow.world import ETHER_UNITS, World
from tests.recovery.support import Snapshot, dsn_of, recovered, set_back
from tests.tokens.support import Holder, create, kind_of, refused_token, restricted
from zkchannels import caveats
from zkchannels.jsonrpc.errors import RpcError

ETHER = 10**18


def spent(world: World, token: Any) -> str:
    """What the daemon says was spent with a token."""
    (row,) = [row for row in world.rpc("token-list")["tokens"] if row["id"] == token["id"]]
    return str(row["spent"])


def test_a_limit_is_kept_to_the_last_unit(world: World) -> None:
    """Payments pass until the limit, of its asset and on its channels alone."""
    label, other = world.establish("1 ETH"), world.establish("1 ETH")
    bakery = world.establish("10 TEST", merchant="bakery")
    made = create(world, "pay", "wait", spend="0.1 ETH", channels=[label, bakery])
    with Holder(world, made["token"]) as holder:
        done = holder.call("pay", label=label, amount="0.06 ETH")
        assert done["status"] == "done"
        assert holder.call("wait", operation=done["operation"])["status"] == "done"
        assert holder.refused("pay", label=label, amount=40_000_001) == "spending_limit"
        assert holder.refused("pay", label=bakery, amount="1 TEST") == "forbidden"
        assert holder.refused("pay", label=other, amount="0.01 ETH") == "not_found"
        assert holder.refused("pay", label=label, amount="-0.01 ETH") == "amount_too_small"
        assert holder.refused("refund", label=label, amount="0.01 ETH") == "forbidden"
        assert holder.refused("close", label=label) == "forbidden"
        assert holder.call("pay", label=label, amount=40_000_000)["status"] == "done"
        assert holder.refused("pay", label=label, amount=1) == "spending_limit"
    assert spent(world, made) == "0.1 ETH"
    assert world.balances(label) == (900_000_000, 100_000_000)
    world.pay(label, "0.1 ETH")  # the owner's own payments count nowhere
    assert spent(world, made) == "0.1 ETH"


def test_children_have_limits_of_their_own_within_their_parent_s(world: World) -> None:
    """Two restricted tokens spend what each may, together never more than what they come from."""
    label = world.establish("1 ETH")
    made = create(world, "pay", spend="0.1 ETH")
    one, two, three = (
        restricted(made["token"], caveats.spend(amount * ETHER // 100, bytes(20), 18, "ETH"))
        for amount in (4, 5, 10**6)
    )
    with Holder(world, one) as holder:
        assert holder.call("pay", label=label, amount="0.04 ETH")
        assert holder.refused("pay", label=label, amount=1) == "spending_limit"
    with Holder(world, two) as holder:
        assert holder.call("pay", label=label, amount="0.05 ETH")
        assert holder.refused("pay", label=label, amount=1) == "spending_limit"
    with Holder(world, three) as holder:
        assert holder.refused("pay", label=label, amount="0.02 ETH") == "spending_limit"
        assert holder.call("pay", label=label, amount="0.01 ETH")
    assert spent(world, made) == "0.1 ETH"


def test_connections_that_race_do_not_overspend(world: World) -> None:
    """Four connections ask for forty payments at once; exactly what fits is queued."""
    label = world.establish("1 ETH")
    made = create(world, "pay", spend="0.1 ETH")
    queued: list[str] = []
    kinds: list[str] = []
    start = threading.Barrier(4)

    def ask() -> None:
        with Holder(world, made["token"]) as holder:
            start.wait()
            for _ in range(10):
                try:
                    asked = holder.call("pay", label=label, amount="0.01 ETH", wait=False)
                    queued.append(asked["operation"])
                except RpcError as error:
                    kinds.append(kind_of(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queued) == len(set(queued)) == 10
    assert kinds == ["spending_limit"] * 30
    for operation in queued:
        assert world.settle(operation)["status"] == "done"
    assert world.balances(label) == (900_000_000, 100_000_000)


def test_keys_of_others_are_other_keys(world: World) -> None:
    """A token repeats its own payments by key, and never comes upon the owner's or another's."""
    label = world.establish("1 ETH")
    mine = world.pay(label, "0.01 ETH", idempotency_key="order")
    one, two = (create(world, "pay", spend="0.02 ETH") for _ in range(2))
    found = []
    for token in (one, two):
        with Holder(world, token["token"]) as holder:
            first = holder.call("pay", label=label, amount="0.01 ETH", idempotency_key="order")
            again = holder.call("pay", label=label, amount="0.01 ETH", idempotency_key="order")
            assert first["operation"] == again["operation"]
            assert (
                holder.refused("pay", label=label, amount="0.02 ETH", idempotency_key="order")
                == "idempotency_mismatch"
            )
            found.append(first["operation"])
        assert spent(world, token) == "0.01 ETH"
    assert len({mine["operation"], *found}) == 3
    assert world.balances(label)[1] == 3 * ETHER_UNITS // 100


def test_a_child_does_not_come_upon_what_its_parent_paid_elsewhere(world: World) -> None:
    """A key that the parent used on a hidden channel is another key for the restricted token."""
    own, other = world.establish("1 ETH"), world.establish("1 ETH")
    made = create(world, "pay", spend="1 ETH")
    only = caveats.channels([bytes.fromhex(world.show(own)["channel"][2:])])
    with (
        Holder(world, made["token"]) as parent,
        Holder(world, restricted(made["token"], only)) as c,
    ):
        paid = parent.call("pay", label=other, amount="0.01 ETH", idempotency_key="k")
        assert c.refused("pay", label=other, amount="0.01 ETH", idempotency_key="k") == "not_found"
        mine = c.call("pay", label=own, amount="0.01 ETH", idempotency_key="k")
        assert mine["operation"] != paid["operation"]
        assert mine["label"] == own


def test_the_database_has_the_last_word_on_a_token(world: World) -> None:
    """A payment that was let in just before its token was revoked is not queued, nor charged."""
    label = world.establish("1 ETH")
    made = create(world, "pay", spend="0.1 ETH")
    with Holder(world, made["token"]) as holder, psycopg.connect(dsn_of(world)) as connection:
        connection.execute(
            "update token set revoked = now() where token = %s", [bytes.fromhex(made["id"])]
        )
        connection.commit()  # behind the daemon's back: in its memory the token is valid
        assert holder.refused("pay", label=label, amount="0.01 ETH") == "forbidden"
    assert spent(world, made) == "0 ETH"
    assert [row["kind"] for row in world.rpc("operations", label=label)["operations"]] == [
        "establish"
    ]


def test_what_is_cancelled_or_refused_is_given_back(world: World) -> None:
    """A payment that ends without its effect takes nothing from the limit, and one at work does."""
    label = world.establish("1 ETH")
    made = create(world, "pay", "operation", spend="0.1 ETH")
    merchant = world.network.merchants["coffee"].service
    with Holder(world, made["token"]) as holder:
        os.kill(merchant.pid, signal.SIGSTOP)
        try:
            asked = holder.call("pay", label=label, amount="0.1 ETH", wait=False)
            assert spent(world, made) == "0.1 ETH"
            assert holder.refused("pay", label=label, amount=1) == "spending_limit"
            assert holder.refused("cancel", operation=asked["operation"]) == "forbidden"
            assert world.rpc("cancel", operation=asked["operation"])["status"] == "cancelled"
        finally:
            os.kill(merchant.pid, signal.SIGCONT)
        assert spent(world, made) == "0 ETH"
        merchant.stop()
        assert holder.refused("pay", label=label, amount="0.1 ETH") == "merchant_unreachable"
        assert spent(world, made) == "0 ETH"
        merchant.start()
        assert holder.call("pay", label=label, amount="0.1 ETH")["status"] == "done"
    assert spent(world, made) == "0.1 ETH"


def test_a_limit_survives_the_daemon(world: World) -> None:
    """After a kill the token is valid, and what was spent is spent."""
    label = world.establish("1 ETH")
    made = create(world, "pay", "getinfo", spend="0.1 ETH", rate="100/s")
    with Holder(world, made["token"]) as holder:
        holder.call("pay", label=label, amount="0.07 ETH")
        world.network.daemon.kill()
        assert holder.lost("getinfo")
    world.network.daemon.start()
    world.network.wait_mode("ready")
    with Holder(world, made["token"]) as holder:
        assert holder.refused("pay", label=label, amount="0.04 ETH") == "spending_limit"
        assert holder.call("pay", label=label, amount="0.03 ETH")["status"] == "done"


def test_a_restored_database_ends_what_can_spend(own_world: World) -> None:
    """When the database went back, tokens with limits end; made since: unknown; readers go on."""
    world = own_world
    label = world.establish("1 ETH")
    paying = create(world, "pay", spend="0.3 ETH")
    reading, revoked = create(world, "list"), create(world, "list")
    snapshot = Snapshot(dsn_of(world))
    with Holder(world, paying["token"]) as holder:
        holder.call("pay", label=label, amount="0.1 ETH")
    later = create(world, "list")
    world.rpc("token-revoke", id=revoked["id"])
    set_back(world, snapshot)
    recovered(world, label)
    assert refused_token(world, later["token"]) == "forbidden"
    assert refused_token(world, paying["token"]) == "forbidden"
    for token in (reading, revoked):
        with Holder(world, token["token"]) as holder:
            assert holder.call("list")["channels"]
    assert world.balances(label) == (900_000_000, 100_000_000)
