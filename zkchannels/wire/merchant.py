"""Messages between customer and merchant (docs/protocol.md): JSON-RPC 2.0 lines over TLS 1.3.

The customer calls, the merchant answers. Every request may be repeated, on any connection, days
later: the merchant answers a repeat from its records. Amounts are in units of the escrow.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zkchannels.jsonrpc.method import Method
from zkchannels.wire.errors import ErrorKinds
from zkchannels.wire.fields import (
    Balance,
    Bytes16,
    Bytes20,
    Bytes32,
    Bytes48,
    Bytes65,
    Bytes96,
    Bytes240,
    Bytes256,
    Bytes1920,
    SignedAmount,
)

PROTOCOL_VERSION = 1
DEFAULT_PORT = 2611
MAXIMUM_LINE = 16 * 1024
MAXIMUM_NOTE = 8 * 1024

Note = Annotated[str, Meta(max_length=MAXIMUM_NOTE)]

ERRORS = ErrorKinds(
    {
        "version_unsupported": "the merchant does not speak this protocol version",
        "escrow_unknown": "the merchant does not serve this escrow",
        "rejected": "the merchant does not approve; the message is its reason; nothing was bound",
        "session_unknown": "no such session, or it expired or was used: propose again and keep "
        "the same commitments",
        "too_many_sessions": "this address has too many open sessions",
        "bad_proof": "the proof does not verify; final for these commitments",
        "nonce_bound": "this nonce is bound to other commitments",
        "nonce_unknown": "no payment is recorded under this nonce",
        "bad_opening": "secret and blinding do not open the recorded lock commitment",
        "lock_used": "this lock was revoked, closed on chain or mutually closed before",
        "channel_exists": "this channel id was established with other values",
        "channel_unknown": "no such channel is recorded",
        "channel_unusable": "the escrow does not hold the channel as agreed, or it is closing",
        "bad_signature": "the signature does not verify",
        "later": "temporarily impossible (database or approver away, view of the chain too old); "
        "try again",
    }
)


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all requests: an unknown field is refused."""


class Answer(Struct, frozen=True):
    """Base of all answers: unknown fields are ignored, so that they can be added."""


class HelloParams(Request, frozen=True):
    """What the customer wants to speak about."""

    version: int
    escrow: Bytes20


class Welcome(Answer, frozen=True):
    """The merchant's terms; everything that matters is checked against the escrow contract."""

    version: int
    chain_id: int
    token: Bytes20
    """Address of the ERC-20 token, or 20 zero bytes for the native coin."""
    symbol: str
    decimals: int
    unit: int
    """How much of the asset's smallest denomination one unit of a balance is."""
    delay: int
    """Seconds that each side has to answer on chain."""
    confirmations: int
    """Blocks the merchant waits for before it trusts a funding; 0 means the `finalized` tag."""
    minimum_deposit: Balance
    maximum_deposit: Balance
    g1_half: Bytes240
    """Y1_1..5 of the merchant's public key, compressed."""


class EstablishProposeParams(Request, frozen=True):
    """A proposal for a new channel; the channel id follows from it."""

    customer: Bytes20
    salt: Bytes32
    customer_deposit: Balance
    merchant_deposit: Balance
    note: Note = ""


class Proposal(Answer, frozen=True):
    """Approval: the session that the next proof is bound to."""

    session: Bytes16
    expires_in: int
    """Seconds until the merchant forgets the session if it was not used."""


class EstablishProveParams(Request, frozen=True):
    """The establish proof, made for the context of the session."""

    session: Bytes16
    proof: Bytes240


class BlindedAuthorization(Answer, frozen=True):
    """Blind signature on a close state, to be checked with its blinding."""

    signature: Bytes96


class EstablishActivateParams(Request, frozen=True):
    """Asks for the first pay token of a funded channel."""

    channel: Bytes32


class Activation(Answer, frozen=True):
    """The first pay token, or how far the funding is from being final."""

    token: Bytes96 | None
    confirmations: int
    required: int


class PayProposeParams(Request, frozen=True):
    """A payment (positive) or refund (negative) to be approved."""

    amount: SignedAmount
    note: Note = ""


class PayProveParams(Request, frozen=True):
    """The pay proof and the old state's nonce that it reveals."""

    session: Bytes16
    nonce: Bytes32
    proof: Bytes1920


class PayRevokeParams(Request, frozen=True):
    """Revokes the old state: secret of its lock and opening of the lock commitment."""

    nonce: Bytes32
    secret: Bytes32
    lock_blinding: Bytes32

    def __repr__(self) -> str:
        return "PayRevokeParams(...)"


