"""A signer without its record takes it back from what a merchant kept, and takes nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from customersigner.decide import FORGOTTEN_ATTEMPTS
from customersigner.derivation import Wallet
from tests.signer.support import (
    CHAIN,
    ENTROPY,
    ESCROW,
    GUARD,
    Channel,
    Desk,
    Merchant,
    plain,
    refused,
)
from zkchannels import abacus
from zkchannels.escrow import typed_data
from zkchannels.escrow.ethereum import recover
from zkchannels.wire import signer as wire

NEW = b"\x99" * 16
change = msgspec.structs.replace


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Desk]:
    """The same wallet on another machine, with an empty record."""
    folder = tmp_path / "other"
    folder.mkdir()
    desk = Desk(folder)
    yield desk
    desk.close()


def first_record(channel: Channel, merchant: Merchant) -> wire.RecoverEstablishParams:
    """What an honest merchant kept of the establishment."""
    secrets = Wallet(ENTROPY).channel(int.from_bytes(channel.id))
    made = abacus.establish_commitments(
        merchant.key.public, secrets.state(0, 0, *channel.deposits), secrets.establish_blindings()
    )
    return wire.RecoverEstablishParams(
        channel.id,
        CHAIN,
        ESCROW,
        channel.salt,
        *channel.deposits,
        NEW,
        made.state,
        made.close,
        merchant.key.blind_sign(made.close),
        GUARD,
    )


def payment_record(
    channel: Channel, index: int, amount: int, commitments: abacus.PayCommitments
) -> wire.RecoverPayParams:
    """What an honest merchant kept of a payment."""
    signature = channel.merchant.key.blind_sign(commitments.close)
    return wire.RecoverPayParams(
        channel.id,
        index,
        NEW,
        amount,
        commitments.state,
        commitments.close,
        commitments.lock,
        signature,
        GUARD,
    )


async def pay_on_record(channel: Channel, amount: int, attempt: int = 0) -> wire.RecoverPayParams:
    """Make a payment; return what the merchant kept of it."""
    _, commitments = await channel.prove_pay(amount, attempt)
    kept = payment_record(channel, channel.index + 1, amount, commitments)
    await channel.pay(amount, attempt)
    return kept


async def walked(desk: Desk, merchant: Merchant, first: Any, *payments: Any) -> wire.Record:
    """Take everything back."""
    await desk.call(wire.ESCROW, merchant.registration)
    record: wire.Record = await desk.call(wire.RECOVER_ESTABLISH, first)
    for payment in payments:
        record = await desk.call(wire.RECOVER_PAY, payment)
    return record


async def test_the_words_alone_bring_a_channel_back(desk: Desk, other: Desk) -> None:
    """A payment, a refund and a second attempt are walked through; then the channel pays on."""
    channel = await desk.channel()
    await channel.establish()
    kept = [await pay_on_record(channel, 100)]
    await channel.prove_pay(7)
    kept.append(await pay_on_record(channel, -40, attempt=1))
    original = await channel.record()
    record = await walked(other, channel.merchant, first_record(channel, channel.merchant), *kept)
    assert record.authorization is not None
    assert original.authorization is not None
    assert (record.authorization.lock, record.authorization.attempt) == (
        original.authorization.lock,
        original.authorization.attempt,
    )
    assert (record.authorization.customer_balance, record.authorization.merchant_balance) == (
        940,
        110,
    )
    assert await walked(other, channel.merchant, first_record(channel, channel.merchant)) == record
    assert await other.call(wire.RECOVER_PAY, kept[-1]) == record
    channel.call = other.call
    await other.call(wire.PAY_COMPLETE, wire.CompleteParams(channel.id, 2, 1, channel.token))
    await channel.pay(5)
    assert channel.balances == [935, 115]


async def test_records_that_are_not_ours_change_nothing(desk: Desk, other: Desk) -> None:
    """Garbage, another amount, another channel's record and a wrong signature are all refused."""
    channel = await desk.channel()
    merchant = channel.merchant
    await channel.establish()
    kept = await pay_on_record(channel, 100)
    stranger = await desk.channel(merchant, salt=b"\x5b" * 32)
    await stranger.establish()
    others = await pay_on_record(stranger, 100)
    first = first_record(channel, merchant)
    await other.call(wire.ESCROW, merchant.registration)
    ask = other.call
    point = first.state_commitment
    assert await refused(ask(wire.RECOVER_PAY, kept)) == "channel_unknown"
    for wrong in (
        change(first, close_commitment=point),
        change(first_record(stranger, merchant), channel=channel.id, salt=channel.salt),
        change(first, customer_deposit=999),
    ):
        assert await refused(ask(wire.RECOVER_ESTABLISH, wrong)) == "foreign"
    forged = change(first, signature=merchant.key.blind_sign(point))
    assert await refused(ask(wire.RECOVER_ESTABLISH, forged)) == "bad_signature"
    misplaced = change(first, salt=bytes(32))
    assert await refused(ask(wire.RECOVER_ESTABLISH, misplaced)) == "invalid"
    assert (await ask(wire.RECORDS, wire.RecordsParams())).records == []
    record = await ask(wire.RECOVER_ESTABLISH, first)
    refusals = {
        "foreign": (
            change(kept, amount=99),
            change(kept, lock_commitment=point),
            change(others, channel=channel.id),
        ),
        "bad_signature": (change(kept, signature=merchant.key.blind_sign(point)),),
        "out_of_order": (change(kept, index=2), change(kept, index=0)),
        "invalid": (change(kept, amount=1001), change(kept, amount=-51)),
    }
    for kind, wrongs in refusals.items():
        for wrong in wrongs:
            assert await refused(ask(wire.RECOVER_PAY, wrong)) == kind
    assert (await ask(wire.RECORDS, wire.RecordsParams())).records == [record]


