"""Receivers that refuse, burn or call back, and tokens that do: nobody blocks or robs another."""

from __future__ import annotations

import secrets

import pytest

from tests.contract.world import (
    CUSTOMER_DEPOSIT,
    MERCHANT_DEPOSIT,
    UNIT,
    Escrow,
    Puppet,
    World,
    bytecode,
    escrow_events,
    lock_of,
    reactions,
)
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.control import DevChain
from zkchannels.escrow import abi, calls, events
from zkchannels.escrow.ethereum import ZERO_ADDRESS, PrivateKey
from zkchannels.escrow.record import ChannelStatus

SECRET = 32 * b"\x09"
LOCK = lock_of(SECRET)
CUSTOMER_BALANCE, MERCHANT_BALANCE = 300, 400


def _puppet_closing(world: World, puppet: Puppet) -> int:
    """A channel whose customer is a contract, CLOSING with its deadline passed."""
    salt = secrets.token_bytes(32)
    puppet.act(world.escrow.address, calls.open_(salt, 0), value=CUSTOMER_DEPOSIT * UNIT)
    channel = world.channel_id(salt, puppet.address)
    balances = (CUSTOMER_BALANCE, MERCHANT_BALANCE)
    signature = world.escrow.key.close(channel, LOCK, *balances)
    puppet.act(world.escrow.address, calls.close(channel, LOCK, *balances, signature))
    world.pass_deadline(channel)
    return channel


# Native coin


@pytest.mark.parametrize("reaction", ["refuse", "burn"])
def test_a_customer_that_cannot_be_paid_blocks_nobody(native_world: World, reaction: str) -> None:
    """The merchant is paid; the customer's part waits and can be sent anywhere by it alone."""
    world = native_world
    puppet = Puppet(world.chain, world.customer)
    channel = _puppet_closing(world, puppet)
    puppet.on_receive(reaction)
    before = world.chain.balance(world.merchant.address)
    receipt = world.do(world.stranger, calls.claim(channel))
    assert world.chain.balance(world.merchant.address) - before == MERCHANT_BALANCE * UNIT
    assert events.Owed(puppet.address, CUSTOMER_BALANCE) in escrow_events(receipt, world.escrow)
    assert world.escrow.owed(puppet.address) == CUSTOMER_BALANCE
    assert receipt.gas_used < 200_000
    assert world.refusal(world.stranger, calls.withdraw(puppet.address)) == "nothing owed"
    target = PrivateKey(secrets.token_bytes(32)).address
    receipt = puppet.act(world.escrow.address, calls.withdraw(target))
    assert escrow_events(receipt, world.escrow) == [
        events.Withdrawn(puppet.address, target, CUSTOMER_BALANCE)
    ]
    assert world.chain.balance(target) == CUSTOMER_BALANCE * UNIT
    assert world.escrow.owed(puppet.address) == 0
    assert world.refusal(puppet.address, calls.withdraw(target)) == "nothing owed"


def test_a_withdrawal_that_fails_keeps_what_is_owed(native_world: World) -> None:
    """Withdrawing to a receiver that refuses reverts and nothing is lost."""
    world = native_world
    puppet = Puppet(world.chain, world.customer)
    channel = _puppet_closing(world, puppet)
    puppet.on_receive("refuse")
    world.do(world.stranger, calls.claim(channel))
    assert world.refusal(puppet.address, calls.withdraw(puppet.address)) is not None
    puppet.on_receive("accept")
    puppet.act(world.escrow.address, calls.withdraw(puppet.address))
    assert world.chain.balance(puppet.address) == CUSTOMER_BALANCE * UNIT


