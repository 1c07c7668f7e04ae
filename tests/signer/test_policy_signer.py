"""The signer's limits in its methods: counted durably with what they let pass, once, for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from customersigner.policy import COIN, Fees, Limits, Policy
from customersigner.signer import Signer
from customersigner.store import Store
from customersigner.usage import DAY, HOUR, Clock
from tests.signer.support import CHAIN, ESCROW, TOKEN, UNIT, Channel, Desk, Merchant
from tests.signer.test_signer import adoption, proved_with
from zkchannels.amounts import Asset
from zkchannels.escrow import calls
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

ETHER = Asset("ETH", 18, 1)


class ClockedDesk(Desk):
    """A signer whose two clocks the test sets."""

    wall = 1_000_000.0
    steady = 500.0

    def open(self) -> None:
        """Start on what is in the store, at the clocks' time."""
        self.store = Store.open(self.folder / "signer.sqlite", self.wallet.identity)
        self.signer = Signer(self.wallet, self.store, self.policy, clock=self._clock)
        self._methods = self.signer.methods()

    def _clock(self, mark: int) -> Clock:
        return Clock(mark, wall=lambda: self.wall, steady=lambda: self.steady)

    def restart(self) -> None:
        """End and start again."""
        self.close()
        self.open()

    def set_policy(self, policy: Policy) -> None:
        """Change the policy of the running signer."""
        self.policy = self.signer.policy = policy


Make = Callable[[Policy], ClockedDesk]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a signer with a policy."""
    made: list[ClockedDesk] = []

    def start(policy: Policy) -> ClockedDesk:
        made.append(ClockedDesk(tmp_path, policy=policy))
        return made[-1]

    yield start
    for desk in made:
        desk.close()


def units(fees: Fees | None = None, *, token: bytes = COIN, **limits: int) -> Policy:
    """A policy for one asset, with limits in units of the tests' escrow."""
    scaled = {name: value * UNIT for name, value in limits.items()}
    return Policy(fees=fees or Fees(), assets={token: Limits(asset=ETHER, **scaled)})


async def policy_of(desk: Desk, method: Method[Any, Any], params: Any) -> str:
    """Which policy refuses a request."""
    with pytest.raises(RpcError) as caught:
        await desk.call(method, params)
    data = caught.value.data
    assert data["kind"] == "policy_refused", data
    assert data["policy_kind"] == wire.POLICIES[data["policy"]][0]
    return str(data["policy"])


async def used(desk: Desk, name: str, about: str) -> str | None:
    """What is shown as used of a limit."""
    states = (await desk.call(wire.POLICY_STATES, wire.Nothing())).policies
    return next(state.used for state in states if state.name == name and about in state.about)


async def test_payments_of_all_channels_fill_one_window(make: Make) -> None:
    """Two channels share the limit of their asset; refunds neither count nor give back."""
    desk = make(units(hour=100))
    first = await desk.channel()
    await first.establish()
    second = await desk.channel(first.merchant, salt=b"\x02" * 32)
    await second.establish()
    await first.pay(60)
    await second.pay(-40)
    await first.pay(-50)
    assert await policy_of(desk, wire.PAY_PROVE, second.pay_params(41)) == "policy-hour-limit"
    await second.pay(40)
    assert await used(desk, "policy-hour-limit", "payments") == ETHER.format(100 * UNIT)
    desk.steady += HOUR + 1
    await second.pay(100)


async def test_no_payment_is_smuggled_in_as_one_that_was_proved(make: Make) -> None:
    """A daemon that tells of a proof has to show it: only what left this wallet is adopted."""
    desk = make(Policy())
    channel = await desk.channel()
    await channel.establish()
    small, _ = await channel.prove_pay(5)
    desk.set_policy(units(payment=10, hour=10, confirm_above=5))
    record = await channel.record()
    wanted = channel.pay_params(900, 1)
    told = wire.Proved(wanted.index, wanted.attempt, wanted.operation, wanted.amount)
    for proof in (small.proof, bytes(240)):
        with pytest.raises(RpcError) as caught:
            await desk.call(wire.ADOPT, adoption(record, proved=proved_with(told, proof)))
        assert kind_of(caught.value) == "foreign"
    assert await policy_of(desk, wire.PAY_PROVE, wanted) == "policy-payment-limit"
    assert await channel.record() == record
    # What was proved is finished, also by a signer that forgot it and is told of it.
    await desk.call(wire.ADOPT, adoption(record, small.proof))
    await channel.pay(5)


