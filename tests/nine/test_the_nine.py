"""The nine ways in which the reference system lost money or channels, tried on this one.

docs/reliability.md has them in a table.
"""

from __future__ import annotations

from typing import Any

from tests.adversary.arena import Arena
from tests.flow.world import ETHER_UNITS
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

PAID, IN_FLIGHT = 1000, 2000


def crash(arena: Arena) -> None:
    """Kill the daemon."""
    arena.network.daemon.kill()


def restart(arena: Arena) -> None:
    """Start the daemon again; it does the rest by itself."""
    arena.network.daemon.start()
    arena.network.wait_mode("ready")


def expire_unseen(arena: Arena, channel: str) -> None:
    """Have the merchant demand a close while the daemon is dead."""
    arena.network.merchantctl("coffee", "expire", "--no-wait", channel)
    arena.on_chain_status([int(channel, 16)], ChannelStatus.EXPIRING)


def payout(record: ChannelRecord) -> tuple[int, int]:
    """Return what the contract paid to customer and merchant."""
    return record.customer_balance, record.merchant_balance


def begin_establish(arena: Arena, label: str, **more: Any) -> str:
    """Queue an establish with the adversary."""
    address = arena.network.merchants["coffee"].address
    return arena.begin("establish", merchant=address, deposit="1 ETH", label=label, **more)


def test_establish_interrupted_after_the_deposit(arena: Arena) -> None:
    """There a crash between deposit and record left money in a contract nobody knew of."""
    chain, escrow = arena.network.chain, arena.network.merchants["coffee"].escrow
    before = len(chain.logs(escrow))
    operation = begin_establish(arena, "nine-1")
    while len(chain.logs(escrow)) == before:
        chain.mine()
    crash(arena)
    restart(arena)
    assert arena.outcome(operation)["status"] == "done"
    assert len(chain.logs(escrow)) == before + 1
    arena.pay("nine-1", PAID)
    assert arena.balances("nine-1") == (ETHER_UNITS - PAID, PAID)


def test_merchant_that_never_funds(arena: Arena) -> None:
    """There a deposit whose merchant never added its share could not be taken back by anything."""
    operation = begin_establish(arena, "nine-2", merchant_deposit="5000 ETH")
    arena.until("nine-2", chain_status="awaiting_merchant")
    arena.network.chain.increase_time(arena.network.delay + 1)
    arena.until("nine-2", status="closed")
    assert arena.on_chain("nine-2").status is ChannelStatus.RECLAIMED
    assert arena.outcome(operation)["status"] == "refused"


def test_merchant_restarted_before_the_first_token(arena: Arena) -> None:
    """There a merchant kept a new channel in memory: restarted, it could never issue a token."""
    arena.order(establish_activate={"do": "hold", "after": False})
    operation = begin_establish(arena, "nine-3")
    while arena.settle_once(operation) is None:
        if arena.rpc("operation", operation=operation)["step"] == "activate":
            break
    arena.reached("establish.activate")
    merchant = arena.network.merchants["coffee"].service
    merchant.kill()
    merchant.start()
    assert arena.outcome(operation)["status"] == "done"
    arena.pay("nine-3", PAID)


def test_crash_before_the_proof(arena: Arena) -> None:
    """There a payment that had only been asked for kept the watcher from answering an expire."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    channel = arena.show(label)["channel"]
    arena.order(pay_propose={"do": "hold", "after": False})
    operation = arena.begin("pay", label=label, amount=IN_FLIGHT)
    arena.reached("pay.propose")
    crash(arena)
    arena.order()
    expire_unseen(arena, channel)
    restart(arena)
    assert payout(arena.closed(label)) == (ETHER_UNITS - PAID, PAID)
    assert arena.outcome(operation)["status"] == "refused"


def test_crash_within_a_payment(arena: Arena) -> None:
    """There a channel that was started or locked was stuck, and lost when the merchant expired."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    channel = arena.show(label)["channel"]
    arena.order(pay_revoke={"do": "hold"})
    operation = arena.begin("pay", label=label, amount=IN_FLIGHT)
    arena.reached("pay.revoke")
    crash(arena)
    arena.order()
    expire_unseen(arena, channel)
    restart(arena)
    expected = (ETHER_UNITS - PAID - IN_FLIGHT, PAID + IN_FLIGHT)
    assert payout(arena.closed(label)) == expected
    assert arena.outcome(operation)["status"] == "done"


def test_crash_while_an_expire_is_answered(arena: Arena) -> None:
    """There an expire that was noted and not answered was never looked at again."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    channel = arena.show(label)["channel"]
    arena.network.merchantctl("coffee", "expire", "--no-wait", channel)
    arena.network.wait_channel(label, lambda shown: shown["status"] == "decided")
    crash(arena)
    restart(arena)
    assert payout(arena.closed(label)) == (ETHER_UNITS - PAID, PAID)


def test_crash_before_the_claim(arena: Arena) -> None:
    """There a claim that was noted and not sent was sent by nothing any more."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    assert arena.outcome(arena.begin("close", label=label, force=True))["status"] == "done"
    arena.until(label, chain_status="closing")
    crash(arena)
    arena.network.chain.increase_time(arena.network.delay + 1)
    restart(arena)
    arena.until(label, status="closed")
    assert payout(arena.on_chain(label)) == (ETHER_UNITS - PAID, PAID)


def test_claim_whose_confirmation_was_lost(arena: Arena) -> None:
    """There a claim that was mined behind a lost connection was booked as a lost dispute."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    number = int(arena.show(label)["channel"], 16)
    assert arena.outcome(arena.begin("close", label=label, force=True))["status"] == "done"
    arena.until(label, chain_status="closing")
    arena.network.chain.increase_time(arena.network.delay + 1)
    arena.on_chain_status([number], ChannelStatus.CLOSED)
    crash(arena)
    restart(arena)
    arena.until(label, status="closed")
    (ending,) = (
        event
        for event in arena.rpc("history", label=label, limit=20)["events"]
        if (event["topic"], event["kind"]) == ("channel", "closed")
    )
    assert ending["details"]["customer"] == "0.999999 ETH"
    assert payout(arena.on_chain(label)) == (ETHER_UNITS - PAID, PAID)


def test_mutual_close_that_broke_off(arena: Arena) -> None:
    """There a mutual close that failed once could neither be repeated nor be given up."""
    (label,) = arena.channels(1)
    arena.pay(label, PAID)
    arena.order(close_mutual=[{"do": "hang up"}, {"do": "hold"}])
    operation = arena.begin("close", label=label)
    arena.reached("close.mutual", 2)
    crash(arena)
    arena.order()
    restart(arena)
    assert arena.outcome(operation)["status"] == "done"
    arena.until(label, status="closed")
    assert payout(arena.on_chain(label)) == (ETHER_UNITS - PAID, PAID)
