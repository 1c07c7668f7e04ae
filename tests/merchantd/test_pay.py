"""Payments: repeats, races and lies; what is recorded once holds for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec

from tests.merchantd.support import Channel, Customer, MerchantSite, Step, refused
from zkchannels.abacus import CLOSE, R, encode_scalar
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire import merchant as wire
from zkchannels.wire.errors import kind_of


async def attempt(
    customer: Customer, peer: Peer, channel: Channel, amount: int, number: int = 0
) -> Step:
    """A payment in a session of its own."""
    session = await customer.propose_pay(peer, amount)
    return await customer.pay_step(peer, channel, amount, session, attempt=number)


async def race(*calls: object) -> tuple[list[object], list[str]]:
    """The answers, and the kinds of the refusals, of requests sent at once."""
    results = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
    answers = [result for result in results if not isinstance(result, BaseException)]
    kinds = [kind_of(result) for result in results if isinstance(result, RpcError)]
    assert len(answers) + len(kinds) == len(results), results
    return answers, kinds


async def test_every_repeat_is_answered_alike(customer: Customer) -> None:
    """Proof and revocation get the same answers again on other connections, also much later."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        closing = await customer.prove(peer, step)
        revocation = customer.revocation(channel, step)
        token = await customer.revoke(peer, channel, step)
        await customer.pay(peer, channel, 5)
    async with customer.connect() as peer:
        for _ in range(2):
            assert (await peer.request(wire.PAY_PROVE, step.request)).signature == closing
            assert await peer.request(wire.PAY_REVOKE, revocation) == token
        record = await peer.request(wire.PAY_RECOVER, wire.PayRecoverParams(revocation.nonce))
    assert (record.amount, record.authorization, record.token) == (10, closing, token.token)


async def test_repeats_at_once_are_answered_alike(customer: Customer) -> None:
    """Ten copies of one request at once get ten times the one recorded answer."""
    async with customer.connect() as peer, customer.connect() as second:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        copies = [each.request(wire.PAY_PROVE, step.request) for each in (peer, second) * 5]
        answers, kinds = await race(*copies)
        assert not kinds
        assert len(set(answers)) == 1  # type: ignore[arg-type]
        revocation = customer.revocation(channel, step)
        copies = [each.request(wire.PAY_REVOKE, revocation) for each in (peer, second) * 5]  # type: ignore[misc]
        answers, kinds = await race(*copies)
        assert not kinds
        assert len({answer.token for answer in answers}) == 1  # type: ignore[attr-defined]


async def test_new_session_continues_the_recorded_payment(customer: Customer) -> None:
    """With a new session of the same amount the stored answer comes, and that session is spent."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        closing = await customer.prove(peer, step)
        session = await customer.propose_pay(peer, 10)
        again = await customer.pay_step(peer, channel, 10, session)
        assert (await peer.request(wire.PAY_PROVE, again.request)).signature == closing
        other = await customer.establish(peer, 1_000)
        reused = await customer.pay_step(peer, other, 10, session)
        with refused("session_unknown"):
            await peer.request(wire.PAY_PROVE, reused.request)
        richer = await customer.propose_pay(peer, 11)
        moved = wire.PayProveParams(
            session=richer, nonce=step.request.nonce, proof=step.request.proof
        )
        with refused("nonce_bound"):
            await peer.request(wire.PAY_PROVE, moved)


async def test_nonce_is_bound_to_its_first_commitments(customer: Customer) -> None:
    """Another attempt on a bound nonce is refused, whether or not the answer had arrived."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        first = await attempt(customer, peer, channel, 10)
        second = await attempt(customer, peer, channel, 20, number=1)
        await customer.prove(peer, first)
        for _ in range(2):
            with refused("nonce_bound"):
                await peer.request(wire.PAY_PROVE, second.request)
        await customer.revoke(peer, channel, first)
        with refused("nonce_bound"):
            await peer.request(wire.PAY_PROVE, second.request)


