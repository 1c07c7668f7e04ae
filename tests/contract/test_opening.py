"""Deposits: exact values, both assets, permits, dual funding and reclaim."""

from __future__ import annotations

import secrets

import pytest

from tests.contract.world import (
    CUSTOMER_DEPOSIT,
    DELAY,
    MERCHANT_DEPOSIT,
    TOKENS,
    UNIT,
    Escrow,
    World,
    bytecode,
    escrow_events,
)
from zkchannels.abacus import channel_id
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.control import ChainRefused, DevChain
from zkchannels.escrow import abi, calls, events, typed_data
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.escrow.record import ChannelStatus


def _permit_call(
    world: World, salt: bytes, amount: int, *, signer: PrivateKey | None = None
) -> tuple[bytes, int, bytes]:
    """`open_permit` for a deposit in units; also the permit's deadline and signature."""
    token, chain = world.escrow.token, world.chain
    nonce = calls.decode_number(chain.view(token, calls.nonces(world.customer.address)))
    deadline = chain.time() + 10_000
    digest = typed_data.erc2612_permit_digest(
        chain.view(token, calls.domain_separator()),
        world.customer.address,
        world.escrow.address,
        amount * UNIT,
        nonce,
        deadline,
    )
    permit = (signer or world.customer).sign_digest(digest)
    return calls.open_permit(salt, amount, 0, deadline, permit), deadline, permit


def _without_allowance(world: World) -> None:
    world.do_to(world.escrow.token, world.customer, calls.approve(world.escrow.address, 0))


def test_open_takes_the_deposit_and_tells_all(world: World) -> None:
    """An open takes exactly the deposit, in units, and its event carries the whole record."""
    salt = secrets.token_bytes(32)
    before = world.escrow.balance(world.escrow.address)
    data, value = world.open_call(salt, CUSTOMER_DEPOSIT, 0)
    receipt = world.do(world.customer, data, value=value)
    channel = world.channel_id(salt)
    assert escrow_events(receipt, world.escrow) == [
        events.Opened(channel, world.customer.address, CUSTOMER_DEPOSIT, 0, 0)
    ]
    assert world.record(channel).status is ChannelStatus.OPEN
    after = world.escrow.balance(world.escrow.address)
    assert after - before == CUSTOMER_DEPOSIT * UNIT


def test_the_channel_id_is_the_one_of_the_specification(world: World) -> None:
    """Contract and abacus compute the same channel id."""
    salt = secrets.token_bytes(32)
    expected = channel_id(world.chain.chain_id, world.escrow.address, world.customer.address, salt)
    assert world.channel_id(salt) == expected


@pytest.mark.parametrize("excess", [1, UNIT - 1])
def test_a_deposit_is_a_multiple_of_the_unit(native_world: World, excess: int) -> None:
    """A value that is no exact multiple of the unit is refused."""
    data = calls.open_(secrets.token_bytes(32), 0)
    value = CUSTOMER_DEPOSIT * UNIT + excess
    assert native_world.refusal(native_world.customer, data, value=value) == "unit"


@pytest.mark.parametrize(("customer_deposit", "merchant_deposit"), [(0, 0), (0, 5)])
def test_an_empty_deposit_is_refused(
    world: World, customer_deposit: int, merchant_deposit: int
) -> None:
    """The customer deposits something."""
    data, value = world.open_call(secrets.token_bytes(32), customer_deposit, merchant_deposit)
    assert world.refusal(world.customer, data, value=value * UNIT) == "deposit"


@pytest.mark.parametrize("merchant_deposit", [2**63 - CUSTOMER_DEPOSIT, 2**63, 2**255])
def test_deposits_stay_below_the_limit(world: World, merchant_deposit: int) -> None:
    """Deposits of 2**63 units and more have no signed balances and are refused."""
    data, value = world.open_call(secrets.token_bytes(32), CUSTOMER_DEPOSIT, merchant_deposit)
    assert world.refusal(world.customer, data, value=value * UNIT) == "deposit"


@pytest.mark.parametrize("merchant_deposit", [2**256 - 1, 2**256 - CUSTOMER_DEPOSIT])
def test_deposits_do_not_wrap_around(world: World, merchant_deposit: int) -> None:
    """A sum that overflows 256 bits reverts."""
    data, value = world.open_call(secrets.token_bytes(32), CUSTOMER_DEPOSIT, merchant_deposit)
    assert world.refusal(world.customer, data, value=value * UNIT) is not None


