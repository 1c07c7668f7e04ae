"""EIP-712 digests: what the customer, the merchant and a token's owner sign."""

from __future__ import annotations

from zkchannels.escrow import abi
from zkchannels.escrow.ethereum import keccak256

_DOMAIN_TYPE = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_GUARD_PERMIT_TYPE = keccak256(
    b"GuardPermit(uint256 channel,uint256 lock,uint256 customer_balance,uint256 merchant_balance,"
    b"address guard)"
)
_MUTUAL_CLOSE_TYPE = keccak256(
    b"MutualClose(uint256 channel,uint256 customer_balance,uint256 merchant_balance)"
)
_MUTUAL_REQUEST_TYPE = keccak256(
    b"MutualCloseRequest(uint256 channel,uint256 lock,uint256 customer_balance,"
    b"uint256 merchant_balance)"
)
_RECOVERY_TYPE = keccak256(b"Recovery(uint256 channel)")
_PERMIT_TYPE = keccak256(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
_ESCROW_NAME = "zkChannels escrow"
_ESCROW_VERSION = "1"


def domain_separator(name: str, version: str, chain_id: int, contract: bytes) -> bytes:
    """EIP-712 domain of a contract, 32 bytes."""
    names = (keccak256(name.encode()), keccak256(version.encode()))
    types = ("bytes32", "bytes32", "bytes32", "uint256", "address")
    return keccak256(abi.encode(types, (_DOMAIN_TYPE, *names, chain_id, contract)))


def guard_permit_digest(  # noqa: PLR0917
    chain_id: int,
    escrow: bytes,
    channel: int,
    lock: int,
    customer_balance: int,
    merchant_balance: int,
    guard: bytes,
) -> bytes:
    """What the customer signs to let `guard` close on exactly this close state."""
    types = ("bytes32", *["uint256"] * 4, "address")
    values = (_GUARD_PERMIT_TYPE, channel, lock, customer_balance, merchant_balance, guard)
    return _digest(_escrow_domain(chain_id, escrow), abi.encode(types, values))


def mutual_close_digest(
    chain_id: int, escrow: bytes, channel: int, customer_balance: int, merchant_balance: int
) -> bytes:
    """What the merchant signs to let the customer close at once on these balances."""
    types = ("bytes32", *["uint256"] * 3)
    values = (_MUTUAL_CLOSE_TYPE, channel, customer_balance, merchant_balance)
    return _digest(_escrow_domain(chain_id, escrow), abi.encode(types, values))


def mutual_request_digest(  # noqa: PLR0917
    chain_id: int,
    escrow: bytes,
    channel: int,
    lock: int,
    customer_balance: int,
    merchant_balance: int,
) -> bytes:
    """What the customer signs to ask the merchant for a mutual close on exactly this state."""
    types = ("bytes32", *["uint256"] * 4)
    values = (_MUTUAL_REQUEST_TYPE, channel, lock, customer_balance, merchant_balance)
    return _digest(_escrow_domain(chain_id, escrow), abi.encode(types, values))


def recovery_digest(chain_id: int, escrow: bytes, channel: int) -> bytes:
    """What the customer signs to read back from the merchant what was recorded at establish."""
    values = (_RECOVERY_TYPE, channel)
    return _digest(_escrow_domain(chain_id, escrow), abi.encode(("bytes32", "uint256"), values))


def erc2612_permit_digest(  # noqa: PLR0917
    domain: bytes, owner: bytes, spender: bytes, value: int, nonce: int, deadline: int
) -> bytes:
    """What a token's owner signs to approve `value` base units; `domain` is the token's separator.

    Tokens choose name and version freely; their `DOMAIN_SEPARATOR()` view is the only sure source.
    """
    types = ("bytes32", "address", "address", *["uint256"] * 3)
    return _digest(
        domain, abi.encode(types, (_PERMIT_TYPE, owner, spender, value, nonce, deadline))
    )


def _escrow_domain(chain_id: int, escrow: bytes) -> bytes:
    return domain_separator(_ESCROW_NAME, _ESCROW_VERSION, chain_id, escrow)


def _digest(domain: bytes, message: bytes) -> bytes:
    return keccak256(b"\x19\x01" + domain + keccak256(message))
