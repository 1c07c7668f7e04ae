"""An escrow with a customer, a merchant, a guard and a stranger, and checks of its books."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contract.ps import Key
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.control import ChainRefused, DevChain, MinedReceipt
from zkchannels.escrow import artefact, calls, typed_data
from zkchannels.escrow.abi import encode, selector
from zkchannels.escrow.compile import compiled
from zkchannels.escrow.ethereum import ZERO_ADDRESS, PrivateKey, keccak256
from zkchannels.escrow.events import ChannelEvent, EscrowEvent, Owed, Withdrawn, decode_event
from zkchannels.escrow.record import ChannelRecord, ChannelStatus, fold

if TYPE_CHECKING:
    from collections.abc import Iterable

DELAY = 3600
UNIT = 1000
ETHER = 10**18
TOKENS = 10**27
CUSTOMER_DEPOSIT = 700
MERCHANT_DEPOSIT = 300
LIVE = {ChannelStatus.OPEN, ChannelStatus.EXPIRING, ChannelStatus.CLOSING}


def lock_of(secret: bytes) -> int:
    """The lock of a revocation secret."""
    return int.from_bytes(keccak256(secret)) >> 3


@cache
def bytecode(name: str) -> bytes:
    """Creation code of a contract that only the tests have."""
    text = compiled(Path(__file__).with_name(f"{name}.vy"))["bytecode"]
    assert isinstance(text, str)
    return bytes.fromhex(text[2:])


@dataclass
class Escrow:
    """A deployed escrow and the secrets of its merchant; tests share one per chain and asset."""

    chain: DevChain
    address: bytes
    token: bytes  # zero for the native coin
    key: Key
    merchant: PrivateKey
    unit: int = UNIT
    delay: int = DELAY
    first_block: int = 0
    _balance_before: int = 0

    @classmethod
    def deploy(
        cls,
        chain: DevChain,
        *,
        token: bytes = ZERO_ADDRESS,
        merchant: PrivateKey = DEV_KEYS[1],
        merchant_address: bytes | None = None,
        key: Key | None = None,
        unit: int = UNIT,
    ) -> Escrow:
        """A new escrow; of the native coin unless a token is named."""
        key = key or Key()
        receiver = merchant_address or merchant.address
        data = artefact.deployment_data(receiver, token, unit, DELAY, key.public)
        return cls(chain, chain.deploy(DEV_KEYS[0], data), token, key, merchant, unit)

    @property
    def native(self) -> bool:
        """Whether the asset is the native coin."""
        return self.token == ZERO_ADDRESS

    def open_books(self) -> None:
        """Let `check_books` look at what happens from now on: what came before was checked."""
        self.first_block = self.chain.head() + 1
        self._balance_before = self.balance(self.address)

    def events(self) -> list[EscrowEvent]:
        """Everything that happened since the books were opened."""
        logs = self.chain.logs(self.address, from_block=self.first_block)
        return [decode_event(log) for log in logs]

    def record(self, channel: int) -> ChannelRecord:
        """What the contract's view says."""
        return calls.decode_channel(self.chain.view(self.address, calls.channel(channel)))

    def owed(self, account: bytes) -> int:
        """Units kept for an account."""
        return calls.decode_number(self.chain.view(self.address, calls.owed(account)))

    def balance(self, account: bytes) -> int:
        """The asset an account has, base units."""
        if self.native:
            return self.chain.balance(account)
        return calls.decode_number(self.chain.view(self.token, calls.balance_of(account)))

    def check_books(self) -> None:
        """Views equal what the events say, and the escrow has exactly what it must pay out."""
        channels: dict[int, list[ChannelEvent]] = defaultdict(list)
        owed: dict[bytes, int] = defaultdict(int)
        for event in self.events():
            match event:
                case Owed():
                    owed[event.receiver] += event.amount
                case Withdrawn():
                    assert owed.pop(event.receiver) == event.amount
                case _:
                    channels[event.channel].append(event)
        held = sum(owed.values())
        for channel, events in channels.items():
            record = fold(events)
            assert self.record(channel) == record
            if record.status is ChannelStatus.AWAITING_MERCHANT:
                held += record.customer_deposit
            elif record.status in LIVE:
                held += record.customer_deposit + record.merchant_deposit
        for account, amount in owed.items():
            assert self.owed(account) == amount
        assert self.balance(self.address) - self._balance_before == held * self.unit


