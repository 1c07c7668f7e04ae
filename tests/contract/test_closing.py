"""Ways out of a channel: who gets what, when, and what a signature or a permit covers."""

from __future__ import annotations

import secrets

import pytest

from tests.contract.ps import CLOSE, Key, P, R
from tests.contract.world import (
    CUSTOMER_DEPOSIT,
    DELAY,
    MERCHANT_DEPOSIT,
    UNIT,
    Escrow,
    World,
    escrow_events,
    lock_of,
)
from zkchannels.abacus import CloseState, SecretKey, closing_authorization
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.escrow import calls, events, typed_data
from zkchannels.escrow.record import ChannelStatus

SECRET = 32 * b"\x05"
LOCK = lock_of(SECRET)


class _Purses:
    """What customer and merchant have of the asset, so that a test can say what they got."""

    def __init__(self, world: World) -> None:
        self._escrow = world.escrow
        self._accounts = (world.customer.address, world.merchant.address)
        self._before = self._balances()

    def _balances(self) -> tuple[int, ...]:
        return tuple(self._escrow.balance(account) for account in self._accounts)

    def gained(self) -> tuple[int, ...]:
        """Units gained by customer and merchant since construction."""
        after = self._balances()
        return tuple((b - a) // UNIT for a, b in zip(self._before, after, strict=True))


def _claim(world: World, channel: int) -> tuple[int, ...]:
    """Claim after the deadline, by a stranger; what customer and merchant got."""
    world.pass_deadline(channel)
    purses = _Purses(world)
    world.do(world.stranger, calls.claim(channel))
    assert world.record(channel).status is ChannelStatus.CLOSED
    return purses.gained()


# The ways out


def test_a_close_is_paid_after_its_deadline(world: World) -> None:
    """The customer's close posts balances; after the delay anyone has both paid."""
    channel = world.open()
    receipt = world.do(world.customer, world.close_call(channel, SECRET, customer_balance=250))
    deadline = world.chain.time() + DELAY
    assert escrow_events(receipt, world.escrow) == [
        events.Closing(channel, LOCK, 250, 450, deadline, by_guard=False)
    ]
    assert world.record(channel).lock == LOCK
    assert _claim(world, channel) == (250, 450)


def test_a_dual_funded_channel_pays_both_deposits(world: World) -> None:
    """The balances of a dual-funded channel add up to both deposits."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    world.fund(channel)
    world.do(world.customer, world.close_call(channel, SECRET, customer_balance=950))
    assert _claim(world, channel) == (950, 50)


@pytest.mark.parametrize("customer_balance", [0, CUSTOMER_DEPOSIT])
def test_all_may_go_to_one_side(world: World, customer_balance: int) -> None:
    """A balance of zero is paid as nothing and stops nobody."""
    channel = world.open()
    data = world.close_call(channel, SECRET, customer_balance=customer_balance)
    world.do(world.customer, data)
    expected = (customer_balance, CUSTOMER_DEPOSIT - customer_balance)
    assert _claim(world, channel) == expected


def test_an_unanswered_expire_gives_all_to_the_merchant(world: World) -> None:
    """Nobody closing within the delay of an expire, the merchant gets both deposits."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    world.fund(channel)
    world.do(world.merchant, calls.expire(channel))
    assert _claim(world, channel) == (0, 1000)


def test_claim_opens_in_the_first_block_after_the_deadline(world: World) -> None:
    """A claim in a block of the deadline's very second fails, one a second later succeeds."""
    channel = world.open()
    world.do(world.customer, world.close_call(channel, SECRET))
    deadline = world.record(channel).deadline
    world.chain.set_next_time(deadline)
    claim = calls.claim(channel)
    assert not world.chain.send(world.stranger, world.escrow.address, claim).succeeded
    world.chain.set_next_time(deadline + 1)
    assert world.chain.send(world.stranger, world.escrow.address, claim).succeeded


def test_a_dispute_forfeits_the_customers_own_close(world: World) -> None:
    """Showing the secret of the posted lock gives all to the merchant at once."""
    channel = world.open()
    world.do(world.customer, world.close_call(channel, SECRET))
    purses = _Purses(world)
    receipt = world.do(world.stranger, calls.dispute(channel, SECRET))
    assert escrow_events(receipt, world.escrow) == [
        events.Disputed(channel, SECRET),
        events.Settled(channel, 0, CUSTOMER_DEPOSIT),
    ]
    assert purses.gained() == (0, CUSTOMER_DEPOSIT)


def test_a_wrong_secret_disputes_nothing(world: World) -> None:
    """Only the preimage of the posted lock disputes a close."""
    channel = world.open()
    world.do(world.customer, world.close_call(channel, SECRET))
    for wrong in (bytes(32), SECRET[:-1] + b"\x06", LOCK.to_bytes(32)):
        assert world.refusal(world.merchant, calls.dispute(channel, wrong)) == "secret"


def test_a_mutual_close_pays_at_once(world: World) -> None:
    """With the merchant's signature the customer closes without any delay."""
    channel = world.open()
    purses = _Purses(world)
    data = world.mutual_call(channel, customer_balance=1)
    if world.escrow.native:  # its own gas would blur the customer's purse
        assert world.refusal(world.customer, data) is None
    receipt = world.do(world.customer, data)
    assert escrow_events(receipt, world.escrow)[0] == events.Settled(channel, 1, 699)
    assert purses.gained()[1] == 699
    assert world.refusal(world.customer, data) == "status"


def test_a_mutual_close_ends_an_expire(world: World) -> None:
    """A mutual close works in EXPIRING, also when it is late."""
    channel = world.expiring()
    world.pass_deadline(channel)
    world.do(world.customer, world.mutual_call(channel))
    assert world.record(channel).status is ChannelStatus.CLOSED


# Only claim is gated by a deadline


@pytest.mark.parametrize("who", ["customer", "guard"])
def test_a_late_close_has_a_fresh_deadline(world: World, who: str) -> None:
    """Close and defence after the deadline work until somebody claims, and open a full delay."""
    channel = world.expiring()
    world.pass_deadline(channel)
    if who == "customer":
        world.do(world.customer, world.close_call(channel, SECRET))
    else:
        world.do(world.guard, world.defend_call(channel, SECRET))
    assert world.record(channel).deadline == world.chain.time() + DELAY
    assert world.refusal(world.merchant, calls.claim(channel)) == "early"


def test_a_dispute_is_possible_until_somebody_claims(world: World) -> None:
    """Past the deadline a dispute still wins if it comes before the claim, and not after."""
    first, second = world.open(), world.open()
    for channel in (first, second):
        world.do(world.customer, world.close_call(channel, SECRET))
    world.pass_deadline(second)
    purses = _Purses(world)
    world.do(world.stranger, calls.dispute(first, SECRET))
    assert purses.gained() == (0, CUSTOMER_DEPOSIT)
    world.do(world.stranger, calls.claim(second))
    assert world.refusal(world.merchant, calls.dispute(second, SECRET)) == "status"


# The guard


def test_a_guards_close_is_paid_like_the_customers(world: World) -> None:
    """Undisputed, a guard's close pays the customer and the merchant, not the guard."""
    channel = world.expiring()
    receipt = world.do(world.guard, world.defend_call(channel, SECRET, customer_balance=300))
    deadline = world.chain.time() + DELAY
    assert escrow_events(receipt, world.escrow) == [
        events.Closing(channel, LOCK, 300, 400, deadline, by_guard=True)
    ]
    assert world.record(channel).closed_by_guard
    assert _claim(world, channel) == (300, 400)


@pytest.mark.parametrize("late", [False, True])
def test_a_disputed_guards_close_is_void(world: World, *, late: bool) -> None:
    """A disputed guard's close pays nobody: EXPIRING, fresh deadline, guard struck off."""
    channel = world.expiring()
    world.do(world.guard, world.defend_call(channel, SECRET))
    if late:
        world.pass_deadline(channel)
    else:
        world.chain.increase_time(DELAY // 2)
    purses = _Purses(world)
    receipt = world.do(world.stranger, calls.dispute(channel, SECRET))
    deadline = world.chain.time() + DELAY
    assert escrow_events(receipt, world.escrow) == [events.Voided(channel, SECRET, deadline)]
    record = world.record(channel)
    assert (record.status, record.deadline) == (ChannelStatus.EXPIRING, deadline)
    assert (record.lock, record.customer_balance, record.merchant_balance) == (0, 0, 0)
    assert record.guard_struck_off
    assert not record.closed_by_guard
    assert purses.gained() == (0, 0)


def test_the_guard_is_struck_off_whoever_the_next_permit_names(world: World) -> None:
    """After a void no guard closes this channel again, only the customer itself does."""
    channel = world.expiring()
    world.do(world.guard, world.defend_call(channel, SECRET))
    world.do(world.stranger, calls.dispute(channel, SECRET))
    newer = 32 * b"\x06"
    for guard in (world.guard, world.stranger, world.customer):
        data = world.defend_call(channel, newer, guard=guard.address)
        assert world.refusal(guard, data) == "struck off"
    world.do(world.customer, world.close_call(channel, newer, customer_balance=600))
    assert world.record(channel).guard_struck_off
    assert not world.record(channel).closed_by_guard
    assert _claim(world, channel) == (600, 100)


def test_the_customers_close_after_a_void_can_be_forfeited(world: World) -> None:
    """Only a guard's close is merely void; the customer's own one still forfeits all."""
    channel = world.expiring()
    world.do(world.guard, world.defend_call(channel, SECRET))
    world.do(world.stranger, calls.dispute(channel, SECRET))
    world.do(world.customer, world.close_call(channel, SECRET))
    purses = _Purses(world)
    world.do(world.stranger, calls.dispute(channel, SECRET))
    assert purses.gained() == (0, CUSTOMER_DEPOSIT)


def test_an_unanswered_void_gives_all_to_the_merchant(world: World) -> None:
    """If the customer does not close after a void, the expire takes its course."""
    channel = world.expiring()
    world.do(world.guard, world.defend_call(channel, SECRET))
    world.do(world.stranger, calls.dispute(channel, SECRET))
    assert _claim(world, channel) == (0, CUSTOMER_DEPOSIT)


def test_a_permit_covers_everything(world: World) -> None:
    """A permit differing in channel, lock, balances, guard, escrow, chain or signer is refused."""
    channel, other = world.expiring(), world.expiring()
    balances = (300, 400)
    right = (channel, LOCK, *balances)
    signature = world.escrow.key.close(*right)
    domain = (world.chain.chain_id, world.escrow.address)
    guard = world.guard.address
    digests = [
        typed_data.guard_permit_digest(*domain, other, LOCK, *balances, guard),
        typed_data.guard_permit_digest(*domain, channel, LOCK + 1, *balances, guard),
        typed_data.guard_permit_digest(*domain, channel, LOCK, 301, 399, guard),
        typed_data.guard_permit_digest(*domain, channel, LOCK, 400, 300, guard),
        typed_data.guard_permit_digest(*domain, *right, world.stranger.address),
        typed_data.guard_permit_digest(domain[0] + 1, domain[1], *right, guard),
        typed_data.guard_permit_digest(domain[0], DEV_KEYS[5].address, *right, guard),
        typed_data.mutual_close_digest(*domain, channel, *balances),
    ]
    permits = [world.customer.sign_digest(digest) for digest in digests]
    good = world.permit(*right)
    permits += [
        world.permit(*right, signer=world.merchant),
        world.permit(*right, signer=world.guard),
        good[:64] + bytes([55 - good[64]]),
        good[:64] + b"\x00",
        bytes(64) + b"\x1b",
        good[:10] + bytes([good[10] ^ 1]) + good[11:],
    ]
    for permit in permits:
        data = calls.defend(*right, signature, permit)
        assert world.refusal(world.guard, data) == "permit"
    assert world.refusal(world.guard, calls.defend(*right, signature, good)) is None


def test_a_permit_does_not_replace_the_merchants_signature(world: World) -> None:
    """A permitted close without the merchant's signature on it is refused."""
    channel = world.expiring()
    signature = world.escrow.key.close(channel, LOCK, 300, 400)
    data = calls.defend(channel, LOCK, 700, 0, signature, world.permit(channel, LOCK, 700, 0))
    assert world.refusal(world.guard, data) == "signature"


# What the merchant's ECDSA signature covers


def test_a_mutual_close_covers_everything(world: World) -> None:
    """A signature on other balances, channel, escrow, chain or by another key is refused."""
    channel, other = world.open(), world.open()
    domain = (world.chain.chain_id, world.escrow.address)
    right = (channel, 300, 400)
    digests = [
        typed_data.mutual_close_digest(*domain, other, 300, 400),
        typed_data.mutual_close_digest(*domain, channel, 299, 401),
        typed_data.mutual_close_digest(*domain, channel, 400, 300),
        typed_data.mutual_close_digest(domain[0] + 1, domain[1], *right),
        typed_data.mutual_close_digest(domain[0], DEV_KEYS[5].address, *right),
        typed_data.guard_permit_digest(*domain, channel, 0, 300, 400, world.guard.address),
    ]
    agreements = [world.merchant.sign_digest(digest) for digest in digests]
    agreed = typed_data.mutual_close_digest(*domain, *right)
    agreements += [world.customer.sign_digest(agreed), bytes(64) + b"\x1b", bytes(65)]
    for agreement in agreements:
        data = calls.mutual_close(*right, agreement)
        assert world.refusal(world.customer, data) == "signature"
    good = calls.mutual_close(*right, world.merchant.sign_digest(agreed))
    assert world.refusal(world.customer, good) is None


def test_signatures_follow_the_chains_id(anvil: Anvil) -> None:
    """When a chain splits and takes a new id, permits and agreements of the old one are void."""
    world = World(Escrow.deploy(anvil))
    channel = world.expiring()
    old = (world.mutual_call(channel), world.defend_call(channel, SECRET))
    anvil.call("anvil_setChainId", 4711)
    anvil.chain_id = 4711
    assert world.refusal(world.customer, old[0]) == "signature"
    assert world.refusal(world.guard, old[1]) == "permit"
    assert world.refusal(world.customer, world.mutual_call(channel)) is None
    assert world.refusal(world.guard, world.defend_call(channel, SECRET)) is None


# What the merchant's signature on a close state covers


@pytest.mark.parametrize(
    ("customer_balance", "merchant_balance"),
    [(300, 401), (300, 399), (0, 0), (2**63, 0), (CUSTOMER_DEPOSIT + 1, 0)],
)
def test_balances_add_up_to_the_deposits(
    world: World, customer_balance: int, merchant_balance: int
) -> None:
    """A signed close state with any other sum is refused, and so is a mutual close."""
    channel = world.expiring()
    balances = (customer_balance, merchant_balance)
    signature = world.escrow.key.close(channel, LOCK, *balances)
    data = calls.close(channel, LOCK, *balances, signature)
    assert world.refusal(world.customer, data) == "sum"
    permit = world.permit(channel, LOCK, *balances)
    data = calls.defend(channel, LOCK, *balances, signature, permit)
    assert world.refusal(world.guard, data) == "sum"
    digest = typed_data.mutual_close_digest(
        world.chain.chain_id, world.escrow.address, channel, *balances
    )
    data = calls.mutual_close(channel, *balances, world.merchant.sign_digest(digest))
    assert world.refusal(world.customer, data) == "sum"


@pytest.mark.parametrize("too_much", [1, 2**63, 2**255])
def test_balances_do_not_wrap_around(world: World, too_much: int) -> None:
    """Balances whose sum is right only modulo 2**256 are refused."""
    channel = world.open()
    balances = (CUSTOMER_DEPOSIT + too_much, 2**256 - too_much)
    signature = world.escrow.key.close(channel, LOCK, *balances)
    data = calls.close(channel, LOCK, *balances, signature)
    assert world.refusal(world.customer, data) is not None
    digest = typed_data.mutual_close_digest(
        world.chain.chain_id, world.escrow.address, channel, *balances
    )
    data = calls.mutual_close(channel, *balances, world.merchant.sign_digest(digest))
    assert world.refusal(world.customer, data) is not None


def test_a_lock_has_one_representation(world: World) -> None:
    """A lock plus the group order would verify and could never be disputed: it is refused."""
    channel = world.expiring()
    signature = world.escrow.key.close(channel, LOCK, 300, 400)
    assert LOCK + R < 2**256
    for lock in (LOCK + R, LOCK + 2 * R, 2**253, 2**256 - 1):
        if lock >= 2**256:
            continue
        if (lock - LOCK) % R:
            signature = world.escrow.key.close(channel, lock, 300, 400)
        data = calls.close(channel, lock, 300, 400, signature)
        assert world.refusal(world.customer, data) == "lock"
        permit = world.permit(channel, lock, 300, 400)
        data = calls.defend(channel, lock, 300, 400, signature, permit)
        assert world.refusal(world.guard, data) == "lock"


def test_a_signature_covers_the_close_state(world: World) -> None:
    """A signature on another channel, nonce, lock or split is refused."""
    channel, other = world.open(), world.open()
    key = world.escrow.key
    for messages in (
        [other, CLOSE, LOCK, 300, 400],
        [channel, CLOSE + 1, LOCK, 300, 400],
        [channel, secrets.randbelow(R), LOCK, 300, 400],
        [channel, CLOSE, LOCK + 1, 300, 400],
        [channel, CLOSE, LOCK, 400, 300],
        [channel, LOCK, CLOSE, 300, 400],
        [channel, CLOSE, LOCK, 299, 401],
    ):
        data = calls.close(channel, LOCK, 300, 400, key.sign(messages))
        assert world.refusal(world.customer, data) == "signature"


def test_a_signature_of_another_merchant_is_refused(world: World) -> None:
    """Signatures under another key, also another escrow's, are worth nothing here."""
    channel = world.open()
    foreign = type(world.escrow.key)()
    signature = foreign.close(channel, LOCK, 300, 400)
    data = calls.close(channel, LOCK, 300, 400, signature)
    assert world.refusal(world.customer, data) == "signature"


def _malformed(good: bytes) -> dict[str, bytes]:
    """Signatures that are no two points of G1, or make the equation trivial."""
    sigma1, sigma2 = good[:128], good[128:]
    x = int.from_bytes(sigma1[:64])
    outside = _outside_subgroup()
    return {
        "both infinite": bytes(256),
        "sigma1 infinite": bytes(128) + sigma2,
        "sigma2 infinite": sigma1 + bytes(128),
        "sigma1 off the curve": sigma1[:-1] + bytes([sigma1[-1] ^ 1]) + sigma2,
        "sigma2 off the curve": good[:-1] + bytes([good[-1] ^ 1]),
        "coordinate plus p": (x + P).to_bytes(64) + sigma1[64:] + sigma2,
        "infinity written as p": 2 * P.to_bytes(64) + sigma2,
        "padding set": b"\x01" + good[1:],
        "outside the subgroup": outside + outside,
        "swapped": sigma2 + sigma1,
        "equal points": sigma1 + sigma1,
        "too short": good[:-1],
        "empty": b"",
    }


def _outside_subgroup() -> bytes:
    """A point of the curve that is not in the group of order r."""
    for x in range(1, 50):
        square = (x**3 + 4) % P
        y = pow(square, (P + 1) // 4, P)
        if y * y % P == square:
            return x.to_bytes(64) + y.to_bytes(64)
    raise AssertionError("half of all x have a point")


@pytest.mark.parametrize("name", _malformed(bytes(256)))
def test_malformed_signatures_are_refused(native_world: World, name: str) -> None:
    """Anything but two finite points of the group that satisfy the equation is refused."""
    world = native_world
    channel = world.open()
    good = world.escrow.key.close(channel, LOCK, 300, 400)
    data = calls.close(channel, LOCK, 300, 400, _malformed(good)[name])
    assert world.refusal(world.customer, data) == "signature"
    assert world.refusal(world.customer, calls.close(channel, LOCK, 300, 400, good)) is None


def test_a_longer_signature_is_refused(native_world: World) -> None:
    """Bytes behind the two points are refused, not ignored."""
    channel = native_world.open()
    good = native_world.escrow.key.close(channel, LOCK, 300, 400)
    data = calls.close(channel, LOCK, 300, 400, good + b"\0")
    assert native_world.refusal(native_world.customer, data) is not None


def test_a_signature_may_be_randomised(native_world: World) -> None:
    """Both points times one scalar is the same signature: nothing on chain identifies it."""
    world = native_world
    channel = world.open()
    messages = [channel, CLOSE, LOCK, 300, 400]
    first = world.escrow.key.sign(messages, u=5)
    second = world.escrow.key.sign(messages, u=5 * 77)
    assert first[:128] != second[:128]
    for signature in (first, second):
        assert (
            world.refusal(world.customer, calls.close(channel, LOCK, 300, 400, signature)) is None
        )


def test_what_abacus_makes_is_accepted(chain: DevChain) -> None:
    """A closing authorization made by abacus closes a channel of an escrow with its key."""
    secret_key = SecretKey.generate()
    world = World(_abacus_escrow(chain, secret_key))
    channel = world.open()
    state = CloseState(channel, LOCK, 300, 400)
    authorization = closing_authorization(secret_key.public, secret_key.sign(state), 0, state)
    world.do(world.customer, calls.close(channel, LOCK, 300, 400, authorization))
    assert world.record(channel).status is ChannelStatus.CLOSING
    assert calls.decode_bytes(chain.view(world.escrow.address, calls.key())) == (
        secret_key.public.to_escrow_key()
    )


def _abacus_escrow(chain: DevChain, secret_key: SecretKey) -> Escrow:
    data = secret_key.to_bytes()
    scalars = [int.from_bytes(data[i : i + 32]) for i in range(0, len(data), 32)]
    key = Key(scalars)
    assert key.public == secret_key.public.to_escrow_key()
    return Escrow.deploy(chain, key=key)
