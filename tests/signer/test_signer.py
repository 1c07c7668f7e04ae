"""The signer's methods with real cryptography: whole channels, repeats, and every refusal."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from customersigner.derivation import Wallet
from customersigner.policy import COIN, Limits, Policy
from tests.signer.support import (
    CHAIN,
    ENTROPY,
    ESCROW,
    GUARD,
    UNIT,
    Channel,
    Desk,
    Merchant,
    refused,
)
from zkchannels import abacus
from zkchannels.amounts import Asset
from zkchannels.escrow import typed_data
from zkchannels.escrow.ethereum import recover
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

change = msgspec.structs.replace


def close_state(channel: Channel, authorization: wire.Authorization) -> abacus.CloseState:
    """What an authorization lets close on."""
    return abacus.CloseState(
        int.from_bytes(channel.id),
        int.from_bytes(authorization.lock),
        authorization.customer_balance,
        authorization.merchant_balance,
    )


async def test_a_channel_lives_and_its_authorizations_hold(desk: Desk) -> None:
    """Establish, payments and a refund give authorizations as the contract takes them."""
    channel = await desk.channel()
    given = [await channel.establish()]
    given += [(await channel.pay(amount)).authorization for amount in (100, -40, 0, 1)]
    for authorization in given:
        state = close_state(channel, authorization)
        assert abacus.verify_closing(channel.merchant.key.public, state, authorization.signature)
        digest = typed_data.guard_permit_digest(
            CHAIN,
            ESCROW,
            state.channel_id,
            state.lock,
            state.customer_balance,
            state.merchant_balance,
            GUARD,
        )
        assert recover(digest, authorization.permit) == channel.account
    assert [(a.customer_balance, a.merchant_balance) for a in given] == [
        (1000, 50),
        (900, 150),
        (940, 110),
        (940, 110),
        (939, 111),
    ]
    record = await channel.record()
    assert (record.released, record.completed, record.closing) == (3, 4, None)
    assert record.authorization == given[-1]
    assert await channel.close() == given[-1]
    assert (await channel.record()).closing == 4


async def test_repeats_answer_the_same_and_make_proofs_anew(desk: Desk) -> None:
    """A repeated proof has the same commitments under fresh masks; all else is byte for byte."""
    channel = await desk.channel()
    first = await channel.prove_establish()
    channel.merchant.session = b"\x45" * 16
    assert await channel.prove_establish() == first
    await channel.establish()
    one, commitments = await channel.prove_pay(5)
    assert await channel.prove_establish() == first
    channel.merchant.session = b"\x46" * 16
    other, again = await channel.prove_pay(5)
    assert (one.nonce, commitments) == (other.nonce, again)
    assert one.proof != other.proof
    token = channel.token
    answer = await channel.authorize_pay(5)
    repeat = channel.authorization_params(1, 0, bytes(96))
    assert await desk.call(wire.PAY_AUTHORIZE, repeat) == answer
    params = change(channel.pay_params(5), index=1, token=token, operation=b"\x01\x00" * 8)
    assert (await desk.call(wire.PAY_PROVE, params)).nonce == one.nonce


async def test_a_restarted_signer_goes_on(desk: Desk) -> None:
    """After a restart on the same store every repeat answers the same and payments go on."""
    channel = await desk.channel()
    await channel.establish()
    answer = await channel.authorize_pay(5)
    desk.close()
    desk.open()
    repeat = channel.authorization_params(1, 0, bytes(96))
    assert await desk.call(wire.PAY_AUTHORIZE, repeat) == answer
    await desk.call(wire.PAY_COMPLETE, wire.CompleteParams(channel.id, 1, 0, channel.token))
    await channel.pay(6)
    assert (await channel.record()).released == 1


async def test_another_guard_gets_a_permit_for_the_same_authorization(desk: Desk) -> None:
    """A new guard account changes the permit and nothing else."""
    channel = await desk.channel()
    first = await channel.establish()
    repeat = channel.authorization_params(0, 0, bytes(96), guard=b"\x6b" * 20)
    second = await desk.call(wire.ESTABLISH_AUTHORIZE, repeat)
    assert second.permit != first.permit
    assert change(second, guard=first.guard, permit=first.permit) == first
    assert (await channel.record()).authorization == second


async def test_another_attempt_after_a_refusal(desk: Desk) -> None:
    """A refused attempt is followed by another amount; the accepted one counts."""
    channel = await desk.channel()
    await channel.establish()
    await channel.prove_pay(900)
    await channel.pay(7, attempt=1)
    assert channel.balances == [993, 57]
    await channel.pay(3)
    record = await channel.record()
    assert record.reached == record.proved
    assert record.previous == wire.Proved(1, 1, b"\x01\x01" * 8, 7)


async def test_the_first_accepted_attempt_wins(desk: Desk) -> None:
    """An authorization of an older recorded attempt is accepted; then the newer one is refused."""
    channel = await desk.channel()
    await channel.establish()
    _, late = await channel.prove_pay(10)
    _, commitments = await channel.prove_pay(20, attempt=1)
    key = channel.merchant.key
    first = channel.authorization_params(1, 0, key.blind_sign(late.close))
    assert (await desk.call(wire.PAY_AUTHORIZE, first)).authorization.customer_balance == 990
    second = channel.authorization_params(1, 1, key.blind_sign(commitments.close))
    assert await refused(desk.call(wire.PAY_AUTHORIZE, second)) == "out_of_order"


async def test_a_secret_waits_for_a_signature_that_verifies(desk: Desk) -> None:
    """A wrong closing authorization releases nothing and leaves the record as it was."""
    channel = await desk.channel()
    await channel.establish()
    _, commitments = await channel.prove_pay(10)
    before = await channel.record()
    key = channel.merchant.key
    other = abacus.SecretKey.generate()
    for signature in (
        bytes(96),
        b"\xff" * 96,
        key.blind_sign(commitments.state),
        other.blind_sign(commitments.close),
        channel.token,
    ):
        params = channel.authorization_params(1, 0, signature)
        assert await refused(desk.call(wire.PAY_AUTHORIZE, params)) == "bad_signature"
    assert await channel.record() == before
    asked = desk.call(wire.DISPUTE_SECRET, wire.DisputeParams(channel.id, 0, 0))
    assert await refused(asked) == "out_of_order"


async def test_a_wrong_token_binds_nothing(desk: Desk) -> None:
    """Tokens are checked on arrival and when they are spent; a wrong one leaves no attempt."""
    channel = await desk.channel()
    await channel.authorize_establish()
    for token in (bytes(96), channel.merchant.key.blind_sign(abacus_point(channel))):
        params = wire.CompleteParams(channel.id, 0, 0, token)
        assert await refused(desk.call(wire.ESTABLISH_COMPLETE, params)) == "bad_signature"
    assert (await channel.record()).completed is None
    await channel.establish()
    before = await channel.record()
    asked = desk.call(wire.PAY_PROVE, channel.pay_params(5, token=b"\x01" * 96))
    assert await refused(asked) == "bad_signature"
    assert await channel.record() == before


def abacus_point(channel: Channel) -> bytes:
    """Some valid commitment that is none of this channel's."""
    return channel.merchant.key.public.to_bytes()[:48]


