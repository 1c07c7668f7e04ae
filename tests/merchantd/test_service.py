"""Payments that an HTTP service approves, and the notes that it gives."""

from __future__ import annotations

from tests.merchantd.service import Service
from tests.merchantd.support import Customer, MerchantSite, refused, until
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.wire import merchant as wire


async def test_note_is_asked_for_once_and_kept(site: MerchantSite, service: Service) -> None:
    """The service's note is fetched after the payment, stored, and given with every repeat."""
    site.write_config(f'[approver]\nurl = "{service.url}"\n')
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        service.status, service.body = 403, "no coffee today"
        with refused("rejected") as caught:
            await customer.propose_pay(peer, 10)
        assert caught.value.message == "no coffee today"
        service.status, service.location = 201, "/orders/1"
        session = await customer.propose_pay(peer, 10, note="two cups")
        step = await customer.pay_step(peer, channel, 10, session)
        await customer.prove(peer, step)
        revocation = customer.revocation(channel, step)
        service.note_status = 503
        with refused("later"):
            await peer.request(wire.PAY_REVOKE, revocation)
        service.note_status = 200
        token = await customer.revoke(peer, channel, step)
        assert token.note == "your coffee is ready"
        assert await peer.request(wire.PAY_REVOKE, revocation) == token
        assert service.asked.count("GET /orders/1") == 2  # one of them failed
        assert "POST /shop/pay?amount=10 two cups" in service.asked

        async def told() -> bool:
            return "DELETE /orders/1?success=true" in service.asked

        await until(told)


async def test_unused_approval_is_told_to_the_service(site: MerchantSite, service: Service) -> None:
    """An approved session that ends unused is reported as a failure, also over a restart."""
    site.write_config(f'[approver]\nurl = "{service.url}"\n[limits]\nsession_lifetime = "1s"\n')
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    service.location = "/orders/2"
    async with customer.connect() as peer:
        await customer.propose_pay(peer, 10)
    daemon.kill()
    site.start()

    async def told() -> bool:
        site.anvil.mine()
        return "DELETE /orders/2?success=false" in service.asked

    await until(told)


async def test_absent_service_means_later(site: MerchantSite, service: Service) -> None:
    """While the service fails, proposals are neither approved nor rejected."""
    site.write_config(f'[approver]\nurl = "{service.url}"\n')
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    service.status = 500
    async with customer.connect() as peer:
        with refused("later"):
            await peer.request(
                wire.ESTABLISH_PROPOSE,
                wire.EstablishProposeParams(customer.account.address, b"\1" * 32, 10, 0),
            )