def test_reclaim_to_a_customer_that_refuses_is_owed(native_world: World) -> None:
    """A reclaim succeeds even when the customer cannot be paid."""
    world = native_world
    puppet = Puppet(world.chain, world.customer)
    salt = secrets.token_bytes(32)
    data = calls.open_(salt, MERCHANT_DEPOSIT)
    puppet.act(world.escrow.address, data, value=CUSTOMER_DEPOSIT * UNIT)
    channel = world.channel_id(salt, puppet.address)
    puppet.on_receive("refuse")
    world.pass_deadline(channel)
    world.do(world.stranger, calls.reclaim(channel))
    assert world.escrow.owed(puppet.address) == CUSTOMER_DEPOSIT
    puppet.on_receive("accept")
    puppet.act(world.escrow.address, calls.withdraw(puppet.address))


def test_a_merchant_that_cannot_be_paid_blocks_nobody(chain: DevChain) -> None:
    """The customer is paid although the merchant's contract refuses; two debts add up."""
    puppet = Puppet(chain, DEV_KEYS[6])
    world = World(Escrow.deploy(chain, merchant_address=puppet.address))
    puppet.on_receive("refuse")
    for _ in range(2):
        channel = world.open()
        world.do(world.customer, world.close_call(channel, SECRET, customer_balance=300))
        world.pass_deadline(channel)
        before = chain.balance(world.customer.address)
        world.do(world.stranger, calls.claim(channel))
        assert chain.balance(world.customer.address) - before == 300 * UNIT
    assert world.escrow.owed(puppet.address) == 800
    world.escrow.check_books()
    puppet.act(world.escrow.address, calls.withdraw(world.stranger.address))
    world.escrow.check_books()


def test_a_customer_that_is_paid_cannot_reenter(native_world: World) -> None:
    """Calls back into the escrow from a payout fail; everybody gets exactly its part."""
    world = native_world
    withdraw = calls.withdraw(world.stranger.address)
    for inner in (None, withdraw):
        puppet = Puppet(world.chain, world.customer)
        channel = _puppet_closing(world, puppet)
        data = calls.claim(channel) if inner is None else inner
        puppet.on_receive("call", world.escrow.address, data)
        before = world.chain.balance(world.merchant.address)
        receipt = world.do(world.stranger, calls.claim(channel))
        assert reactions(receipt, puppet.address) == [False]
        assert world.chain.balance(puppet.address) == CUSTOMER_BALANCE * UNIT
        assert world.chain.balance(world.merchant.address) - before == MERCHANT_BALANCE * UNIT


def test_a_withdrawal_cannot_be_reentered(native_world: World) -> None:
    """During a withdrawal neither a second one nor another channel's claim works."""
    world = native_world
    puppet = Puppet(world.chain, world.customer)
    first, second = _puppet_closing(world, puppet), _puppet_closing(world, puppet)
    puppet.on_receive("refuse")
    world.do(world.stranger, calls.claim(first))
    for data in (calls.withdraw(puppet.address), calls.claim(second)):
        snapshot = world.chain.snapshot()
        puppet.on_receive("call", world.escrow.address, data)
        receipt = puppet.act(world.escrow.address, calls.withdraw(puppet.address))
        assert reactions(receipt, puppet.address) == [False]
        assert world.chain.balance(puppet.address) == CUSTOMER_BALANCE * UNIT
        world.chain.revert(snapshot)
    puppet.on_receive("accept")
    puppet.act(world.escrow.address, calls.withdraw(puppet.address))


def test_little_gas_does_not_turn_a_payout_into_a_debt(native_world: World) -> None:
    """Whoever claims with too little gas fails as a whole; an honest receiver is paid at once."""
    world = native_world
    puppet = Puppet(world.chain, world.customer)
    channel = _puppet_closing(world, puppet)
    puppet.on_receive("call", ZERO_ADDRESS, b"")  # a receiver with some work to do
    for gas in range(60_000, 160_000, 2_000):
        receipt = world.chain.send(
            world.stranger, world.escrow.address, calls.claim(channel), gas=gas
        )
        if receipt.succeeded:
            break
    assert receipt.succeeded
    assert escrow_events(receipt, world.escrow) == [
        events.Settled(channel, CUSTOMER_BALANCE, MERCHANT_BALANCE)
    ]


