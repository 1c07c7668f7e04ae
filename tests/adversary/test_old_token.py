"""A token without permits, whose transfers answer nothing: the deposit goes by an allowance."""

from __future__ import annotations

from tests.adversary.arena import Arena
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelStatus


def test_a_token_without_permits_is_approved_for_and_no_more(arena: Arena) -> None:
    """The wallet approves exactly the deposit, opens, pays, and both are paid out in tokens."""
    network, asset = arena.network, arena.network.asset
    assert network.token is not None
    merchant = network.merchants["bakery"]

    def held(account: bytes) -> int:
        question = calls.balance_of(account)
        return calls.decode_number(network.chain.view(network.token or b"", question))

    before = held(network.account), held(merchant.account)
    label = arena.establish(f"100 {asset}", merchant="bakery", merchant_deposit=f"20 {asset}")
    assert (held(network.account), held(merchant.account)) == (before[0] - 100, before[1] - 20)
    question = calls.allowance(network.account, merchant.escrow)
    assert calls.decode_number(network.chain.view(network.token, question)) == 0
    arena.pay(label, f"30 {asset}")
    assert arena.outcome(arena.begin("close", label=label))["status"] == "done"
    arena.until(label, status="closed")
    assert arena.on_chain(label, merchant="bakery").status is ChannelStatus.CLOSED
    assert (held(network.account), held(merchant.account)) == (before[0] - 30, before[1] + 30)
