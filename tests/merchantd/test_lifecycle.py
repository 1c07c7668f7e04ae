"""Whole lives of channels against a running merchant."""

from __future__ import annotations

from tests.merchantd.support import Customer, MerchantSite, until
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelStatus
from zkchannels.wire import merchant as wire


async def test_establish_pay_refund_and_close_mutually(
    shared_site: MerchantSite, customer: Customer
) -> None:
    """A channel is established, pays, is refunded and closed mutually on the newest balances."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000_000)
        for amount in (1, 2_500, -1_000, 0x7):
            await customer.pay(peer, channel, amount)
        assert channel.state.merchant_balance == 1_508
        request = await customer.mutual(peer, channel)
        answer = await peer.request(wire.CLOSE_MUTUAL, request)
        again = await peer.request(wire.CLOSE_MUTUAL, request)
    assert again == answer
    receipt = shared_site.anvil.send(
        customer.account,
        shared_site.escrow,
        calls.mutual_close(channel.number, 998_492, 1_508, answer.signature),
    )
    assert receipt.succeeded

    async def ended() -> bool:
        return shared_site.json("show", channel.id.hex())["status"] == "closed"

    await until(ended)
    said = shared_site.json("show", channel.id.hex())
    assert (said["final_customer_balance"], said["final_merchant_balance"]) == (998_492, 1_508)
    assert shared_site.channel(channel.number).status is ChannelStatus.CLOSED