async def test_one_of_two_requests_with_one_nonce_wins(customer: Customer) -> None:
    """Two different payments from one state at once: one is bound, the other refused."""
    async with customer.connect() as peer, customer.connect() as second:
        channel = await customer.establish(peer, 1_000)
        steps = [await attempt(customer, peer, channel, 10, number) for number in range(4)]
        answers, kinds = await race(
            *(
                each.request(wire.PAY_PROVE, step.request)
                for each, step in zip((peer, second) * 2, steps, strict=True)
            )
        )
        assert len(answers) == 1
        assert kinds == ["nonce_bound"] * 3


async def test_session_serves_one_nonce(customer: Customer) -> None:
    """One approved refund cannot be drawn by two channels, one after the other or at once."""
    async with customer.connect() as peer, customer.connect() as second:
        channels = [await customer.establish(peer, 1_000) for _ in range(2)]
        for channel in channels:
            await customer.pay(peer, channel, 500)
        session = await customer.propose_pay(peer, -100)
        steps = [await customer.pay_step(peer, each, -100, session) for each in channels]
        answers, kinds = await race(
            peer.request(wire.PAY_PROVE, steps[0].request),
            second.request(wire.PAY_PROVE, steps[1].request),
        )
        assert len(answers) == 1
        assert kinds == ["session_unknown"]


async def test_bad_proof_is_final_for_its_commitments(customer: Customer) -> None:
    """After a bad proof its commitments are refused for ever, others from that state are not."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        *kept, last = step.request.proof
        bad = wire.PayProveParams(
            session=step.session, nonce=step.request.nonce, proof=bytes([*kept, last ^ 1])
        )
        for _ in range(2):
            with refused("bad_proof"):
                await peer.request(wire.PAY_PROVE, bad)
        with refused("bad_proof"):
            await peer.request(wire.PAY_PROVE, step.request)
        with refused("bad_proof"):
            again = await attempt(customer, peer, channel, 10)
            await peer.request(wire.PAY_PROVE, again.request)
        other = await attempt(customer, peer, channel, 10, number=1)
        await customer.prove(peer, other)


async def test_lies_about_amount_and_nonce_are_refused(customer: Customer) -> None:
    """A proof for another amount, nonce, or nonce + r is refused, and the CLOSE tag as nonce."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        cheaper = await customer.propose_pay(peer, 100)
        step = await customer.pay_step(peer, channel, 1, cheaper)
        with refused("bad_proof"):
            await peer.request(wire.PAY_PROVE, step.request)
        nonce = channel.state.nonce
        others = [(nonce + 1) % R, CLOSE]
        encoded = [encode_scalar(other) for other in others]
        if nonce + R < 2**256:
            encoded.append((nonce + R).to_bytes(32))
        for wrong in encoded:
            step = await attempt(customer, peer, channel, 1, number=3)
            params = wire.PayProveParams(
                session=step.session, nonce=wrong, proof=step.request.proof
            )
            with refused("bad_proof"):
                await peer.request(wire.PAY_PROVE, params)


async def test_revocation_must_open_the_lock_commitment(customer: Customer) -> None:
    """Unknown nonces and other secrets or blindings are refused, before and after the payment."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        good = customer.revocation(channel, step)
        with refused("nonce_unknown"):
            await peer.request(wire.PAY_REVOKE, good)
        await customer.prove(peer, step)
        wrong = [
            wire.PayRevokeParams(good.nonce, b"\1" * 32, good.lock_blinding),
            wire.PayRevokeParams(good.nonce, good.secret, encode_scalar(1)),
            wire.PayRevokeParams(good.nonce, good.secret, b"\xff" * 32),
        ]
        for params in wrong:
            with refused("bad_opening"):
                await peer.request(wire.PAY_REVOKE, params)
        await customer.revoke(peer, channel, step)
        for params in wrong:
            with refused("bad_opening"):
                await peer.request(wire.PAY_REVOKE, params)


async def test_lock_is_revoked_under_one_nonce(customer: Customer) -> None:
    """Two states with one lock: the second never gets a token, also when both come at once."""
    async with customer.connect() as peer, customer.connect() as second:
        channel = await customer.establish(peer, 1_000)
        twin = customer.new_channel(1_000)
        # A dishonest customer: the first state of both channels has the same secret and lock.
        twin.state = replace(twin.state, lock=channel.state.lock)
        await customer.agree(peer, twin)
        customer.open(twin)
        await customer.activate(peer, twin)
        steps = [await attempt(customer, peer, each, 10) for each in (channel, twin)]
        for step in steps:
            await customer.prove(peer, step)
        secret = channel.secrets.secret(0, 0)
        revocations = [
            wire.PayRevokeParams(step.request.nonce, secret, encode_scalar(step.blindings.lock))
            for step in steps
        ]
        answers, kinds = await race(
            peer.request(wire.PAY_REVOKE, revocations[0]),
            second.request(wire.PAY_REVOKE, revocations[1]),
        )
        assert len(answers) == 1
        assert kinds == ["lock_used"]
        _, kinds = await race(*(peer.request(wire.PAY_REVOKE, each) for each in revocations))
        assert kinds == ["lock_used"]


async def test_mutual_close_burns_the_state(customer: Customer) -> None:
    """After a mutual close was signed, its state can be revoked no more."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        await customer.prove(peer, step)
        await peer.request(wire.CLOSE_MUTUAL, await customer.mutual(peer, channel))
        with refused("lock_used"):
            await peer.request(wire.PAY_REVOKE, customer.revocation(channel, step))