async def test_other_words_recognise_nothing(desk: Desk, tmp_path: Path) -> None:
    """With the words of another wallet the channel id itself does not fit."""
    channel = await desk.channel()
    await channel.establish()
    folder = tmp_path / "wrong"
    folder.mkdir()
    wrong = Desk(folder, entropy=bytes(16))
    await wrong.call(wire.ESCROW, channel.merchant.registration)
    first = first_record(channel, channel.merchant)
    assert await refused(wrong.call(wire.RECOVER_ESTABLISH, first)) == "invalid"
    wrong.close()


async def test_nonces_of_the_two_newest_states_are_given(desk: Desk) -> None:
    """They are those that the payments show; older and future ones are not given."""
    channel = await desk.channel()
    await channel.establish()
    shown = [(await channel.prove_pay(1))[0].nonce]
    await channel.pay(1)
    shown.append((await channel.prove_pay(2))[0].nonce)

    async def nonce(index: int) -> Any:
        return (
            await desk.call(wire.RECOVER_NONCE, wire.RecoverNonceParams(channel.id, index))
        ).nonce

    assert [await nonce(0), await nonce(1)] == shown
    assert await refused(nonce(2)) == "out_of_order"
    await channel.pay(2)
    assert await refused(nonce(0)) == "out_of_order"


@pytest.mark.parametrize("kind", ["mutual", "unilateral"])
async def test_a_signed_close_gives_way_but_no_secret_leaves(
    desk: Desk, other: Desk, kind: Any
) -> None:
    """A close signed on an old state keeps that state's secret in for good, whatever follows it.

    Otherwise the old close, perhaps on its way, could be disputed with a secret of our own giving:
    by a thief of the daemon, who has both closes signed, together with the merchant.
    """
    channel = await desk.channel()
    await channel.establish()
    kept = await pay_on_record(channel, 100)
    await walked(other, channel.merchant, first_record(channel, channel.merchant))
    close = wire.CloseAuthorizeParams(channel.id, 0, kind, GUARD)
    await other.call(wire.CLOSE_AUTHORIZE, close)
    record = await other.call(wire.RECOVER_PAY, kept)
    assert record.authorization.index == 1
    again = channel.authorization_params(1, 0, kept.signature)
    assert await refused(other.call(wire.PAY_AUTHORIZE, again)) == "closing"
    if kind == "unilateral":
        dispute = wire.DisputeParams(channel.id, 0, 0)
        assert await refused(other.call(wire.DISPUTE_SECRET, dispute)) == "out_of_order"
    assert await refused(other.call(wire.CLOSE_AUTHORIZE, close)) == "newer_state"
    for way in ("mutual", "unilateral"):
        newer = await other.call(wire.CLOSE_AUTHORIZE, change(close, index=1, kind=way))
        assert plain(newer) == record.authorization
        assert await refused(other.call(wire.PAY_AUTHORIZE, again)) == "closing"
    dispute = wire.DisputeParams(channel.id, 0, 0)
    assert await refused(other.call(wire.DISPUTE_SECRET, dispute)) == "out_of_order"


async def test_the_search_for_an_attempt_is_bounded(desk: Desk, other: Desk) -> None:
    """The last number that is tried is found, the one behind it is not."""
    channel = await desk.channel()
    await channel.establish()
    await walked(other, channel.merchant, first_record(channel, channel.merchant))
    for attempt in range(FORGOTTEN_ATTEMPTS + 1):
        _, commitments = await channel.prove_pay(1, attempt)
    behind = payment_record(channel, 1, 1, commitments)
    assert await refused(other.call(wire.RECOVER_PAY, behind)) == "foreign"
    _, commitments = await channel.prove_pay(1, FORGOTTEN_ATTEMPTS - 1)
    record = await other.call(wire.RECOVER_PAY, payment_record(channel, 1, 1, commitments))
    assert record.reached.attempt == FORGOTTEN_ATTEMPTS - 1


async def test_the_recovery_credential_needs_no_record(desk: Desk) -> None:
    """It is given for a channel that is to be recovered, in a registered escrow only."""
    channel = await desk.channel()
    params = wire.RecoverParams(channel.id, CHAIN, ESCROW)
    answer = await desk.call(wire.RECOVER_SIGN, params)
    digest = typed_data.recovery_digest(CHAIN, ESCROW, int.from_bytes(channel.id))
    assert recover(digest, answer.signature) == channel.account
    elsewhere = change(params, escrow=b"\x01" * 20)
    assert await refused(desk.call(wire.RECOVER_SIGN, elsewhere)) == "escrow_unknown"


async def test_the_key_of_backups_is_the_wallets(desk: Desk, other: Desk, tmp_path: Path) -> None:
    """The same words give the same key on any machine, other words another."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    wrong = Desk(folder, entropy=bytes(16))
    keys = [(await each.call(wire.BACKUP_KEY, wire.Nothing())).key for each in (desk, other, wrong)]
    wrong.close()
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] not in (bytes(32), Wallet(ENTROPY).channel(0).secret(0, 0))
