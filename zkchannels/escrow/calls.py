"""Calls of the escrow and of ERC-20 tokens: one dataclass and one builder each, and their decoding.

A builder returns call data. `decode_call` turns the data of a transaction to the escrow back into
the dataclass, for whoever is asked to sign it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, ClassVar, TypeAlias

from zkchannels.escrow import abi
from zkchannels.escrow.ethereum import SIGNATURE_LENGTH, EthereumError
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

CLOSING_SIGNATURE_LENGTH = 256

_WORD = "uint256"
_CLOSE_STATE = (_WORD, _WORD, _WORD, _WORD, "bytes")
_ECDSA = ("uint8", "bytes32", "bytes32")


class UnknownCall(EthereumError):
    """Call data whose selector is none of the escrow's."""


class _Call:
    """What all calls share: name and argument types as in the contract."""

    __slots__ = ()
    NAME: ClassVar[str]
    TYPES: ClassVar[tuple[str, ...]]

    def encode(self) -> bytes:
        """Call data."""
        values: list[abi.Value] = []
        for name, value in zip(self.__match_args__, astuple(self), strict=True):  # type: ignore[attr-defined, call-overload]
            values += _split(value) if name in ("permit", "agreement") else [value]
        return abi.selector(self.NAME, self.TYPES) + abi.encode(self.TYPES, values)


@dataclass(frozen=True, slots=True)
class Open(_Call):
    """Open a channel with the native coin; the transaction's value is the customer's deposit."""

    NAME = "open"
    TYPES = ("bytes32", _WORD)
    salt: bytes
    merchant_deposit: int


@dataclass(frozen=True, slots=True)
class OpenToken(_Call):
    """Open a channel with tokens approved before."""

    NAME = "open_token"
    TYPES = ("bytes32", _WORD, _WORD)
    salt: bytes
    customer_deposit: int
    merchant_deposit: int


@dataclass(frozen=True, slots=True)
class OpenPermit(_Call):
    """Open a channel with tokens approved by an EIP-2612 permit, r|s|v."""

    NAME = "open_permit"
    TYPES = ("bytes32", _WORD, _WORD, _WORD, *_ECDSA)
    salt: bytes
    customer_deposit: int
    merchant_deposit: int
    permit_deadline: int
    permit: bytes


@dataclass(frozen=True, slots=True)
class Fund(_Call):
    """The merchant's deposit into a channel on exactly these terms."""

    NAME = "fund"
    TYPES = (_WORD, _WORD, _WORD)
    channel: int
    customer_deposit: int
    merchant_deposit: int


@dataclass(frozen=True, slots=True)
class Reclaim(_Call):
    """Return the deposit of a channel the merchant did not fund."""

    NAME = "reclaim"
    TYPES = (_WORD,)
    channel: int


@dataclass(frozen=True, slots=True)
class Expire(_Call):
    """The merchant's demand that the channel be closed."""

    NAME = "expire"
    TYPES = (_WORD,)
    channel: int


@dataclass(frozen=True, slots=True)
class Close(_Call):
    """The customer's close on a close state; the signature is sigma1 | sigma2 (EIP-2537)."""

    NAME = "close"
    TYPES = _CLOSE_STATE
    channel: int
    lock: int
    customer_balance: int
    merchant_balance: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Defend(_Call):
    """A guard's close with the customer's permit, r|s|v."""

    NAME = "defend"
    TYPES = (*_CLOSE_STATE, *_ECDSA)
    channel: int
    lock: int
    customer_balance: int
    merchant_balance: int
    signature: bytes
    permit: bytes


@dataclass(frozen=True, slots=True)
class Dispute(_Call):
    """Proof that the posted close state was revoked."""

    NAME = "dispute"
    TYPES = (_WORD, "bytes32")
    channel: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Claim(_Call):
    """End of a close whose deadline has passed."""

    NAME = "claim"
    TYPES = (_WORD,)
    channel: int


@dataclass(frozen=True, slots=True)
class MutualClose(_Call):
    """The customer's close on balances the merchant signed, r|s|v."""

    NAME = "mutual_close"
    TYPES = (_WORD, _WORD, _WORD, *_ECDSA)
    channel: int
    customer_balance: int
    merchant_balance: int
    agreement: bytes


@dataclass(frozen=True, slots=True)
class Withdraw(_Call):
    """Payout of what the escrow owes the sender, to any address."""

    NAME = "withdraw"
    TYPES = ("address",)
    to: bytes