# Tokens


class _Hostile:
    """A world whose token does what the test says."""

    def __init__(self, chain: DevChain) -> None:
        self.token = chain.deploy(DEV_KEYS[0], bytecode("HostileToken"))
        self.world = World(Escrow.deploy(chain, token=self.token))

    def tell(self, name: str, types: tuple[str, ...], *values: bytes | int | bool) -> None:
        """Call one of the token's knobs."""
        data = abi.selector(name, types) + abi.encode(types, values)
        self.world.do_to(self.token, self.world.stranger, data)

    def closing(self) -> int:
        """A channel whose close can be claimed."""
        channel = self.world.open()
        data = self.world.close_call(channel, SECRET, customer_balance=CUSTOMER_BALANCE)
        self.world.do(self.world.customer, data)
        self.world.pass_deadline(channel)
        return channel


@pytest.mark.parametrize("who", ["customer", "merchant"])
def test_a_blacklisted_receiver_blocks_nobody(chain: DevChain, who: str) -> None:
    """A transfer the token reverts is owed; the other side is paid; withdraw goes elsewhere."""
    hostile = _Hostile(chain)
    world = hostile.world
    channel = hostile.closing()
    banned = world.customer if who == "customer" else world.merchant
    paid = world.merchant if who == "customer" else world.customer
    shares = {"customer": CUSTOMER_BALANCE, "merchant": MERCHANT_BALANCE}
    hostile.tell("refuse", ("address", "bool"), banned.address, True)
    before = world.escrow.balance(paid.address)
    world.do(world.stranger, calls.claim(channel))
    other = CUSTOMER_DEPOSIT - shares[who]
    assert world.escrow.balance(paid.address) - before == other * UNIT
    assert world.escrow.owed(banned.address) == shares[who]
    assert world.refusal(banned, calls.withdraw(banned.address)) is not None
    target = secrets.token_bytes(20)
    world.do(banned, calls.withdraw(target))
    assert world.escrow.balance(target) == shares[who] * UNIT
    world.escrow.check_books()


def test_a_token_that_answers_false_is_owed(chain: DevChain) -> None:
    """A transfer that answers false counts as not made, in payouts and in withdrawals."""
    hostile = _Hostile(chain)
    world = hostile.world
    channel = hostile.closing()
    hostile.tell("answer", ("bool",), False)
    world.do(world.stranger, calls.claim(channel))
    assert world.escrow.owed(world.customer.address) == CUSTOMER_BALANCE
    assert world.escrow.owed(world.merchant.address) == MERCHANT_BALANCE
    assert world.refusal(world.customer, calls.withdraw(world.customer.address)) == "transfer"
    hostile.tell("answer", ("bool",), True)
    world.do(world.customer, calls.withdraw(world.customer.address))
    world.escrow.check_books()


def test_a_token_cannot_reenter_on_the_way_in(chain: DevChain) -> None:
    """A token calling back during a deposit cannot make it count twice."""
    hostile = _Hostile(chain)
    world = hostile.world
    salt = secrets.token_bytes(32)
    inner = calls.open_token(secrets.token_bytes(32), 5, 0)
    hostile.tell("on_transfer", ("address", "bytes"), world.escrow.address, inner)
    receipt = world.do(world.customer, calls.open_token(salt, 5, 0))
    assert reactions(receipt, hostile.token) == [False]
    world.escrow.check_books()


def test_a_token_cannot_reenter_on_the_way_out(chain: DevChain) -> None:
    """A token calling back during a payout finds the escrow closed."""
    hostile = _Hostile(chain)
    world = hostile.world
    first, second = hostile.closing(), hostile.closing()
    inner = calls.claim(second)
    hostile.tell("on_transfer", ("address", "bytes"), world.escrow.address, inner)
    receipt = world.do(world.stranger, calls.claim(first))
    assert reactions(receipt, hostile.token) == [False, False]
    assert world.record(second).status is ChannelStatus.CLOSING
    world.escrow.check_books()