@dataclass
class World:
    """An escrow and accounts of this test's own; amounts in units."""

    escrow: Escrow
    customer: PrivateKey = field(default_factory=lambda: PrivateKey(secrets.token_bytes(32)))
    guard: PrivateKey = DEV_KEYS[2]
    stranger: PrivateKey = DEV_KEYS[3]

    def __post_init__(self) -> None:
        self.chain = self.escrow.chain
        self.merchant = self.escrow.merchant
        self.chain.faucet(self.customer.address, 10 * ETHER)
        if not self.escrow.native:
            self._provide(self.customer)
            if self.escrow.balance(self.merchant.address) < TOKENS // 2:
                self._provide(self.merchant)

    def _provide(self, key: PrivateKey) -> None:
        """Tokens, and the escrow's permission to take them."""
        self.do_to(self.escrow.token, key, calls.mint(key.address, TOKENS))
        self.do_to(self.escrow.token, key, calls.approve(self.escrow.address, TOKENS))

    # Acting

    def do(self, key: PrivateKey, data: bytes, *, value: int = 0) -> MinedReceipt:
        """A transaction to the escrow that must succeed; value in units. Returns its receipt."""
        return self.do_to(self.escrow.address, key, data, value=value * self.escrow.unit)

    def do_to(self, to: bytes, key: PrivateKey, data: bytes, *, value: int = 0) -> MinedReceipt:
        """A transaction to any contract that must succeed; value in wei."""
        receipt = self.chain.send(key, to, data, value=value)
        if not receipt.succeeded:
            self.chain.view(to, data, sender=key.address, value=value)  # raises with the reason
        assert receipt.succeeded
        return receipt

    def refusal(self, key: PrivateKey | bytes, data: bytes, *, value: int = 0) -> str | None:
        """Why a call to the escrow would be refused now, or None if it would not; value in wei."""
        sender = key if isinstance(key, bytes) else key.address
        try:
            self.chain.view(self.escrow.address, data, sender=sender, value=value)
        except ChainRefused as error:
            return error.reason
        return None

    def pass_deadline(self, channel: int) -> None:
        """Move the chain's time behind a channel's deadline."""
        missing = self.record(channel).deadline + 1 - self.chain.time()
        if missing > 0:
            self.chain.increase_time(missing)

    # Channels in each status

    def record(self, channel: int) -> ChannelRecord:
        """What the contract's view says."""
        return self.escrow.record(channel)

    def channel_id(self, salt: bytes, customer: bytes | None = None) -> int:
        """The id the contract gives to a channel of the customer."""
        data = calls.channel_id(customer or self.customer.address, salt)
        return calls.decode_number(self.chain.view(self.escrow.address, data))

    def open_call(
        self, salt: bytes, customer_deposit: int, merchant_deposit: int
    ) -> tuple[bytes, int]:
        """Call data and value (units) that open a channel."""
        if self.escrow.native:
            return calls.open_(salt, merchant_deposit), customer_deposit
        return calls.open_token(salt, customer_deposit, merchant_deposit), 0

    def open(
        self,
        *,
        customer_deposit: int = CUSTOMER_DEPOSIT,
        merchant_deposit: int = 0,
        salt: bytes | None = None,
    ) -> int:
        """A new channel: OPEN, or awaiting the merchant's deposit."""
        salt = salt or secrets.token_bytes(32)
        data, value = self.open_call(salt, customer_deposit, merchant_deposit)
        self.do(self.customer, data, value=value)
        return self.channel_id(salt)

    def fund(self, channel: int) -> None:
        """The merchant's deposit."""
        record = self.record(channel)
        amount = record.merchant_deposit
        data = calls.fund(channel, record.customer_deposit, amount)
        self.do(self.merchant, data, value=amount if self.escrow.native else 0)

    def expiring(self) -> int:
        """A new channel, EXPIRING."""
        channel = self.open()
        self.do(self.merchant, calls.expire(channel))
        return channel

    # Signed things

    def split(self, channel: int, customer_balance: int | None) -> tuple[int, int]:
        """Balances that add up to the channel's deposits."""
        record = self.record(channel)
        total = record.customer_deposit + record.merchant_deposit
        customer = total * 3 // 5 if customer_balance is None else customer_balance
        return customer, total - customer

    def close_call(
        self, channel: int, secret: bytes, *, customer_balance: int | None = None
    ) -> bytes:
        """A correct close."""
        balances = self.split(channel, customer_balance)
        lock = lock_of(secret)
        signature = self.escrow.key.close(channel, lock, *balances)
        return calls.close(channel, lock, *balances, signature)

    def permit(  # noqa: PLR0917
        self,
        channel: int,
        lock: int,
        customer_balance: int,
        merchant_balance: int,
        guard: bytes | None = None,
        signer: PrivateKey | None = None,
    ) -> bytes:
        """The customer's permit for a guard."""
        digest = typed_data.guard_permit_digest(
            self.chain.chain_id,
            self.escrow.address,
            channel,
            lock,
            customer_balance,
            merchant_balance,
            guard or self.guard.address,
        )
        return (signer or self.customer).sign_digest(digest)

    def defend_call(
        self,
        channel: int,
        secret: bytes,
        *,
        customer_balance: int | None = None,
        guard: bytes | None = None,
    ) -> bytes:
        """A correct defence."""
        balances = self.split(channel, customer_balance)
        lock = lock_of(secret)
        signature = self.escrow.key.close(channel, lock, *balances)
        permit = self.permit(channel, lock, *balances, guard)
        return calls.defend(channel, lock, *balances, signature, permit)

    def mutual_call(self, channel: int, *, customer_balance: int | None = None) -> bytes:
        """A correct mutual close."""
        balances = self.split(channel, customer_balance)
        digest = typed_data.mutual_close_digest(
            self.chain.chain_id, self.escrow.address, channel, *balances
        )
        return calls.mutual_close(channel, *balances, self.merchant.sign_digest(digest))