async def test_a_released_secret_is_given_again(desk: Desk) -> None:
    """Secrets of revoked states are answered for a dispute, the newest one's never."""
    channel = await desk.channel()
    await channel.establish()
    secrets = [(await channel.pay(1)).secret for _ in range(3)]
    for index, secret in enumerate(secrets):
        params = wire.DisputeParams(channel.id, index, 0)
        assert (await desk.call(wire.DISPUTE_SECRET, params)).secret == secret
    params = wire.DisputeParams(channel.id, 3, 0)
    assert await refused(desk.call(wire.DISPUTE_SECRET, params)) == "out_of_order"


async def test_a_close_on_an_old_state_is_answered_with_the_newer_record(desk: Desk) -> None:
    """A restored daemon is told what it does not know, authorization included."""
    channel = await desk.channel()
    await channel.establish()
    await channel.pay(5)
    with pytest.raises(RpcError) as caught:
        await channel.close(index=0)
    assert kind_of(caught.value) == "newer_state"
    record = msgspec.convert(caught.value.data["record"], wire.Record)
    assert record == await channel.record()
    assert await refused(channel.close(index=2)) == "out_of_order"


async def test_a_signed_close_ends_payments(desk: Desk) -> None:
    """After a close, mutual or not, no payment is prepared and no authorization accepted."""
    channel = await desk.channel()
    await channel.establish()
    await channel.pay(5)
    _, commitments = await channel.prove_pay(6)
    await channel.close("mutual")
    assert await refused(desk.call(wire.PAY_PROVE, channel.pay_params(6))) == "closing"
    late = channel.authorization_params(2, 0, channel.merchant.key.blind_sign(commitments.close))
    assert await refused(desk.call(wire.PAY_AUTHORIZE, late)) == "closing"
    assert await channel.close("unilateral") == (await channel.record()).authorization