class PayToken(Answer, frozen=True):
    """Blind signature on the new state, and what the merchant says about its service."""

    token: Bytes96
    note: str


class CloseMutualParams(Request, frozen=True):
    """The newest close state with its closing authorization, for a mutual close.

    `request` is the customer's EIP-712 signature on exactly this request: the agreement ends
    payments on the state, so whoever has only stolen the authorization must not get it.
    """

    channel: Bytes32
    lock: Bytes32
    customer_balance: Balance
    merchant_balance: Balance
    signature: Bytes256
    request: Bytes65


class MutualAuthorization(Answer, frozen=True):
    """The merchant's EIP-712 signature on the mutual close."""

    signature: Bytes65


class EstablishRecoverParams(Request, frozen=True):
    """Asks for what was recorded at establish; signed by the customer's chain key."""

    channel: Bytes32
    signature: Bytes65


class EstablishRecord(Answer, frozen=True):
    """What the merchant recorded when the channel was established."""

    customer_deposit: Balance
    merchant_deposit: Balance
    state_commitment: Bytes48
    close_commitment: Bytes48
    authorization: Bytes96
    token: Bytes96 | None


class PayRecoverParams(Request, frozen=True):
    """Asks for a recorded payment; only the two parties ever knew the nonce."""

    nonce: Bytes32


class PaymentRecord(Answer, frozen=True):
    """What the merchant recorded for one payment."""

    amount: SignedAmount
    state_commitment: Bytes48
    close_commitment: Bytes48
    lock_commitment: Bytes48
    authorization: Bytes96
    token: Bytes96 | None
    note: str


_PROPOSE_ERRORS = ("rejected", "too_many_sessions", "later")

HELLO = Method(
    "hello",
    HelloParams,
    Welcome,
    summary="Agree on version and escrow; learn the merchant's terms.",
    errors=("version_unsupported", "escrow_unknown"),
)
ESTABLISH_PROPOSE = Method(
    "establish.propose",
    EstablishProposeParams,
    Proposal,
    summary="Propose a new channel.",
    errors=_PROPOSE_ERRORS,
)
ESTABLISH_PROVE = Method(
    "establish.prove",
    EstablishProveParams,
    BlindedAuthorization,
    summary="Prove the first state; receive the first closing authorization.",
    errors=("session_unknown", "bad_proof", "channel_exists", "later"),
)
ESTABLISH_ACTIVATE = Method(
    "establish.activate",
    EstablishActivateParams,
    Activation,
    summary="Receive the first pay token once the escrow is funded and final.",
    errors=("channel_unknown", "channel_unusable", "later"),
)
PAY_PROPOSE = Method(
    "pay.propose",
    PayProposeParams,
    Proposal,
    summary="Propose a payment or refund.",
    errors=_PROPOSE_ERRORS,
)
PAY_PROVE = Method(
    "pay.prove",
    PayProveParams,
    BlindedAuthorization,
    summary="Prove a payment; receive the closing authorization on the new state.",
    errors=("session_unknown", "bad_proof", "nonce_bound", "later"),
)
PAY_REVOKE = Method(
    "pay.revoke",
    PayRevokeParams,
    PayToken,
    summary="Revoke the old state; receive the pay token on the new one.",
    errors=("nonce_unknown", "bad_opening", "lock_used", "later"),
)
CLOSE_MUTUAL = Method(
    "close.mutual",
    CloseMutualParams,
    MutualAuthorization,
    summary="Ask for the merchant's agreement to close on the newest state.",
    errors=("channel_unknown", "channel_unusable", "bad_signature", "lock_used", "later"),
)
ESTABLISH_RECOVER = Method(
    "establish.recover",
    EstablishRecoverParams,
    EstablishRecord,
    summary="Read back what was recorded at establish.",
    errors=("channel_unknown", "bad_signature", "later"),
)
PAY_RECOVER = Method(
    "pay.recover",
    PayRecoverParams,
    PaymentRecord,
    summary="Read back one recorded payment by its nonce.",
    errors=("nonce_unknown", "later"),
)

METHODS = (
    HELLO,
    ESTABLISH_PROPOSE,
    ESTABLISH_PROVE,
    ESTABLISH_ACTIVATE,
    PAY_PROPOSE,
    PAY_PROVE,
    PAY_REVOKE,
    CLOSE_MUTUAL,
    ESTABLISH_RECOVER,
    PAY_RECOVER,
)