async def test_a_repeat_counts_once_and_a_restart_forgets_nothing(make: Make) -> None:
    """The same (operation, attempt) counts once, before and after a restart."""
    desk = make(units(day=100))
    channel = await desk.channel()
    await channel.establish()
    for _ in range(3):
        await channel.prove_pay(60)
    desk.restart()
    for _ in range(2):
        await channel.prove_pay(60)
    assert await used(desk, "policy-day-limit", "payments") == ETHER.format(60 * UNIT)
    await channel.pay(60)
    desk.restart()
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(41)) == "policy-day-limit"
    await channel.pay(40)


async def test_another_attempt_counts_what_it_adds(make: Make) -> None:
    """A merchant that refuses proof after proof does not use the owner's limit up."""
    desk = make(units(day=100))
    channel = await desk.channel()
    await channel.establish()
    for attempt in range(4):
        await channel.prove_pay(60, attempt)
    await channel.prove_pay(100, 4)
    assert await used(desk, "policy-day-limit", "payments") == ETHER.format(100 * UNIT)


@pytest.mark.parametrize("moved", [-10 * DAY, -HOUR, 10 * DAY])
async def test_a_clock_that_jumps_opens_no_window(make: Make, moved: float) -> None:
    """The wall clock set back or forward while the signer runs changes nothing."""
    desk = make(units(day=100))
    channel = await desk.channel()
    await channel.establish()
    await channel.pay(100)
    desk.wall += moved
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(1)) == "policy-day-limit"
    desk.steady += DAY
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(1)) == "policy-day-limit"
    desk.steady += 1
    await channel.pay(100)


async def test_a_clock_set_back_over_a_restart_opens_no_window(make: Make) -> None:
    """What was counted last is the earliest present; from there a day passes as it should."""
    desk = make(units(day=100))
    channel = await desk.channel()
    await channel.establish()
    await channel.pay(100)
    desk.wall -= 365 * DAY
    desk.steady = 3.0
    desk.restart()
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(1)) == "policy-day-limit"
    desk.steady += DAY + 1
    await channel.pay(1)


async def test_nothing_is_counted_for_what_is_refused_or_not_written(make: Make) -> None:
    """A wrong pay token and an amount above the limit use nothing up."""
    desk = make(units(day=100))
    channel = await desk.channel()
    await channel.establish()
    forged = msgspec.structs.replace(channel.pay_params(60), token=b"\xc0" + bytes(95))
    with pytest.raises(RpcError):
        await desk.call(wire.PAY_PROVE, forged)
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(101)) == "policy-payment-limit"
    assert await used(desk, "policy-day-limit", "payments") == "0 ETH"
    await channel.pay(100)


async def test_deposits_have_limits_of_their_own(make: Make) -> None:
    """A deposit counts when it is first proved, one channel's once, beside payments."""
    desk = make(units(day=1, deposit=1000, deposit_day=1500))
    merchant = Merchant()
    first = await desk.channel(merchant)
    await first.prove_establish()
    await first.establish()
    larger = await desk.channel(merchant, salt=b"\x02" * 32, deposits=(1001, 0))
    refused = await policy_of(desk, wire.ESTABLISH_PROVE, larger.establish_params)
    assert refused == "policy-deposit-limit"
    second = await desk.channel(merchant, salt=b"\x03" * 32, deposits=(501, 0))
    refused = await policy_of(desk, wire.ESTABLISH_PROVE, second.establish_params)
    assert refused == "policy-deposit-day-limit"
    third = await desk.channel(merchant, salt=b"\x04" * 32, deposits=(500, 0))
    await third.establish()


def sign(data: bytes, nonce: int, **changes: Any) -> wire.TransactionParams:
    """A transaction of the account."""
    params = wire.TransactionParams(CHAIN, nonce, 10**9, 2 * 10**9, 300_000, ESCROW, 0, data)
    return msgspec.structs.replace(params, **changes)