@dataclass(frozen=True, slots=True)
class Approve(_Call):
    """ERC-20: let a spender take up to an amount (base units)."""

    NAME = "approve"
    TYPES = ("address", _WORD)
    spender: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Transfer(_Call):
    """ERC-20: send an amount (base units)."""

    NAME = "transfer"
    TYPES = ("address", _WORD)
    to: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Mint(_Call):
    """Test token only: make an amount (base units) out of nothing."""

    NAME = "mint"
    TYPES = ("address", _WORD)
    to: bytes
    amount: int


Call: TypeAlias = (
    Open
    | OpenToken
    | OpenPermit
    | Fund
    | Reclaim
    | Expire
    | Close
    | Defend
    | Dispute
    | Claim
    | MutualClose
    | Withdraw
)
TokenCall: TypeAlias = Approve | Transfer

_ESCROW_CALLS: tuple[type[Any], ...] = (
    Open,
    OpenToken,
    OpenPermit,
    Fund,
    Reclaim,
    Expire,
    Close,
    Defend,
    Dispute,
    Claim,
    MutualClose,
    Withdraw,
)
_BY_SELECTOR = {abi.selector(call.NAME, call.TYPES): call for call in _ESCROW_CALLS}
_TOKEN_CALLS: tuple[type[Any], ...] = (Approve, Transfer)
_TOKEN_BY_SELECTOR = {abi.selector(call.NAME, call.TYPES): call for call in _TOKEN_CALLS}


def decode_call(data: bytes) -> Call:
    """The escrow call that some call data makes.

    Raises UnknownCall for another selector, InvalidAbi for arguments that are not canonical.
    """
    call: Call = _decode(_BY_SELECTOR, data)
    return call


def decode_token_call(data: bytes) -> TokenCall:
    """The ERC-20 call that some call data makes; raises like `decode_call`."""
    call: TokenCall = _decode(_TOKEN_BY_SELECTOR, data)
    return call


# Builders: call data of each call


def open_(salt: bytes, merchant_deposit: int) -> bytes:
    """Customer, native coin: value = customer deposit * unit."""
    return Open(salt, merchant_deposit).encode()


def open_token(salt: bytes, customer_deposit: int, merchant_deposit: int) -> bytes:
    """Customer, ERC-20, after `approve` of customer deposit * unit."""
    return OpenToken(salt, customer_deposit, merchant_deposit).encode()


def open_permit(
    salt: bytes,
    customer_deposit: int,
    merchant_deposit: int,
    permit_deadline: int,
    permit: bytes,
) -> bytes:
    """Customer, ERC-20, with a permit r|s|v on customer deposit * unit for the escrow."""
    return OpenPermit(salt, customer_deposit, merchant_deposit, permit_deadline, permit).encode()


def fund(channel: int, customer_deposit: int, merchant_deposit: int) -> bytes:
    """Merchant: value (or approval, for a token) = merchant deposit * unit."""
    return Fund(channel, customer_deposit, merchant_deposit).encode()


def reclaim(channel: int) -> bytes:
    """Anyone, after the deadline of a channel awaiting the merchant."""
    return Reclaim(channel).encode()


def expire(channel: int) -> bytes:
    """Merchant, OPEN."""
    return Expire(channel).encode()


def close(
    channel: int, lock: int, customer_balance: int, merchant_balance: int, signature: bytes
) -> bytes:
    """Customer, OPEN or EXPIRING."""
    return Close(channel, lock, customer_balance, merchant_balance, signature).encode()


def defend(  # noqa: PLR0917
    channel: int,
    lock: int,
    customer_balance: int,
    merchant_balance: int,
    signature: bytes,
    permit: bytes,
) -> bytes:
    """The guard named in the customer's permit r|s|v, EXPIRING."""
    return Defend(channel, lock, customer_balance, merchant_balance, signature, permit).encode()


def dispute(channel: int, secret: bytes) -> bytes:
    """Anyone, CLOSING."""
    return Dispute(channel, secret).encode()


def claim(channel: int) -> bytes:
    """Anyone, CLOSING or EXPIRING, after the deadline."""
    return Claim(channel).encode()


def mutual_close(
    channel: int, customer_balance: int, merchant_balance: int, agreement: bytes
) -> bytes:
    """Customer, OPEN or EXPIRING, with the merchant's signature r|s|v."""
    return MutualClose(channel, customer_balance, merchant_balance, agreement).encode()