def test_the_largest_deposits_are_taken(world: World) -> None:
    """Deposits of 2**63 - 1 units in all can be opened."""
    merchant_deposit = 2**63 - 1 - CUSTOMER_DEPOSIT
    channel = world.open(merchant_deposit=merchant_deposit)
    assert world.record(channel).merchant_deposit == merchant_deposit


def test_each_asset_has_its_own_way_in(native_world: World, token_world: World) -> None:
    """An escrow of tokens takes no coin and an escrow of coin no tokens."""
    salt = secrets.token_bytes(32)
    permit = calls.open_permit(salt, 1, 0, 2**40, bytes(64) + b"\x1b")
    for data in (calls.open_token(salt, 1, 0), permit):
        assert native_world.refusal(native_world.customer, data) == "asset"
    opening = calls.open_(salt, 0)
    assert token_world.refusal(token_world.customer, opening, value=UNIT) == "asset"


def test_calls_that_take_no_coin_refuse_it(native_world: World) -> None:
    """Coin sent along with any call but open and fund is refused, and so is a bare transfer."""
    world = native_world
    channel = world.expiring()
    for key, data in (
        (world.customer, world.close_call(channel, bytes(32))),
        (world.guard, world.defend_call(channel, bytes(32))),
        (world.customer, world.mutual_call(channel)),
        (world.customer, b""),
    ):
        assert world.refusal(key, data, value=UNIT) is not None
        if data:
            assert world.refusal(key, data) is None


def test_a_permit_opens_in_one_transaction(token_world: World) -> None:
    """An EIP-2612 permit replaces the approval."""
    world, salt = token_world, secrets.token_bytes(32)
    _without_allowance(world)
    assert world.refusal(world.customer, calls.open_token(salt, 5, 0)) is not None
    world.do(world.customer, _permit_call(world, salt, 5)[0])
    assert world.record(world.channel_id(salt)).customer_deposit == 5


def test_a_permit_submitted_by_somebody_else_does_no_harm(token_world: World) -> None:
    """Whoever takes the permit out of the pool and submits it first does not stop the open."""
    world, salt = token_world, secrets.token_bytes(32)
    _without_allowance(world)
    data, deadline, permit = _permit_call(world, salt, 5)
    arguments = abi.encode(
        ("address", "address", "uint256", "uint256", "uint8", "bytes32", "bytes32"),
        (
            world.customer.address,
            world.escrow.address,
            5 * UNIT,
            deadline,
            permit[64],
            permit[:32],
            permit[32:64],
        ),
    )
    selector = bytes.fromhex("d505accf")  # permit(...) of EIP-2612
    world.do_to(world.escrow.token, world.stranger, selector + arguments)
    world.do(world.customer, data)
    assert world.record(world.channel_id(salt)).status is ChannelStatus.OPEN


def test_a_permit_of_another_owner_is_refused(token_world: World) -> None:
    """A permit that the customer did not sign opens nothing."""
    world = token_world
    _without_allowance(world)
    data, _, _ = _permit_call(world, secrets.token_bytes(32), 5, signer=world.stranger)
    assert world.refusal(world.customer, data) == "permit"


def test_tokens_not_approved_are_not_taken(token_world: World) -> None:
    """Nobody opens a channel with tokens it did not approve."""
    data = calls.open_token(secrets.token_bytes(32), 5, 0)
    assert token_world.refusal(token_world.stranger, data) is not None


# Dual funding


def test_the_merchants_deposit_opens_the_channel(world: World) -> None:
    """A dual-funded channel waits, with a deadline, until the merchant pays in its part."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    waiting = world.record(channel)
    assert waiting.status is ChannelStatus.AWAITING_MERCHANT
    assert waiting.deadline == world.chain.time() + DELAY
    world.fund(channel)
    funded = world.record(channel)
    assert (funded.status, funded.deadline) == (ChannelStatus.OPEN, 0)
    assert (funded.customer_deposit, funded.merchant_deposit) == (700, 300)


@pytest.mark.parametrize(
    ("customer_deposit", "merchant_deposit"),
    [
        (CUSTOMER_DEPOSIT - 1, MERCHANT_DEPOSIT),
        (CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT + 1),
        (MERCHANT_DEPOSIT, CUSTOMER_DEPOSIT),
        (CUSTOMER_DEPOSIT | MERCHANT_DEPOSIT << 64, 0),
        (CUSTOMER_DEPOSIT, 0),
        (0, MERCHANT_DEPOSIT),
    ],
)
def test_fund_names_the_terms(world: World, customer_deposit: int, merchant_deposit: int) -> None:
    """Fund is refused unless both deposits are those of the channel, whatever is paid in."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    data = calls.fund(channel, customer_deposit, merchant_deposit)
    for value in {0, merchant_deposit * UNIT, MERCHANT_DEPOSIT * UNIT}:
        assert world.refusal(world.merchant, data, value=value) == "terms"


