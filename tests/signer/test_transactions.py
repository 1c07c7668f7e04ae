"""What the chain account signs: exactly what the records ask for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customersigner.policy import DEFAULT_DEFENCE_CAP, DEFAULT_FEE_CAP, Fees, Policy
from tests.signer.support import CHAIN, ESCROW, GUARD, TOKEN, UNIT, Channel, Desk, Merchant, refused
from zkchannels.escrow import calls, typed_data
from zkchannels.escrow.ethereum import checksum, recover
from zkchannels.escrow.transaction import decode_raw
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

change = msgspec.structs.replace
VALUE = 1000 * UNIT


def transaction(data: bytes, **changes: Any) -> wire.TransactionParams:
    """A request to sign a call of the escrow."""
    params = wire.TransactionParams(CHAIN, 3, 10**9, 2 * 10**9, 300_000, ESCROW, 0, data)
    return change(params, **changes)


async def signed(desk: Desk, data: bytes, **changes: Any) -> None:
    """Have a call signed and check what came back."""
    params = transaction(data, **changes)
    raw = (await desk.call(wire.TRANSACTION_SIGN, params)).raw
    decoded, sender = decode_raw(raw)
    assert sender == desk.wallet.account.address
    assert Account.recover_transaction(raw) == checksum(sender)
    assert msgspec.structs.asdict(params) == {
        name: getattr(decoded, name) for name in msgspec.structs.asdict(params)
    }


async def sign_refused(desk: Desk, data: bytes, **changes: Any) -> str:
    """The kind of refusal of a call."""
    return await refused(desk.call(wire.TRANSACTION_SIGN, transaction(data, **changes)))


async def test_open_waits_for_the_authorization_and_pays_the_deposit(desk: Desk) -> None:
    """Rule ca0-before-open: no way in without a way out, and exactly the agreed deposits."""
    channel = await desk.channel()
    data = calls.open_(channel.salt, 50)
    assert await sign_refused(desk, data, value=VALUE) == "channel_unknown"
    await channel.prove_establish()
    assert await sign_refused(desk, data, value=VALUE) == "out_of_order"
    await channel.authorize_establish()
    await signed(desk, data, value=VALUE)
    for value in (0, VALUE - 1, VALUE + 1):
        assert await sign_refused(desk, data, value=value) == "not_understood"
    other = calls.open_(channel.salt, 51)
    assert await sign_refused(desk, other, value=VALUE) == "not_understood"
    unknown = calls.open_(bytes(32), 50)
    assert await sign_refused(desk, unknown, value=VALUE) == "channel_unknown"
    token = calls.open_token(channel.salt, 1000, 50)
    assert await sign_refused(desk, token) == "not_understood"


async def test_close_is_the_recorded_one(desk: Desk) -> None:
    """Only the newest authorization is closed on, after the close was written down."""
    channel = await desk.channel()
    first = await channel.establish()
    newest = (await channel.pay(5)).authorization

    def close(authorization: wire.Authorization, **changes: Any) -> bytes:
        stated = change(authorization, **changes)
        return calls.close(
            int.from_bytes(channel.id),
            int.from_bytes(stated.lock),
            stated.customer_balance,
            stated.merchant_balance,
            stated.signature,
        )

    assert await sign_refused(desk, close(newest)) == "out_of_order"
    await channel.close("mutual")
    assert await sign_refused(desk, close(newest)) == "out_of_order"
    await channel.close("unilateral")
    await signed(desk, close(newest))
    assert await sign_refused(desk, close(first)) == "released"
    assert await sign_refused(desk, close(newest, customer_balance=1000)) == "released"
    assert await sign_refused(desk, close(newest, signature=bytes(256))) == "not_understood"
    assert await sign_refused(desk, close(newest), value=1) == "not_understood"


async def test_a_mutual_close_is_on_the_newest_balances(desk: Desk) -> None:
    """Balances, the merchant's agreement and the written intention must all be there."""
    channel = await desk.channel()
    await channel.establish()
    await channel.pay(5)
    number = int.from_bytes(channel.id)
    agreement = channel.merchant.agree(channel.id, 995, 55)
    good = calls.mutual_close(number, 995, 55, agreement)
    assert await sign_refused(desk, good) == "out_of_order"
    await channel.close("unilateral")
    assert await sign_refused(desk, good) == "out_of_order"
    await channel.close("mutual")
    await signed(desk, good)
    stale = calls.mutual_close(number, 1000, 50, channel.merchant.agree(channel.id, 1000, 50))
    assert await sign_refused(desk, stale) == "released"
    wrong = channel.merchant.agree(channel.id, 1000, 50)
    assert await sign_refused(desk, calls.mutual_close(number, 995, 55, wrong)) == "bad_signature"
    zero = calls.mutual_close(number, 995, 55, bytes(64) + b"\x1b")
    assert await sign_refused(desk, zero) == "bad_signature"


