"""The merchant against the chain: disputes, claims, funding, reorganisations, a chain that lags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg

from tests.merchantd.pausing import LOCK
from tests.merchantd.support import (
    DELAY,
    MARGIN,
    UNIT,
    Channel,
    Customer,
    MerchantSite,
    refusal,
    refused,
    until,
)
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.escrow import calls
from zkchannels.escrow.artefact import token_deployment_data
from zkchannels.escrow.ethereum import checksum
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.escrow.typed_data import guard_permit_digest
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire import merchant as wire


def reached(
    site: MerchantSite, channel: Channel, status: ChannelStatus
) -> Callable[[], Awaitable[ChannelRecord | None]]:
    """A probe for the contract showing a channel in this status."""

    async def probe() -> ChannelRecord | None:
        record = site.channel(channel.number)
        return record if record.status is status else None

    return probe


async def settled(site: MerchantSite, channel: Channel) -> tuple[int, int]:
    """What both were paid in the end, once it has ended."""
    record = await until(reached(site, channel, ChannelStatus.CLOSED))
    return record.customer_balance, record.merchant_balance


async def stale(customer: Customer, peer: Peer, channel: Channel) -> Callable[[], bool]:
    """Pay, and return what closes on the state that was revoked by that."""
    state, signature = channel.state, await customer.authorization(peer, channel)
    await customer.pay(peer, channel, 400)
    return lambda: customer.close(state, signature)


async def test_close_on_a_revoked_state_is_disputed(site: MerchantSite) -> None:
    """The customer closes on a revoked state: all goes to the merchant, and is recorded so."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        close = await stale(customer, peer, channel)
    assert close()
    assert await settled(site, channel) == (0, 1_000)

    async def recorded() -> bool:
        return bool(site.sql("SELECT 1 FROM channel WHERE final_merchant_balance = 1000"))

    await until(recorded)


async def test_close_while_the_merchant_was_away_is_disputed(site: MerchantSite) -> None:
    """A revoked close during the merchant's absence is disputed late, after the deadline."""
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        close = await stale(customer, peer, channel)
    daemon.kill()
    assert close()
    site.anvil.increase_time(DELAY + MARGIN + 10)
    site.start()
    assert await settled(site, channel) == (0, 1_000)


async def test_close_in_the_middle_of_a_decision_is_claimed(site: MerchantSite) -> None:
    """A close that comes while the watcher finds nothing to do about the channel is not missed."""
    site.start(program="tests.merchantd.pausing")
    customer = Customer(site, DEV_KEYS[1])
    with psycopg.connect(site.dsn, autocommit=True) as holding:
        holding.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        async with customer.connect() as peer:
            channel = await customer.establish(peer, 1_000)
            await customer.pay(peer, channel, 400)

            async def waits() -> bool:
                waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return bool(site.sql(waiting))

            await until(waits)
            assert customer.close(channel.state, await customer.authorization(peer, channel))
        await site.seen(site.anvil.head())
    site.anvil.increase_time(DELAY + MARGIN + 10)
    assert await settled(site, channel) == (600, 400)


async def test_honest_close_is_claimed_after_the_margin(site: MerchantSite) -> None:
    """Both get their shares of an honest close, and nothing is claimed before the margin."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        await customer.pay(peer, channel, 400)
        assert customer.close(channel.state, await customer.authorization(peer, channel))
    site.anvil.increase_time(DELAY + MARGIN // 2)
    await site.seen(site.anvil.head())
    assert site.channel(channel.number).status is ChannelStatus.CLOSING
    site.anvil.increase_time(MARGIN)
    assert await settled(site, channel) == (600, 400)


async def test_closed_state_pays_no_more(site: MerchantSite) -> None:
    """A lock seen in a close is refused for payments, after a claim too."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        await customer.pay(peer, channel, 400)
        session = await customer.propose_pay(peer, 10)
        step = await customer.pay_step(peer, channel, 10, session)
        await customer.prove(peer, step)
        assert customer.close(channel.state, await customer.authorization(peer, channel))
        site.anvil.increase_time(DELAY + MARGIN + 10)
        assert await settled(site, channel) == (600, 400)
        await site.seen(site.anvil.head())
        with refused("lock_used"):
            await peer.request(wire.PAY_REVOKE, customer.revocation(channel, step))
        with refused("channel_unusable"):
            await peer.request(wire.CLOSE_MUTUAL, await customer.mutual(peer, channel))