UNKNOWN = b"\x77" * 32


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (wire.ESTABLISH_AUTHORIZE, wire.AuthorizeParams(UNKNOWN, 0, 0, bytes(96), GUARD)),
        (wire.ESTABLISH_COMPLETE, wire.CompleteParams(UNKNOWN, 0, 0, bytes(96))),
        (wire.PAY_PROVE, wire.PayProveParams(UNKNOWN, 1, 0, bytes(16), 1, bytes(16), bytes(96))),
        (wire.PAY_AUTHORIZE, wire.AuthorizeParams(UNKNOWN, 1, 0, bytes(96), GUARD)),
        (wire.PAY_COMPLETE, wire.CompleteParams(UNKNOWN, 1, 0, bytes(96))),
        (wire.CLOSE_AUTHORIZE, wire.CloseAuthorizeParams(UNKNOWN, 0, "mutual", GUARD)),
        (wire.DISPUTE_SECRET, wire.DisputeParams(UNKNOWN, 0, 0)),
        (wire.RECOVER_NONCE, wire.RecoverNonceParams(UNKNOWN, 0)),
        (
            wire.RECOVER_PAY,
            wire.RecoverPayParams(
                UNKNOWN, 1, bytes(16), 1, bytes(48), bytes(48), bytes(48), bytes(96), GUARD
            ),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_unknown_channels_are_refused(desk: Desk, method: Any, params: Any) -> None:
    """Every method about a channel refuses one that was never proved."""
    assert "channel_unknown" in method.errors
    assert await refused(desk.call(method, params)) == "channel_unknown"


async def test_steps_out_of_order_are_refused(desk: Desk) -> None:
    """No step is taken before the one it builds on, and establish ends at state 0."""
    channel = await desk.channel()
    commitments = await channel.prove_establish()
    blind = channel.merchant.key.blind_sign
    call, out = desk.call, "out_of_order"
    early = channel.pay_params(5, token=bytes(96))
    assert await refused(call(wire.PAY_PROVE, early)) == out
    assert await refused(channel.close()) == out
    token = wire.CompleteParams(channel.id, 0, 0, blind(commitments.state))
    assert await refused(call(wire.ESTABLISH_COMPLETE, token)) == out
    close = blind(commitments.close)
    for index, attempt, method in (
        (0, 1, wire.ESTABLISH_AUTHORIZE),
        (1, 0, wire.ESTABLISH_AUTHORIZE),
        (0, 0, wire.PAY_AUTHORIZE),
        (1, 0, wire.PAY_AUTHORIZE),
    ):
        params = channel.authorization_params(index, attempt, close)
        assert await refused(call(method, params)) == out
    await channel.authorize_establish()
    assert await refused(call(wire.PAY_PROVE, channel.pay_params(5))) == out
    assert await refused(call(wire.ESTABLISH_COMPLETE, change(token, index=1))) == out
    await call(wire.ESTABLISH_COMPLETE, change(token, token=channel.token))
    assert await refused(call(wire.PAY_PROVE, channel.pay_params(5, index=2))) == out
    assert await refused(call(wire.PAY_PROVE, channel.pay_params(5, index=0))) == out


async def test_a_channel_id_stands_for_its_terms(desk: Desk) -> None:
    """An id of other terms, unregistered escrows, other deposits and operations are refused."""
    channel = await desk.channel()
    await channel.prove_establish()
    params = channel.establish_params
    prove = wire.ESTABLISH_PROVE
    assert await refused(desk.call(prove, change(params, channel=UNKNOWN))) == "invalid"
    assert await refused(desk.call(prove, change(params, salt=UNKNOWN))) == "invalid"
    assert await refused(desk.call(prove, change(params, chain_id=1))) == "escrow_unknown"
    for other in ({"customer_deposit": 2}, {"merchant_deposit": 2}, {"operation": bytes(16)}):
        assert await refused(desk.call(prove, change(params, **other))) == "already_different"
    large = channel.merchant
    fresh = Channel(desk.call, large, channel.account, salt=b"\x01" * 32, deposits=(2**63 - 1, 1))
    assert await refused(desk.call(prove, fresh.establish_params)) == "invalid"
    await channel.establish()
    await channel.pay(1)
    assert await refused(desk.call(prove, params)) == "out_of_order"


async def test_amounts_beyond_the_balances_are_refused(desk: Desk) -> None:
    """The signer knows the balances itself, whatever the daemon asks for."""
    channel = await desk.channel()
    await channel.establish()
    for amount in (1001, -51, 2**63 - 1, -(2**63 - 1)):
        asked = desk.call(wire.PAY_PROVE, channel.pay_params(amount))
        assert await refused(asked) == "invalid"


async def test_an_attempt_is_bound_to_its_payment(desk: Desk) -> None:
    """Another amount or operation under a used (index, attempt) is refused, before and after."""
    channel = await desk.channel()
    await channel.establish()
    token = channel.token
    for _ in range(2):
        await channel.prove_pay(5) if channel.index == 0 else None
        params = change(channel.pay_params(5), index=1, operation=b"\x01\x00" * 8, token=token)
        for other in ({"amount": 6}, {"operation": bytes(16)}):
            asked = desk.call(wire.PAY_PROVE, change(params, **other))
            assert await refused(asked) == "already_different"
        if channel.index == 0:
            await channel.authorize_pay(5)


async def test_keys_are_checked_and_kept(desk: Desk) -> None:
    """Malformed or mismatched halves are refused; a registered escrow never changes."""
    merchant, other = Merchant(), Merchant(escrow=b"\xe6" * 20)
    good = merchant.registration
    flipped = bytearray(good.escrow_key)
    flipped[300] ^= 1
    for bad in (
        {"g1_half": other.registration.g1_half},
        {"escrow_key": other.registration.escrow_key},
        {"g1_half": bytes(240)},
        {"escrow_key": bytes(flipped)},
        {"escrow_key": good.escrow_key[256:512] + good.escrow_key[256:]},
        {"unit": 2**128 + 1},
    ):
        assert await refused(desk.call(wire.ESCROW, change(good, **bad))) == "bad_key"
    await desk.call(wire.ESCROW, good)
    await desk.call(wire.ESCROW, good)
    for field, value in (("merchant", GUARD), ("token", GUARD), ("unit", 7)):
        asked = desk.call(wire.ESCROW, change(good, **{field: value}))
        assert await refused(asked) == "already_different"
    replaced = change(other.registration, escrow=ESCROW)
    assert await refused(desk.call(wire.ESCROW, replaced)) == "already_different"


async def test_a_refused_key_is_not_used_later(desk: Desk) -> None:
    """A failed registration leaves no escrow behind."""
    merchant = Merchant()
    bad = change(merchant.registration, g1_half=Merchant().registration.g1_half)
    assert await refused(desk.call(wire.ESCROW, bad)) == "bad_key"
    channel = Channel(desk.call, merchant, desk.wallet.account.address)
    asked = desk.call(wire.ESTABLISH_PROVE, channel.establish_params)
    assert await refused(asked) == "escrow_unknown"


def proved_with(proved: wire.Proved, proof: bytes) -> wire.ProvedWith:
    """An attempt with the commitments in its proof."""
    shown = [proof[start : start + 48] for start in (96, 144, 192)]
    return wire.ProvedWith(*msgspec.structs.astuple(proved), *shown)


def adoption(record: wire.Record, proof: bytes = bytes(240), **changes: Any) -> wire.AdoptParams:
    """What a daemon that knows all of a record would have a signer adopt."""
    assert record.authorization is not None
    assert record.reached is not None
    params = wire.AdoptParams(
        channel=record.channel,
        chain_id=record.chain_id,
        escrow=record.escrow,
        salt=record.salt,
        customer_deposit=record.customer_deposit,
        merchant_deposit=record.merchant_deposit,
        authorization=record.authorization,
        reached=record.reached,
        previous=record.previous,
        proved=None if record.proved == record.reached else proved_with(record.proved, proof),
        released=record.released,
        completed=record.completed,
        closing=record.closing,
    )
    return change(params, **changes)


@pytest.fixture
def empty(tmp_path: Path) -> Any:
    """A signer of the same wallet that has forgotten everything."""
    folder = tmp_path / "empty"
    folder.mkdir()
    desk = Desk(folder)
    yield desk
    desk.close()


@pytest.mark.parametrize("payments", [0, 1, 3])
async def test_a_forgetful_signer_is_fast_forwarded_and_pays_on(
    desk: Desk, empty: Desk, payments: int
) -> None:
    """From the daemon's knowledge alone a restored signer repeats, pays and closes as before."""
    channel = await desk.channel()
    last: Any = await channel.establish()
    for amount in range(payments):
        last = await channel.pay(amount)
    proof, _ = await channel.prove_pay(33)
    record = await channel.record()
    await empty.call(wire.ESCROW, channel.merchant.registration)
    await empty.call(wire.ADOPT, adoption(record, proof.proof))
    assert (await empty.call(wire.RECORDS, wire.RecordsParams())).records == [record]
    channel.call = empty.call
    if payments:
        repeat = channel.authorization_params(payments, 0, bytes(96))
        assert await empty.call(wire.PAY_AUTHORIZE, repeat) == last
    asked = empty.call(wire.PAY_PROVE, channel.pay_params(34))
    assert await refused(asked) == "already_different"
    await channel.pay(33)
    await channel.pay(-5)
    assert (await channel.close()).customer_balance == channel.balances[0]


async def test_only_true_records_are_adopted(desk: Desk, empty: Desk) -> None:
    """What does not verify, add up or belong to this wallet is not adopted."""
    channel = await desk.channel()
    await channel.establish()
    first = await channel.record()
    await channel.pay(5)
    record = await channel.record()
    stated = record.authorization
    assert stated is not None
    assert first.authorization is not None
    assert await refused(empty.call(wire.ADOPT, adoption(record))) == "escrow_unknown"
    await empty.call(wire.ESCROW, channel.merchant.registration)
    forged = bytes([*stated.signature[:-1], stated.signature[-1] ^ 1])
    for kind, changes in (
        ("bad_signature", {"authorization": change(stated, signature=forged)}),
        ("bad_signature", {"authorization": change(stated, lock=first.authorization.lock)}),
        (
            "bad_signature",
            {"authorization": change(stated, customer_balance=1000, merchant_balance=50)},
        ),
        ("invalid", {"authorization": change(stated, customer_balance=996)}),
        ("invalid", {"channel": UNKNOWN}),
        ("invalid", {"reached": change(record.reached, attempt=1)}),
        ("invalid", {"reached": change(record.reached, amount=100)}),
        ("invalid", {"previous": None}),
        ("invalid", {"previous": record.reached}),
        ("invalid", {"proved": proved_with(record.reached, bytes(240))}),
        ("foreign", {"proved": proved_with(change(record.reached, index=2), bytes(240))}),
        ("invalid", {"released": 1}),
        ("invalid", {"completed": 2}),
        ("invalid", {"closing": 2}),
    ):
        asked = empty.call(wire.ADOPT, adoption(record, **changes))
        assert await refused(asked) == kind, changes
    assert not (await empty.call(wire.RECORDS, wire.RecordsParams())).records
    assert await refused(desk.call(wire.ADOPT, adoption(first))) == "out_of_order"
    await desk.call(wire.ADOPT, adoption(record))


async def test_records_come_in_pages(desk: Desk) -> None:
    """Pages follow the order of ids; the last one is shorter."""
    merchant = Merchant()
    for number in range(5):
        channel = await desk.channel(merchant, salt=bytes([number]) * 32)
        await channel.prove_establish()
    seen: list[bytes] = []
    while True:
        after = seen[-1] if seen else b""
        page = (await desk.call(wire.RECORDS, wire.RecordsParams(after, 2))).records
        seen += [record.channel for record in page]
        if len(page) < 2:
            break
    assert len(seen) == 5
    assert seen == sorted(seen)


async def test_the_recovery_credential_is_the_customers(desk: Desk) -> None:
    """It recovers to the chain account, over this channel alone."""
    channel = await desk.channel()
    await channel.prove_establish()
    answer = await desk.call(wire.RECOVER_SIGN, wire.RecoverParams(channel.id, CHAIN, ESCROW))
    digest = typed_data.recovery_digest(CHAIN, ESCROW, int.from_bytes(channel.id))
    assert recover(digest, answer.signature) == channel.account


async def test_a_failing_disk_gives_nothing_away(desk: Desk) -> None:
    """When the record cannot be written, nothing leaves; afterwards the same request succeeds."""
    channel = await desk.channel()
    await channel.establish()
    _, commitments = await channel.prove_pay(5)
    before = await channel.record()
    params = channel.authorization_params(1, 0, channel.merchant.key.blind_sign(commitments.close))
    blocker = sqlite3.connect(desk.folder / "signer.sqlite", isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        desk.store._connection.execute("PRAGMA busy_timeout = 0")
        assert await refused(desk.call(wire.PAY_AUTHORIZE, params)) == "unavailable"
        assert await refused(channel.close()) == "unavailable"
        assert await channel.record() == before
    finally:
        blocker.close()
    assert (await desk.call(wire.PAY_AUTHORIZE, params)).authorization.index == 1


@pytest.fixture
def strict(tmp_path: Path) -> Any:
    """A signer that pays at most 10 at a time, in one escrow."""
    limits = Limits(asset=Asset("ETH", 18, 1), payment=10 * UNIT)
    desk = Desk(tmp_path, policy=Policy(assets={COIN: limits}, escrows={ESCROW: "coffee"}))
    yield desk
    desk.close()


async def test_policies_refuse_by_name(strict: Desk) -> None:
    """A policy refuses with its stable name in the error, and is announced under it."""
    channel = await strict.channel()
    await channel.establish()
    await channel.pay(10)
    await channel.pay(-20)
    other = Merchant(escrow=b"\xe6" * 20)
    for method, params, name in (
        (wire.PAY_PROVE, channel.pay_params(11), "policy-payment-limit"),
        (wire.ESCROW, other.registration, "policy-escrow-not-allowed"),
    ):
        with pytest.raises(RpcError) as caught:
            await strict.call(method, params)
        assert kind_of(caught.value) == "policy_refused"
        assert caught.value.data["policy"] == name
        assert name in strict.policy.names


async def test_a_payment_made_before_a_stricter_policy_is_repeated(desk: Desk) -> None:
    """A limit refuses new payments, never the repeat of one whose proof left."""
    channel = await desk.channel()
    await channel.establish()
    await channel.prove_pay(500)
    desk.close()
    limits = Limits(asset=Asset("ETH", 18, 1), payment=0)
    desk.policy = Policy(assets={COIN: limits}, escrows={})
    desk.open()
    await channel.pay(500)
    assert await refused(desk.call(wire.PAY_PROVE, channel.pay_params(1))) == "policy_refused"


async def test_secrets_are_not_in_the_store_or_in_any_repr(desk: Desk) -> None:
    """Nothing that opens a lock, hides a channel or holds the seed is on the disk or in a repr."""
    secrets: list[bytes] = [ENTROPY]
    channel = await desk.channel()
    own = Wallet(ENTROPY).channel(int.from_bytes(channel.id))
    shown: list[object] = [await channel.establish(), desk.signer, desk.wallet, own]
    for index in range(3):
        proof, _ = await channel.prove_pay(1)
        answer = await channel.pay(1)
        shown += [proof, answer]
        secrets += [answer.secret, answer.nonce, answer.lock_blinding]
        blindings = own.pay_blindings(index + 1, 0, 1)
        scalars = (blindings.state, blindings.close, blindings.lock)
        secrets += [abacus.encode_scalar(scalar) for scalar in scalars]
    shown += [await channel.close(), desk.store.channel(channel.id), await channel.record()]
    disk = b"".join(path.read_bytes() for path in desk.folder.iterdir())
    text = "\n".join(map(repr, shown))
    for secret in secrets:
        assert secret not in disk
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
        assert str(int.from_bytes(secret)) not in text