async def test_an_adopted_close_is_signed_again_only_after_asking(desk: Desk) -> None:
    """Without any authorization nothing is closed at all."""
    channel = await desk.channel()
    await channel.prove_establish()
    number = int.from_bytes(channel.id)
    assert await sign_refused(desk, calls.close(number, 1, 1, 1, bytes(256))) == "out_of_order"
    mutual = calls.mutual_close(number, 1, 1, bytes(64) + b"\x1b")
    assert await sign_refused(desk, mutual) == "out_of_order"


async def test_the_other_ways_out_of_a_known_channel(desk: Desk) -> None:
    """Claim, reclaim, dispute and withdraw are signed without value, for own channels only."""
    channel = await desk.channel()
    await channel.prove_establish()
    number = int.from_bytes(channel.id)
    account = desk.wallet.account.address
    good = [
        calls.claim(number),
        calls.reclaim(number),
        calls.dispute(number, bytes(32)),
        calls.withdraw(account),
    ]
    for data in good:
        await signed(desk, data)
        assert await sign_refused(desk, data, value=1) == "not_understood"
    for data in (calls.claim(1), calls.reclaim(1), calls.dispute(2**256 - 1, bytes(32))):
        assert await sign_refused(desk, data) == "channel_unknown"


async def test_a_withdrawal_goes_home(desk: Desk) -> None:
    """What the escrow owes is withdrawn to the own account alone."""
    await desk.channel()
    with pytest.raises(RpcError) as caught:
        await desk.call(wire.TRANSACTION_SIGN, transaction(calls.withdraw(GUARD)))
    assert caught.value.data == {
        "kind": "policy_refused",
        "policy": "policy-destination",
        "policy_kind": "permanent",
    }


async def test_a_channel_belongs_to_its_escrow(desk: Desk) -> None:
    """A call of another registered escrow about this channel is refused."""
    channel = await desk.channel()
    await channel.prove_establish()
    other = Merchant(escrow=b"\xe6" * 20)
    await desk.call(wire.ESCROW, other.registration)
    data = calls.claim(int.from_bytes(channel.id))
    assert await sign_refused(desk, data, to=other.escrow) == "channel_unknown"
    assert await sign_refused(desk, data, chain_id=1) == "escrow_unknown"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4,
        calls.fund(1, 1, 1),
        calls.expire(1),
        calls.defend(1, 1, 1, 1, bytes(256), bytes(64) + b"\x1b"),
        calls.transfer(GUARD, 1),
        calls.approve(ESCROW, 1),
        calls.claim(1)[:-1],
        calls.claim(1) + b"\0",
        calls.withdraw(GUARD)[:4] + b"\x01" + calls.withdraw(GUARD)[5:],
    ],
    ids=lambda data: data.hex()[:16],
)
async def test_what_a_customer_does_not_send_is_refused(desk: Desk, data: bytes) -> None:
    """Other calls, malformed arguments and plain transfers are not understood."""
    await desk.channel()
    assert await sign_refused(desk, data) == "not_understood"


@pytest.mark.parametrize("to", [GUARD, bytes(20), TOKEN])
async def test_other_receivers_are_refused(desk: Desk, to: bytes) -> None:
    """Nothing is sent to anything but registered escrows and their tokens."""
    await desk.channel()
    for data in (b"", calls.approve(ESCROW, 0), calls.claim(1)):
        assert await sign_refused(desk, data, to=to) == "escrow_unknown"


async def test_fees_are_capped_and_numbers_checked(desk: Desk) -> None:
    """Price times gas stays within the cap; absurd numbers are refused as such."""
    channel = await desk.channel()
    await channel.authorize_establish()
    data = calls.withdraw(desk.wallet.account.address)
    await signed(desk, data, max_fee=DEFAULT_DEFENCE_CAP // 300_000)
    for over in (
        transaction(data, max_fee=DEFAULT_DEFENCE_CAP // 300_000 + 1),
        transaction(
            calls.open_(channel.salt, 50), value=VALUE, max_fee=DEFAULT_FEE_CAP // 300_000 + 1
        ),
    ):
        with pytest.raises(RpcError) as caught:
            await desk.call(wire.TRANSACTION_SIGN, over)
        assert caught.value.data["policy"] == "policy-fee-cap"
    for changes in (
        {"tip": 3 * 10**9},
        {"nonce": 2**64},
        {"gas": 2**64},
        {"max_fee": 2**256},
        {"value": 2**256},
    ):
        assert await sign_refused(desk, data, **changes) == "invalid"


@pytest.fixture
def free(tmp_path: Path) -> Iterator[Desk]:
    """A signer whose fee cap never speaks."""
    desk = Desk(tmp_path, policy=Policy(fees=Fees(transaction=2**400, defence=2**400)))
    yield desk
    desk.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=600)
    | st.builds(
        lambda selector, body: selector + body,
        st.sampled_from([calls.claim(1)[:4], calls.close(1, 1, 1, 1, bytes(256))[:4]]),
        st.binary(max_size=400),
    ),
    value=st.integers(0, 2**256 - 1),
    to=st.sampled_from([ESCROW, TOKEN, GUARD]),
)
async def test_no_bytes_at_random_are_signed(
    free: Desk, data: bytes, value: int, to: bytes
) -> None:
    """Whatever the call data, the answer is a refusal with a kind, never a crash."""
    await free.call(wire.ESCROW, token_merchant().registration)
    await sign_refused(free, data, value=value, to=to)