async def test_a_deposit_cannot_be_sent_again_and_again(make: Make) -> None:
    """A hostile escrow takes one deposit many times: each transaction number counts."""
    desk = make(units(deposit_day=2000))
    channel = await desk.channel()
    await channel.authorize_establish()
    value = 1000 * UNIT
    data = calls.open_(channel.salt, 50)
    for price in range(1, 4):  # the same number with a higher fee takes the other's place
        params = sign(data, 1, value=value, max_fee=price * 10**10)
        await desk.call(wire.TRANSACTION_SIGN, params)
    await desk.call(wire.TRANSACTION_SIGN, sign(data, 2, value=value))
    again = sign(data, 3, value=value)
    assert await policy_of(desk, wire.TRANSACTION_SIGN, again) == "policy-deposit-day-limit"


async def test_approvals_and_permits_count_as_they_can_be_drawn(make: Make) -> None:
    """An allowance renewed again and again is drained again and again: each one counts."""
    desk = make(units(token=TOKEN, deposit_day=2000))
    channel = await desk.channel(Merchant(token=TOKEN))
    await channel.authorize_establish()
    approve = calls.approve(ESCROW, 1000 * UNIT)
    permit = wire.TokenPermitParams(CHAIN, ESCROW, TOKEN, "Test", "1", 1000 * UNIT, 0, 10**10)
    for _ in range(2):
        await desk.call(wire.TRANSACTION_SIGN, sign(approve, 1, to=TOKEN))
        await desk.call(wire.TOKEN_PERMIT, permit)
    refused = await policy_of(desk, wire.TRANSACTION_SIGN, sign(approve, 2, to=TOKEN))
    assert refused == "policy-deposit-day-limit"
    later = msgspec.structs.replace(permit, nonce=1)
    assert await policy_of(desk, wire.TOKEN_PERMIT, later) == "policy-deposit-day-limit"


async def test_fees_have_a_limit_per_day_that_defence_does_not_share(make: Make) -> None:
    """Ordinary transactions burn so much a day; closes and claims have a cap of their own."""
    fee = 300_000 * 2 * 10**9
    desk = make(units(Fees(transaction=fee, day=2 * fee, defence=3 * fee)))
    channel = await desk.channel()
    await channel.authorize_establish()
    data, value = calls.open_(channel.salt, 50), 1000 * UNIT
    for nonce in (1, 1, 2, 2):
        await desk.call(wire.TRANSACTION_SIGN, sign(data, nonce, value=value))
    late = sign(data, 3, value=value)
    assert await policy_of(desk, wire.TRANSACTION_SIGN, late) == "policy-fee-day-limit"
    dear = sign(data, 1, value=value, max_fee=2 * 10**9 + 1)
    assert await policy_of(desk, wire.TRANSACTION_SIGN, dear) == "policy-fee-cap"
    claim = calls.claim(int.from_bytes(channel.id))
    for nonce in range(3, 13):
        await desk.call(wire.TRANSACTION_SIGN, sign(claim, nonce, max_fee=6 * 10**9))
    over = sign(claim, 20, max_fee=6 * 10**9 + 1)
    assert await policy_of(desk, wire.TRANSACTION_SIGN, over) == "policy-fee-cap"
    desk.restart()
    assert await policy_of(desk, wire.TRANSACTION_SIGN, late) == "policy-fee-day-limit"


NOTHING_AT_ALL = Policy(
    assets={COIN: Limits(asset=ETHER, payment=0, hour=0, day=0, deposit=0, deposit_day=0)},
    escrows={},
    merchants={},
    fees=Fees(transaction=0, day=0),
)