def withdraw(to: bytes) -> bytes:
    """Whoever is owed."""
    return Withdraw(to).encode()


def approve(spender: bytes, amount: int) -> bytes:
    """ERC-20, base units."""
    return Approve(spender, amount).encode()


def transfer(to: bytes, amount: int) -> bytes:
    """ERC-20, base units."""
    return Transfer(to, amount).encode()


def mint(to: bytes, amount: int) -> bytes:
    """Test token, base units."""
    return Mint(to, amount).encode()


# Views: call data for `eth_call`, and what comes back


def channel(channel_id: int) -> bytes:
    """View; decode the answer with `decode_channel`."""
    return abi.selector("channel", (_WORD,)) + abi.encode((_WORD,), (channel_id,))


def channel_id(customer: bytes, salt: bytes) -> bytes:
    """View; the answer is one number."""
    types = ("address", "bytes32")
    return abi.selector("channel_id", types) + abi.encode(types, (customer, salt))


def key() -> bytes:
    """View; decode the answer with `decode_bytes`."""
    return abi.selector("key", ())


def merchant() -> bytes:
    """View; the answer is an address."""
    return abi.selector("merchant", ())


def asset() -> bytes:
    """View; the answer is an address, zero for the native coin."""
    return abi.selector("asset", ())


def unit() -> bytes:
    """View; the answer is one number, base units of the asset per unit of balance."""
    return abi.selector("unit", ())


def delay() -> bytes:
    """View; the answer is one number, seconds."""
    return abi.selector("delay", ())


def owed(receiver: bytes) -> bytes:
    """View; the answer is one number, units kept for `withdraw`."""
    return abi.selector("owed", ("address",)) + abi.encode(("address",), (receiver,))


def balance_of(owner: bytes) -> bytes:
    """ERC-20 view; the answer is one number, base units."""
    return abi.selector("balanceOf", ("address",)) + abi.encode(("address",), (owner,))


def allowance(owner: bytes, spender: bytes) -> bytes:
    """ERC-20 view; the answer is one number, base units."""
    types = ("address", "address")
    return abi.selector("allowance", types) + abi.encode(types, (owner, spender))


def nonces(owner: bytes) -> bytes:
    """EIP-2612 view; the answer is one number."""
    return abi.selector("nonces", ("address",)) + abi.encode(("address",), (owner,))


def domain_separator() -> bytes:
    """EIP-2612 view; the answer is 32 bytes, what `typed_data.erc2612_permit_digest` wants."""
    return abi.selector("DOMAIN_SEPARATOR", ())


def decode_number(data: bytes) -> int:
    """Answer of a view that returns one number."""
    (number,) = abi.decode((_WORD,), data)
    return int(number)


def decode_address(data: bytes) -> bytes:
    """Answer of a view that returns an address."""
    (address,) = abi.decode(("address",), data)
    assert isinstance(address, bytes)
    return address


def decode_bytes(data: bytes) -> bytes:
    """Answer of a view that returns a byte string."""
    (value,) = abi.decode(("bytes",), data)
    assert isinstance(value, bytes)
    return value


def decode_channel(data: bytes) -> ChannelRecord:
    """Answer of `channel`."""
    types = (_WORD, "address", *[_WORD] * 6, "bool", "bool")
    values: tuple[Any, ...] = abi.decode(types, data)
    try:
        status = ChannelStatus(values[0])
    except ValueError:
        raise abi.InvalidAbi(f"no channel status is {values[0]}") from None
    return ChannelRecord(status, *values[1:])


def _split(signature: bytes) -> list[abi.Value]:
    if len(signature) != SIGNATURE_LENGTH:
        raise abi.InvalidAbi("a signature r|s|v has 65 bytes")
    return [signature[64], signature[:32], signature[32:64]]


def _decode(known: dict[bytes, type[Any]], data: bytes) -> Any:
    kind = known.get(data[:4])
    if kind is None:
        raise UnknownCall(f"no call has the selector 0x{data[:4].hex()}")
    values: list[Any] = list(abi.decode(kind.TYPES, data[4:]))
    if kind.TYPES[-3:] == _ECDSA:
        v, r, s = values[-3:]
        values[-3:] = [r + s + bytes([v])]
    return kind(*values)