async def test_secret_shown_after_the_close_is_used(site: MerchantSite) -> None:
    """Who closes on a state and then revokes it is refused the token, and disputed."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        session = await customer.propose_pay(peer, 10)
        step = await customer.pay_step(peer, channel, 10, session)
        await customer.prove(peer, step)
        assert customer.close(channel.state, await customer.authorization(peer, channel))
        await site.seen(site.anvil.head())
        with refused("lock_used"):
            await peer.request(wire.PAY_REVOKE, customer.revocation(channel, step))
    assert await settled(site, channel) == (0, 1_000)


async def test_lock_stays_used_after_a_reorganisation(site: MerchantSite) -> None:
    """A close that is reorganised away leaves its lock used: it can be posted again."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        session = await customer.propose_pay(peer, 10)
        step = await customer.pay_step(peer, channel, 10, session)
        await customer.prove(peer, step)
        assert customer.close(channel.state, await customer.authorization(peer, channel))

        async def entered() -> bool:
            return bool(site.sql("SELECT 1 FROM lock WHERE origin = 'closing'"))

        await until(entered)
        site.anvil.reorg(1)
        site.anvil.mine()
        await site.seen(site.anvil.head())
        assert site.channel(channel.number).status is ChannelStatus.OPEN
        with refused("lock_used"):
            await peer.request(wire.PAY_REVOKE, customer.revocation(channel, step))


async def test_dropped_dispute_is_sent_again(site: MerchantSite) -> None:
    """A dispute that a reorganisation drops, with the close it answers, is made again."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        close = await stale(customer, peer, channel)
    assert close()
    await settled(site, channel)
    site.anvil.reorg(2)
    assert site.channel(channel.number).status is ChannelStatus.OPEN
    assert close()
    assert await settled(site, channel) == (0, 1_000)


async def test_expired_channel_is_claimed(site: MerchantSite) -> None:
    """`expire` waits for the chain; in silence, all is the merchant's after the deadline."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
    assert site.json("list")["channels"][0]["status"] == "active"
    said = site.json("expire", channel.id.hex()[:12])
    assert [row["status"] for row in said["channels"]] == ["expiring"]
    again = site.command("expire", channel.id.hex())
    assert again.returncode == 1
    assert "expiring, not open" in again.stderr
    site.anvil.increase_time(DELAY + MARGIN + 10)
    assert await settled(site, channel) == (0, 1_000)


async def test_close_all_expires_every_open_channel(site: MerchantSite) -> None:
    """`close --all` expires what is open; a customer that closes keeps its share."""
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channels = [await customer.establish(peer, 1_000) for _ in range(2)]
        said = site.json("close", "--all")
        assert [row["status"] for row in said["channels"]] == ["expiring"] * 2
        first = channels[0]
        assert customer.close(first.state, await customer.authorization(peer, first))
    site.anvil.increase_time(DELAY + MARGIN + 10)
    assert await settled(site, channels[1]) == (0, 1_000)
    # Nothing of the first is the merchant's: it leaves the claim to the customer.
    site.anvil.send(customer.account, site.escrow, calls.claim(first.number))
    assert await settled(site, first) == (1_000, 0)


async def test_voided_close_by_a_guard_is_followed_to_the_end(site: MerchantSite) -> None:
    """A guard's close on a revoked state is voided, then the customer's own on it disputed."""
    site.start()
    customer, guard = Customer(site, DEV_KEYS[1]), DEV_KEYS[2]
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        state, signature = channel.state, await customer.authorization(peer, channel)
        await customer.pay(peer, channel, 400)
    site.json("expire", channel.id.hex())
    permit = customer.account.sign_digest(
        guard_permit_digest(
            customer.chain_id, site.escrow, channel.number, state.lock, 1_000, 0, guard.address
        )
    )
    defence = calls.defend(channel.number, state.lock, 1_000, 0, signature, permit)
    assert site.anvil.send(guard, site.escrow, defence).succeeded

    async def voided() -> bool:
        return site.channel(channel.number).guard_struck_off

    await until(voided)
    assert customer.close(state, signature)
    assert await settled(site, channel) == (0, 1_000)


async def test_merchant_funds_what_it_agreed_to(site: MerchantSite) -> None:
    """With a deposit of its own agreed, the merchant funds; under other terms it does not."""
    site.write_config("[limits]\nmaximum_merchant_deposit = 500\n")
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        with refused("rejected"):
            await customer.propose(peer, customer.new_channel(1_000, 501))
        other = customer.new_channel(1_000, 500)
        await customer.agree(peer, other)
        site.anvil.send(
            customer.account, site.escrow, calls.open_(other.salt, 499), value=1_000 * UNIT
        )
        channel = await customer.establish(peer, 1_000, 500)
        await customer.pay(peer, channel, -300 + 400)
    assert site.channel(other.number).status is ChannelStatus.AWAITING_MERCHANT
    assert site.channel(channel.number).merchant_deposit == 500


