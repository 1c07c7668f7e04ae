"""kill -9 at the moments that matter, and what the next start knows."""

from __future__ import annotations

from collections.abc import Awaitable

import psycopg

from tests.merchantd.support import (
    Channel,
    Customer,
    MerchantSite,
    Step,
    refusal,
    refused,
    until,
)
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire import merchant as wire


async def prepared(customer: Customer, peer: Peer) -> tuple[Channel, Step]:
    """A channel with a payment whose proof is made, not sent."""
    channel = await customer.establish(peer, 1_000)
    session = await customer.propose_pay(peer, 10)
    return channel, await customer.pay_step(peer, channel, 10, session)


async def written(site: MerchantSite, statement: str) -> None:
    """Return when the database shows what the statement asks for."""

    async def found() -> bool:
        return bool(site.sql(statement))

    await until(found)


async def test_written_answers_survive_a_kill(site: MerchantSite) -> None:
    """Killed after each write, the answer never read: the repeat gets exactly what was written."""
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel, step = await prepared(customer, peer)
    async with customer.unheard(wire.PAY_PROVE, step.request):
        await written(site, "SELECT 1 FROM payment")
        daemon.kill()
    ((recorded,),) = site.sql("SELECT closing_answer FROM payment")
    daemon = site.start()
    async with customer.connect() as peer:
        assert await customer.prove(peer, step) == recorded
        await customer.propose_pay(peer, 1)  # answered once the new daemon has read the chain
    revocation = customer.revocation(channel, step)
    async with customer.unheard(wire.PAY_REVOKE, revocation):
        await written(site, "SELECT 1 FROM payment WHERE token_answer IS NOT NULL")
        daemon.kill()
    ((recorded,),) = site.sql("SELECT token_answer FROM payment")
    site.start()
    async with customer.connect() as peer:
        token = await customer.revoke(peer, channel, step)
        assert token.token == recorded
        await customer.pay(peer, channel, 5)


async def test_interrupted_writes_leave_nothing_behind(site: MerchantSite) -> None:
    """Killed in the middle of each write, nothing of it is recorded, and the repeat is as new."""
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel, step = await prepared(customer, peer)
    for table, method, params in (
        ("payment", wire.PAY_PROVE, step.request),
        ("lock", wire.PAY_REVOKE, customer.revocation(channel, step)),
    ):
        with psycopg.connect(site.dsn) as blocker:
            blocker.execute(f"LOCK TABLE {table} IN SHARE MODE")
            async with customer.unheard(method, params):
                await written(
                    site,
                    "SELECT 1 FROM pg_locks JOIN pg_class ON relation = pg_class.oid "
                    f"WHERE NOT granted AND relname = '{table}'",
                )
                daemon.kill()
            # The server would notice the end of the connection only when the wait is over.
            site.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        assert site.sql(f"SELECT count(*) FROM {table}") == [(0,)]
        daemon = site.start()
        async with customer.connect() as peer:
            if table == "payment":
                await customer.prove(peer, step)
            else:
                await customer.revoke(peer, channel, step)


async def test_first_records_survive_a_kill(site: MerchantSite) -> None:
    """Killed after the writes of an establish, the channel goes on with the same signatures."""
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    channel = customer.new_channel(1_000)
    async with customer.connect() as peer:
        session = await customer.propose(peer, channel)
        request = await customer.establish_proof(peer, channel, session)
    async with customer.unheard(wire.ESTABLISH_PROVE, request):
        await written(site, "SELECT 1 FROM channel")
        daemon.kill()
    ((recorded,),) = site.sql("SELECT closing_answer FROM channel")
    site.start()
    async with customer.connect() as peer:
        answer = await peer.request(wire.ESTABLISH_PROVE, request)
        assert answer.signature == recorded
        customer.open(channel)
        await customer.activate(peer, channel)


async def test_secret_in_an_interrupted_answer_disputes(site: MerchantSite) -> None:
    """Killed after the secret was written, the old state can still not be closed on."""
    daemon = site.start()
    customer = Customer(site, DEV_KEYS[1])
    async with customer.connect() as peer:
        channel, step = await prepared(customer, peer)
        await customer.prove(peer, step)
        signature = await customer.authorization(peer, channel)
    async with customer.unheard(wire.PAY_REVOKE, customer.revocation(channel, step)):
        await written(site, "SELECT 1 FROM lock")
        daemon.kill()
    assert customer.close(channel.state, signature)
    site.start()

    async def disputed() -> bool:
        return site.channel(channel.number).merchant_balance == 1_000

    await until(disputed)


async def test_records_that_go_back_under_a_merchant_at_work(site: MerchantSite) -> None:
    """After a failover that dropped the newest records nothing new is signed, in open sessions too.

    The establishment that was dropped would get a second first state, on one deposit.
    """
    site.start()
    customer = Customer(site, DEV_KEYS[1])
    witness = site.folder / "merchant.witness"
    async with customer.connect() as peer:
        await customer.establish(peer, 1_000)
        channel = customer.new_channel(100)
        session = await customer.propose(peer, channel)
        proof = await customer.establish_proof(peer, channel, session)

        async def witnessed() -> bool:
            ((verdicts, locks),) = site.sql(_REACHED)
            return witness.exists() and witness.read_text().split()[1:] == [
                str(verdicts),
                str(locks),
            ]

        await until(witnessed)
        remembered = witness.read_text()
        site.sql(
            "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM verdict"
            " WHERE number = (SELECT max(number) FROM verdict); COMMIT"
        )

        proposal = wire.PayProposeParams(amount=1, note="")

        async def noticed() -> bool:
            asked: Awaitable[wire.Proposal] = peer.request(wire.PAY_PROPOSE, proposal)
            return await refusal(asked) == "later"

        await until(noticed)
        with refused("later"):
            await peer.request(wire.ESTABLISH_PROVE, proof)
        assert witness.read_text() == remembered


_REACHED = (
    "SELECT (SELECT coalesce(max(number), 0) FROM verdict),"
    " (SELECT coalesce(max(number), 0) FROM lock)"
)