@cache
def token_merchant() -> Merchant:
    """A merchant whose escrow holds a token."""
    return Merchant(token=TOKEN)


async def token_channel(desk: Desk) -> Channel:
    """A channel in an escrow of a token, with its first authorization."""
    channel = await desk.channel(token_merchant())
    await channel.authorize_establish()
    return channel


async def test_a_token_channel_opens_without_value(desk: Desk) -> None:
    """Both token openings carry the agreed deposits and no coin."""
    channel = await token_channel(desk)
    permit = bytes(64) + b"\x1b"
    await signed(desk, calls.open_token(channel.salt, 1000, 50))
    await signed(desk, calls.open_permit(channel.salt, 1000, 50, 9, permit))
    for data in (
        calls.open_token(channel.salt, 999, 50),
        calls.open_token(channel.salt, 1000, 49),
        calls.open_permit(channel.salt, 1001, 50, 9, permit),
        calls.open_(channel.salt, 50),
    ):
        assert await sign_refused(desk, data) == "not_understood"
    native = calls.open_(channel.salt, 50)
    assert await sign_refused(desk, native, value=VALUE) == "not_understood"


async def test_approvals_are_bounded_by_the_deposits(desk: Desk) -> None:
    """An approval names the escrow and at most the deposits of channels with a way out."""
    merchant = token_merchant()
    channel = await desk.channel(merchant)
    await channel.prove_establish()
    one = calls.approve(ESCROW, 1)
    assert await sign_refused(desk, one, to=TOKEN) == "not_understood"
    await channel.authorize_establish()
    await signed(desk, calls.approve(ESCROW, VALUE), to=TOKEN)
    await signed(desk, calls.approve(ESCROW, 0), to=TOKEN)
    for data in (
        calls.approve(ESCROW, VALUE + 1),
        calls.approve(ESCROW, 2**256 - 1),
        calls.transfer(ESCROW, 1),
        calls.mint(ESCROW, 1),
    ):
        assert await sign_refused(desk, data, to=TOKEN) == "not_understood"
    assert await sign_refused(desk, calls.approve(GUARD, 1), to=TOKEN) == "escrow_unknown"
    assert await sign_refused(desk, one, to=TOKEN, value=1) == "not_understood"
    second = await desk.channel(merchant, salt=b"\x02" * 32)
    await second.authorize_establish()
    await signed(desk, calls.approve(ESCROW, 2 * VALUE), to=TOKEN)


async def test_permits_are_bounded_like_approvals(desk: Desk) -> None:
    """An EIP-2612 permit is for a registered escrow, its own token and recorded deposits."""
    await token_channel(desk)
    params = wire.TokenPermitParams(CHAIN, ESCROW, TOKEN, "Test Token", "1", VALUE, 0, 10**10)
    answer = await desk.call(wire.TOKEN_PERMIT, params)
    domain = typed_data.domain_separator("Test Token", "1", CHAIN, TOKEN)
    account = desk.wallet.account.address
    digest = typed_data.erc2612_permit_digest(domain, account, ESCROW, VALUE, 0, 10**10)
    assert recover(digest, answer.signature) == account
    for kind, changes in (
        ("invalid", {"value": VALUE + 1}),
        ("invalid", {"token": GUARD}),
        ("invalid", {"deadline": 2**256}),
        ("escrow_unknown", {"escrow": GUARD}),
        ("escrow_unknown", {"chain_id": 1}),
    ):
        asked = desk.call(wire.TOKEN_PERMIT, change(params, **changes))
        assert await refused(asked) == kind


async def test_a_native_escrow_has_no_permits(desk: Desk) -> None:
    """The zero address is no token."""
    channel = await desk.channel()
    await channel.authorize_establish()
    params = wire.TokenPermitParams(CHAIN, ESCROW, bytes(20), "", "", 1, 0, 10**10)
    with pytest.raises(RpcError) as caught:
        await desk.call(wire.TOKEN_PERMIT, params)
    assert kind_of(caught.value) == "invalid"
