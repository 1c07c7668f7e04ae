"""Establishing channels: repeats, refusals and lies."""

from __future__ import annotations

import asyncio

from tests.merchantd.support import UNIT, Customer, MerchantSite, refused
from zkchannels.abacus import EstablishBlindings
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.escrow import calls
from zkchannels.escrow.typed_data import recovery_digest
from zkchannels.wire import merchant as wire


async def test_hello_tells_the_terms(shared_site: MerchantSite, customer: Customer) -> None:
    """Hello answers with the escrow's terms, and refuses other versions and escrows."""
    async with customer.connect() as peer:
        good = wire.HelloParams(version=1, escrow=shared_site.escrow)
        welcome = await peer.request(wire.HELLO, good)
        assert (welcome.symbol, welcome.unit, welcome.confirmations) == ("ETH", UNIT, 1)
        with refused("version_unsupported"):
            await peer.request(wire.HELLO, wire.HelloParams(version=2, escrow=good.escrow))
        with refused("escrow_unknown"):
            await peer.request(wire.HELLO, wire.HelloParams(version=1, escrow=b"\1" * 20))


async def test_deposits_outside_of_the_limits_are_rejected(customer: Customer) -> None:
    """No deposit of nothing, none by the merchant unless configured, no sum of 2^63."""
    async with customer.connect() as peer:
        for deposits in ((0, 0), (10, 1)):
            with refused("rejected"):
                await customer.propose(peer, customer.new_channel(*deposits))


async def test_repeated_proof_gets_the_same_answer(customer: Customer) -> None:
    """The same establish proof is answered alike on any connection, also in a new session."""
    channel = customer.new_channel(100)
    async with customer.connect() as peer:
        request = await customer.agree(peer, channel)
        first = channel.closing
    async with customer.connect() as peer:
        again = await peer.request(wire.ESTABLISH_PROVE, request)
        session = await customer.propose(peer, channel)
        anew = await customer.establish_proof(peer, channel, session)
        other = await peer.request(wire.ESTABLISH_PROVE, anew)
    assert again.signature == other.signature == first


async def test_channel_is_established_once(customer: Customer) -> None:
    """A channel id with other commitments or deposits is refused, also when both come at once."""
    channel = customer.new_channel(100)
    other = EstablishBlindings(state=5, close=6)
    async with customer.connect() as peer:
        sessions = [await customer.propose(peer, channel) for _ in range(2)]
        both = [
            await customer.establish_proof(peer, channel, sessions[0]),
            await customer.establish_proof(peer, channel, sessions[1], other),
        ]
        results = await asyncio.gather(
            *(peer.request(wire.ESTABLISH_PROVE, request) for request in both),
            return_exceptions=True,
        )
        assert sum(isinstance(result, wire.BlindedAuthorization) for result in results) == 1
        loser = both[[isinstance(r, wire.BlindedAuthorization) for r in results].index(False)]
        with refused("channel_exists"):
            await peer.request(wire.ESTABLISH_PROVE, loser)
        channel.state = channel.secrets.state(0, 0, 99, 0)
        session = await customer.propose(peer, channel)
        with refused("channel_exists"):
            request = await customer.establish_proof(peer, channel, session)
            await peer.request(wire.ESTABLISH_PROVE, request)


async def test_refused_proof_is_refused_for_ever(customer: Customer) -> None:
    """After a bad proof the same commitments are refused, repeated or proven well."""
    channel = customer.new_channel(100)
    async with customer.connect() as peer:
        session = await customer.propose(peer, channel)
        good = await customer.establish_proof(peer, channel, session)
        bad = wire.EstablishProveParams(
            session=session, proof=good.proof[:-1] + bytes([good.proof[-1] ^ 1])
        )
        for _ in range(2):
            with refused("bad_proof"):
                await peer.request(wire.ESTABLISH_PROVE, bad)
        session = await customer.propose(peer, channel)
        with refused("bad_proof"):
            request = await customer.establish_proof(peer, channel, session)
            await peer.request(wire.ESTABLISH_PROVE, request)


async def test_proof_counts_in_its_session_only(customer: Customer) -> None:
    """A proof made for another session is refused, and so is a session that nobody opened."""
    channel = customer.new_channel(100)
    async with customer.connect() as peer:
        first = await customer.propose(peer, channel)
        second = await customer.propose(peer, channel)
        made_for_first = await customer.establish_proof(peer, channel, first)
        moved = wire.EstablishProveParams(session=second, proof=made_for_first.proof)
        with refused("bad_proof"):
            await peer.request(wire.ESTABLISH_PROVE, moved)
        nowhere = wire.EstablishProveParams(session=b"\7" * 16, proof=made_for_first.proof)
        with refused("session_unknown"):
            await peer.request(wire.ESTABLISH_PROVE, nowhere)


async def test_token_only_for_the_agreed_funding(
    shared_site: MerchantSite, customer: Customer
) -> None:
    """Before the funding there is no token; for an escrow that holds less there never is one."""
    channel = customer.new_channel(100)
    activate = wire.EstablishActivateParams(channel=channel.id)
    async with customer.connect() as peer:
        with refused("channel_unknown"):
            await peer.request(wire.ESTABLISH_ACTIVATE, activate)
        await customer.agree(peer, channel)
        assert (await peer.request(wire.ESTABLISH_ACTIVATE, activate)).token is None
        receipt = shared_site.anvil.send(
            customer.account, shared_site.escrow, calls.open_(channel.salt, 0), value=99 * UNIT
        )
        assert receipt.succeeded
        await shared_site.seen(receipt.block_number)
        with refused("channel_unusable"):
            await peer.request(wire.ESTABLISH_ACTIVATE, activate)


async def test_first_token_is_given_once(customer: Customer) -> None:
    """Every activation of one channel gives the same token."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 100)
        params = wire.EstablishActivateParams(channel=channel.id)
        for _ in range(2):
            assert (await peer.request(wire.ESTABLISH_ACTIVATE, params)).token == channel.token


async def test_record_is_given_back_to_the_customer_only(
    shared_site: MerchantSite, customer: Customer
) -> None:
    """establish.recover gives all that was recorded, for a signature of the customer's account."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 100)
        digest = recovery_digest(customer.chain_id, shared_site.escrow, channel.number)
        params = wire.EstablishRecoverParams(
            channel=channel.id, signature=customer.account.sign_digest(digest)
        )
        record = await peer.request(wire.ESTABLISH_RECOVER, params)
        assert (record.customer_deposit, record.merchant_deposit) == (100, 0)
        assert (record.authorization, record.token) == (channel.closing, channel.token)
        for signature in (DEV_KEYS[5].sign_digest(digest), b"\0" * 65):
            stolen = wire.EstablishRecoverParams(channel=channel.id, signature=signature)
            with refused("bad_signature"):
                await peer.request(wire.ESTABLISH_RECOVER, stolen)