async def test_no_policy_stops_a_defence(make: Make) -> None:
    """What was bound is finished, closed, disputed and claimed under the strictest policy."""
    desk = make(Policy())
    channel = await desk.channel()
    await channel.establish()
    old = await channel.pay(10)
    await channel.prove_pay(5)
    desk.set_policy(NOTHING_AT_ALL)
    params = channel.pay_params(1, attempt=1)
    assert await policy_of(desk, wire.PAY_PROVE, params) == "policy-escrow-not-allowed"
    await channel.pay(5)
    closing = await channel.close()
    dispute = await desk.call(wire.DISPUTE_SECRET, wire.DisputeParams(channel.id, 0, 0))
    assert dispute.secret == old.secret
    number = int.from_bytes(channel.id)
    for nonce, data in enumerate(
        (
            calls.close(
                number,
                int.from_bytes(closing.lock),
                closing.customer_balance,
                closing.merchant_balance,
                closing.signature,
            ),
            calls.dispute(number, dispute.secret),
            calls.claim(number),
            calls.reclaim(number),
            calls.withdraw(desk.wallet.account.address),
        )
    ):
        await desk.call(wire.TRANSACTION_SIGN, sign(data, nonce))


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Policy(escrows={}), "policy-escrow-not-allowed"),
        (Policy(merchants={}), "policy-merchant-not-allowed"),
        (Policy(assets={TOKEN: Limits(asset=ETHER)}), "policy-asset-not-allowed"),
    ],
)
async def test_lists_name_who_may_be_dealt_with(make: Make, policy: Policy, name: str) -> None:
    """An escrow, merchant or asset that is not on its list is refused before anything begins."""
    merchant = Merchant()
    desk = make(policy)
    assert await policy_of(desk, wire.ESCROW, merchant.registration) == name
    desk.set_policy(Policy())
    channel = await desk.channel(merchant)
    await channel.establish()
    desk.set_policy(policy)
    assert await policy_of(desk, wire.PAY_PROVE, channel.pay_params(1)) == name
    other = Channel(desk.call, merchant, desk.wallet.account.address, salt=b"\x09" * 32)
    assert await policy_of(desk, wire.ESTABLISH_PROVE, other.establish_params) == name
    opening = sign(calls.open_(channel.salt, 50), 1, value=1000 * UNIT)
    assert await policy_of(desk, wire.TRANSACTION_SIGN, opening) == name


@pytest.mark.parametrize("signature", [bytes(96), b"\xc0" + bytes(95), b"\xff" * 96])
async def test_no_secret_leaves_before_the_next_authorization_is_verified(
    desk: Desk, signature: bytes
) -> None:
    """An authorization that does not verify gives nothing away, nor does the dispute's way."""
    channel = await desk.channel()
    await channel.establish()
    await channel.prove_pay(10)
    params = channel.authorization_params(1, 0, signature)
    with pytest.raises(RpcError) as caught:
        await desk.call(wire.PAY_AUTHORIZE, params)
    assert caught.value.data["kind"] in ("bad_signature", "invalid")
    with pytest.raises(RpcError) as caught:
        await desk.call(wire.DISPUTE_SECRET, wire.DisputeParams(channel.id, 0, 0))
    assert caught.value.data["kind"] == "out_of_order"


async def test_one_state_pays_one_payment(desk: Desk) -> None:
    """A second, different payment from one state is refused; its own repeat is not."""
    channel = await desk.channel()
    await channel.establish()
    await channel.prove_pay(10)
    for changes in ({"amount": 11}, {"operation": b"\x77" * 16}):
        params = msgspec.structs.replace(channel.pay_params(10), **changes)
        with pytest.raises(RpcError) as caught:
            await desk.call(wire.PAY_PROVE, params)
        assert caught.value.data["kind"] == "already_different"
    await channel.prove_pay(10)


@pytest.mark.parametrize("to", [None, "", "0x", 0])
async def test_no_contract_is_created(desk: Desk, to: Any) -> None:
    """A transaction without a receiver cannot even be asked for."""
    await desk.channel()
    params = {**msgspec.to_builtins(sign(b"", 0)), "to": to}
    with pytest.raises(msgspec.ValidationError):
        wire.TRANSACTION_SIGN.decode_params(msgspec.Raw(msgspec.json.encode(params)))


def test_a_store_of_the_first_version_is_upgraded(tmp_path: Path) -> None:
    """A record from before counting is kept, and counting begins."""
    import sqlite3

    identity = b"\x01" * 20
    Store.open(tmp_path / "signer.sqlite", identity).close()
    connection = sqlite3.connect(tmp_path / "signer.sqlite")
    connection.executescript("DROP TABLE usage; PRAGMA user_version = 1;")
    connection.close()
    store = Store.open(tmp_path / "signer.sqlite", identity)
    assert store.usage() == []
    store.close()