async def test_revoked_state_cannot_be_closed_mutually(customer: Customer) -> None:
    """After a state was revoked, no mutual close on it is signed."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        stale = await customer.mutual(peer, channel)
        await customer.pay(peer, channel, 10)
        with refused("lock_used"):
            await peer.request(wire.CLOSE_MUTUAL, stale)
        await peer.request(wire.CLOSE_MUTUAL, await customer.mutual(peer, channel))


async def test_mutual_close_needs_the_authorization(customer: Customer) -> None:
    """A bad signature, another sum, or not the customer's request burn and sign nothing."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        good = await customer.mutual(peer, channel)
        mine = (good.channel, good.lock)

        def asked(*fields: Any) -> wire.CloseMutualParams:
            return customer.asking(wire.CloseMutualParams(*fields, bytes(65)))

        wrong = [
            asked(*mine, 999, 1, good.signature),
            asked(*mine, 999, 0, good.signature),
            asked(good.channel, b"\xff" * 32, 1_000, 0, good.signature),
            asked(*mine, 1_000, 0, bytes(256)),
            msgspec.structs.replace(good, request=bytes(65)),
            msgspec.structs.replace(good, request=asked(*mine, 999, 1, good.signature).request),
        ]
        for params in wrong:
            with refused("bad_signature"):
                await peer.request(wire.CLOSE_MUTUAL, params)
        await customer.pay(peer, channel, 10)


async def test_refunds_need_approval(customer: Customer) -> None:
    """Automatic approval refuses refunds above its limit and payments of nothing."""
    async with customer.connect() as peer:
        for amount in (-1_001, 0):
            with refused("rejected"):
                await customer.propose_pay(peer, amount)


async def test_expired_session_is_forgotten(shared_site: MerchantSite, customer: Customer) -> None:
    """After its time a session is unknown for good; the same commitments pay in a new one."""
    async with customer.connect() as peer:
        channel = await customer.establish(peer, 1_000)
        step = await attempt(customer, peer, channel, 10)
        expire = "UPDATE session SET expires = now() - interval '1 second' WHERE id = %s"
        shared_site.sql(expire, step.session)
        with refused("session_unknown"):
            await peer.request(wire.PAY_PROVE, step.request)
        again = await attempt(customer, peer, channel, 10)
        await customer.prove(peer, again)


async def test_open_sessions_of_one_address_are_bounded(
    shared_site: MerchantSite, customer: Customer
) -> None:
    """Of a hundred proposals from one address at most 64 are held, others are not affected."""
    async with customer.connect() as peer:
        _, kinds = await race(*(customer.propose_pay(peer, 1) for _ in range(100)))
        assert set(kinds) == {"too_many_sessions"}
        full = []
        while not full:
            _, full = await race(customer.propose_pay(peer, 1))
        assert full == ["too_many_sessions"]
    held = shared_site.sql("SELECT count(*) FROM session WHERE source = %s", customer.source)
    assert held == [(64,)]
    neighbour = Customer(shared_site, customer.account)
    async with neighbour.connect() as peer:
        await neighbour.propose_pay(peer, 1)