@pytest.mark.parametrize("value", [0, MERCHANT_DEPOSIT * UNIT - 1, MERCHANT_DEPOSIT * UNIT + 1])
def test_fund_takes_the_exact_value(native_world: World, value: int) -> None:
    """Fund with more or less coin than the merchant's deposit is refused."""
    world = native_world
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    data = calls.fund(channel, CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT)
    assert world.refusal(world.merchant, data, value=value) == "value"


def test_fund_with_tokens_takes_no_coin(token_world: World) -> None:
    """Coin sent along with a deposit of tokens is refused."""
    world = token_world
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    data = calls.fund(channel, CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT)
    assert world.refusal(world.merchant, data, value=1) == "value"
    assert world.refusal(world.merchant, data) is None


def test_reclaim_returns_the_deposit_after_the_deadline(world: World) -> None:
    """From the block after the deadline anyone can send the customer its deposit back."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    world.chain.set_next_time(world.record(channel).deadline)
    attempt = world.chain.send(world.stranger, world.escrow.address, calls.reclaim(channel))
    assert not attempt.succeeded
    world.pass_deadline(channel)
    before = world.escrow.balance(world.customer.address)
    receipt = world.do(world.stranger, calls.reclaim(channel))
    assert escrow_events(receipt, world.escrow) == [events.Reclaimed(channel)]
    assert world.escrow.balance(world.customer.address) - before == CUSTOMER_DEPOSIT * UNIT
    assert world.record(channel).customer_balance == CUSTOMER_DEPOSIT


def test_a_late_deposit_of_the_merchant_still_counts(world: World) -> None:
    """After the deadline fund works as long as nobody reclaimed."""
    channel = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    world.pass_deadline(channel)
    world.fund(channel)
    assert world.refusal(world.stranger, calls.reclaim(channel)) == "status"


# Tokens that misbehave


def _hostile(chain: DevChain) -> World:
    token = chain.deploy(DEV_KEYS[0], bytecode("HostileToken"))
    return World(Escrow.deploy(chain, token=token))


def test_a_token_that_takes_a_fee_is_refused(chain: DevChain) -> None:
    """Fewer tokens than named arriving is refused in open and in fund."""
    world = _hostile(chain)
    waiting = world.open(merchant_deposit=MERCHANT_DEPOSIT)
    set_fee = abi.selector("set_fee", ("uint256",)) + (1).to_bytes(32)
    world.do_to(world.escrow.token, world.stranger, set_fee)
    salt = secrets.token_bytes(32)
    assert world.refusal(world.customer, calls.open_token(salt, 5, 0)) == "fee on transfer"
    permit = calls.open_permit(salt, 5, 0, 2**40, bytes(64) + b"\x1b")
    assert world.refusal(world.customer, permit) == "fee on transfer"
    fund = calls.fund(waiting, CUSTOMER_DEPOSIT, MERCHANT_DEPOSIT)
    assert world.refusal(world.merchant, fund) == "fee on transfer"


def test_a_token_that_answers_false_is_refused(chain: DevChain) -> None:
    """A transfer that answers false opens nothing."""
    world = _hostile(chain)
    answer = abi.selector("answer", ("bool",)) + bytes(32)
    world.do_to(world.escrow.token, world.stranger, answer)
    data = calls.open_token(secrets.token_bytes(32), 5, 0)
    assert world.refusal(world.customer, data) == "transfer"


def test_a_token_that_answers_nothing_works(chain: DevChain) -> None:
    """Old tokens, whose transfers return nothing, are taken and paid out."""
    token = chain.deploy(DEV_KEYS[0], bytecode("SilentToken"))
    world = World(Escrow.deploy(chain, token=token))
    channel = world.open()
    world.do(world.customer, world.mutual_call(channel, customer_balance=200))
    assert world.escrow.balance(world.customer.address) == TOKENS - 500 * UNIT
    world.escrow.check_books()


def test_a_token_that_does_not_exist_is_refused(chain: DevChain) -> None:
    """An asset without code cannot be deposited."""
    escrow = Escrow.deploy(chain, token=bytes(19) + b"\x77")
    data = calls.open_token(secrets.token_bytes(32), 5, 0)
    with pytest.raises(ChainRefused):
        chain.view(escrow.address, data, sender=DEV_KEYS[4].address)