class Puppet:
    """A contract that acts for a test and reacts to coin as told."""

    def __init__(self, chain: DevChain, owner: PrivateKey) -> None:
        self._chain = chain
        self._owner = owner
        data = bytecode("Puppet") + owner.address.rjust(32, b"\0")
        self.address = chain.deploy(owner, data)

    def act(self, to: bytes, data: bytes, *, value: int = 0) -> MinedReceipt:
        """Make the puppet call a contract; value in wei comes from the owner."""
        types = ("address", "bytes", "uint256")
        call = selector("act", types) + encode(types, (to, data, value))
        receipt = self._chain.send(self._owner, self.address, call, value=value)
        if not receipt.succeeded:
            self._chain.view(self.address, call, sender=self._owner.address, value=value)
        assert receipt.succeeded
        return receipt

    def on_receive(self, reaction: str, target: bytes = ZERO_ADDRESS, data: bytes = b"") -> None:
        """Set how it reacts to coin: accept, refuse, burn (all gas) or call (a contract)."""
        number = ("accept", "refuse", "burn", "call").index(reaction)
        types = ("uint256", "address", "bytes")
        call = selector("on_receive", types) + encode(types, (number, target, data))
        assert self._chain.send(self._owner, self.address, call).succeeded


def reactions(receipt: MinedReceipt, contract: bytes) -> list[bool]:
    """Whether each call a puppet or a hostile token made as reaction succeeded."""
    return [
        any(log.data) for log in receipt.logs if log.address == contract and len(log.topics) == 1
    ]


def escrow_events(receipt: MinedReceipt, escrow: Escrow) -> list[EscrowEvent]:
    """The escrow's events in a receipt."""
    return decoded(log for log in receipt.logs if log.address == escrow.address)


def decoded(logs: Iterable[object]) -> list[EscrowEvent]:
    """Events of logs."""
    return [decode_event(log) for log in logs]  # type: ignore[arg-type]