async def test_token_escrow_is_funded_with_an_approval(site: MerchantSite) -> None:
    """In an escrow of tokens the merchant approves once, funds, and the channel pays."""
    site.dsn = site.fresh_database()
    (site.folder / "merchant.key").unlink()
    token = site.anvil.deploy(DEV_KEYS[3], token_deployment_data())
    customer = Customer(site, DEV_KEYS[1])
    for account in (DEV_KEYS[0], customer.account):
        minted = calls.mint(account.address, 10_000)
        assert site.anvil.send(DEV_KEYS[3], token, minted).succeeded
    site.write_config("[limits]\nmaximum_merchant_deposit = 500\n")
    options = ("--symbol", "TST", "--decimals", "6", "--unit", "2")
    site.init("--token", checksum(token), *options)
    site.start()
    async with customer.connect() as peer:
        channel = customer.new_channel(1_000, 500)
        await customer.agree(peer, channel)
        approval = calls.approve(site.escrow, 2_000)
        assert site.anvil.send(customer.account, token, approval).succeeded
        opening = calls.open_token(channel.salt, 1_000, 500)
        assert site.anvil.send(customer.account, site.escrow, opening).succeeded
        await customer.activate(peer, channel)
        await customer.pay(peer, channel, 7)
    assert calls.decode_number(site.anvil.view(token, calls.balance_of(site.escrow))) == 3_000


async def test_first_token_waits_for_finality(site: MerchantSite) -> None:
    """With `finalized` as measure, no token before the funding's block is final."""
    site.write_config(confirmations='"finalized"')
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = customer.new_channel(1_000)
        await customer.agree(peer, channel)
        customer.open(channel)
        await site.seen(site.anvil.head())
        params = wire.EstablishActivateParams(channel=channel.id)
        pending = await peer.request(wire.ESTABLISH_ACTIVATE, params)
        assert (pending.token, pending.confirmations, pending.required) == (None, 1, 0)
        site.anvil.reorg(1)
        site.anvil.mine(3)
        await site.seen(site.anvil.head())
        assert (await peer.request(wire.ESTABLISH_ACTIVATE, params)).token is None
        customer.open(channel)
        site.anvil.mine(3)
        await customer.activate(peer, channel)


async def test_old_view_of_the_chain_stops_payments(site: MerchantSite) -> None:
    """When no block came for a quarter of the delay, payments wait, and go on with the next."""
    site.dsn = site.fresh_database()
    (site.folder / "merchant.key").unlink()
    site.write_config(margin=2)
    site.init("--delay", "8s")
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await customer.pay(peer, channel, 1)

        other = customer.new_channel(1_000)
        await customer.agree(peer, other)
        activate = wire.EstablishActivateParams(channel=other.id)

        async def lags() -> bool:
            return await refusal(peer.request(wire.ESTABLISH_ACTIVATE, activate)) == "later"

        waiting = await customer.propose_pay(peer, 1)
        late = await customer.pay_step(peer, channel, 1, waiting)
        await until(lags)
        for request in (
            peer.request(wire.PAY_PROPOSE, wire.PayProposeParams(amount=1)),
            peer.request(wire.PAY_PROVE, late.request),
            peer.request(wire.CLOSE_MUTUAL, await customer.mutual(peer, channel)),
        ):
            assert await refusal(request) == "later"
        # What was recorded is answered all the same.
        await peer.request(wire.PAY_PROVE, step.request)
        site.anvil.mine()
        await site.seen(site.anvil.head())
        await customer.prove(peer, late)
        await until(lags)
        with refused("later"):
            await peer.request(wire.PAY_REVOKE, customer.revocation(channel, late))
        site.anvil.mine()
        await site.seen(site.anvil.head())
        await customer.revoke(peer, channel, late)


async def test_one_address_cannot_fill_the_records(site: MerchantSite) -> None:
    """After so many channels and bad proofs in an hour an address waits, others do not."""
    site.write_config("[limits]\nstrikes_per_address = 3\n")
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        await customer.pay(peer, channel, 1)
        for number in range(2):
            session = await customer.propose_pay(peer, 1)
            step = await customer.pay_step(peer, channel, 1, session, attempt=number)
            *kept, last = step.request.proof
            proof = bytes([*kept, last ^ 1])
            bad = wire.PayProveParams(session, step.request.nonce, proof)
            with refused("bad_proof"):
                await peer.request(wire.PAY_PROVE, bad)
        with refused("too_many_sessions"):
            await customer.propose_pay(peer, 1)
    neighbour = Customer(site, DEV_KEYS[1])
    async with neighbour.connect() as peer:
        await neighbour.propose_pay(peer, 1)
