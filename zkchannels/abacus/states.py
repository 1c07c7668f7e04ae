"""What customer and merchant sign and prove about: states, close states, channel ids and locks."""

from __future__ import annotations

from dataclasses import dataclass, field

from Crypto.Hash import keccak

from zkchannels.abacus.errors import InvalidStatement
from zkchannels.abacus.parameters import CLOSE, HASH_BITS, MAX_BALANCE, VERSION, R

ADDRESS_LENGTH = 20
SALT_LENGTH = 32
SECRET_LENGTH = 32
SESSION_LENGTH = 16


@dataclass(frozen=True, slots=True)
class CloseState:
    """A state as the escrow contract sees it: the CLOSE tag stands in the nonce's place.

    Balances are in units of the escrow. Raises InvalidStatement for a channel id or lock of
    2**253 or more, or a balance outside [0, 2**63).
    """

    channel_id: int
    lock: int
    customer_balance: int
    merchant_balance: int

    def __post_init__(self) -> None:
        _check_hash("channel id", self.channel_id)
        _check_hash("lock", self.lock)
        _check_balance("customer", self.customer_balance)
        _check_balance("merchant", self.merchant_balance)

    @property
    def messages(self) -> tuple[int, int, int, int, int]:
        """The five values under the merchant's signature."""
        return (
            self.channel_id,
            CLOSE,
            self.lock,
            self.customer_balance,
            self.merchant_balance,
        )


@dataclass(frozen=True, slots=True)
class State:
    """One state of a channel; its nonce stays secret until the state is spent.

    Balances are in units of the escrow. Raises InvalidStatement for a nonce outside [0, R) or
    equal to CLOSE, a channel id or lock of 2**253 or more, or a balance outside [0, 2**63).
    """

    channel_id: int
    nonce: int = field(repr=False)
    lock: int = field(repr=False)
    customer_balance: int
    merchant_balance: int

    def __post_init__(self) -> None:
        if not 0 <= self.nonce < R or self.nonce == CLOSE:
            raise InvalidStatement("a nonce lies outside [0, R) or equals CLOSE")
        self.close_state()

    def close_state(self) -> CloseState:
        """Return the close state that belongs to this state."""
        return CloseState(
            channel_id=self.channel_id,
            lock=self.lock,
            customer_balance=self.customer_balance,
            merchant_balance=self.merchant_balance,
        )

    @property
    def messages(self) -> tuple[int, int, int, int, int]:
        """The five values under the merchant's signature."""
        return (
            self.channel_id,
            self.nonce,
            self.lock,
            self.customer_balance,
            self.merchant_balance,
        )


def channel_id(chain_id: int, escrow: bytes, customer: bytes, salt: bytes) -> int:
    """Return the id of the channel that a customer opens with a salt: below 2**253.

    Args:
        chain_id: id of the EVM chain, below 2**256
        escrow: address of the escrow contract, 20 bytes
        customer: address of the customer's account, 20 bytes
        salt: 32 random bytes, fresh for every channel

    Raises:
        InvalidStatement: an argument has another length or range
    """
    _check_length("escrow address", escrow, ADDRESS_LENGTH)
    _check_length("customer address", customer, ADDRESS_LENGTH)
    _check_length("salt", salt, SALT_LENGTH)
    data = _chain_word(chain_id) + escrow.rjust(32, b"\0") + customer.rjust(32, b"\0") + salt
    return _hash(data)


def lock_of(secret: bytes) -> int:
    """Return the lock of a 32-byte revocation secret: below 2**253."""
    _check_length("revocation secret", secret, SECRET_LENGTH)
    return _hash(secret)


def context(chain_id: int, escrow: bytes, session: bytes) -> bytes:
    """Return what ties a proof to one session of one escrow on one chain: 72 bytes.

    Args:
        chain_id: id of the EVM chain, below 2**256
        escrow: address of the escrow contract, 20 bytes
        session: id that the merchant drew for this session, 16 bytes

    Raises:
        InvalidStatement: an argument has another length or range
    """
    _check_length("escrow address", escrow, ADDRESS_LENGTH)
    _check_length("session id", session, SESSION_LENGTH)
    return VERSION.to_bytes(4, "big") + _chain_word(chain_id) + escrow + session


def _hash(data: bytes) -> int:
    digest = keccak.new(digest_bits=256, data=data).digest()
    return int.from_bytes(digest, "big") >> 256 - HASH_BITS


def _chain_word(chain_id: int) -> bytes:
    if not 0 <= chain_id < 2**256:
        raise InvalidStatement("a chain id lies outside [0, 2**256)")
    return chain_id.to_bytes(32, "big")


def _check_length(what: str, data: bytes, length: int) -> None:
    if len(data) != length:
        raise InvalidStatement(f"the {what} has {len(data)} bytes instead of {length}")


def _check_hash(what: str, value: int) -> None:
    if not 0 <= value < 2**HASH_BITS:
        raise InvalidStatement(f"a {what} lies outside [0, 2**{HASH_BITS})")


def _check_balance(whose: str, value: int) -> None:
    if not 0 <= value <= MAX_BALANCE:
        raise InvalidStatement(f"the {whose} balance lies outside [0, 2**63)")
