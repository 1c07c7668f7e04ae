"""Messages between daemon and signer on the link that the signer dials.

The signer connects and introduces itself with `link.hello` and `link.attach`; from then on the
roles are reversed: the daemon calls, the signer answers. Every request may be repeated: what the
signer once wrote for (channel, index, attempt) it answers again. Before an answer leaves, the
signer has durably written what the answer gives away (docs/protocol.md, who writes what).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from zkchannels.jsonrpc.method import Method
from zkchannels.wire.errors import ErrorKinds
from zkchannels.wire.fields import (
    Attempt,
    Balance,
    Bytes16,
    Bytes20,
    Bytes32,
    Bytes48,
    Bytes65,
    Bytes96,
    Bytes240,
    Bytes256,
    Bytes1792,
    Bytes1920,
    Index,
    SignedAmount,
)

ChainId: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Natural: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86400)]

LINK_VERSION = 3
CHALLENGE_TAG = b"customerd/signer-link/3"
"""The identity key signs keccak256(CHALLENGE_TAG | challenge | identity | channel).

`channel` is the SHA-256 of the daemon's certificate and of the signer's, 64 bytes; on a Unix socket
zeros (`pairing.NO_CHANNEL`). Who relays the challenge over other certificates has it signed for
those.
"""

LINK_ERRORS = ErrorKinds(
    {
        "version_unsupported": "the daemon does not speak this version of the link",
        "wrong_wallet": "the daemon belongs to another wallet",
        "bad_signature": "the challenge was not signed by the identity key",
        "not_introduced": "link.hello comes first",
        "not_paired": "the daemon does not know this signer, or has forgotten it: pair it",
        "pairing_refused": "no pairing is open, it has expired or was used, or the secret is wrong",
        "standby": "this daemon does not act now; another one on its database may",
        "superseded": "another signer of this wallet came later, and is well",
    }
)

ERRORS = ErrorKinds(
    {
        "escrow_unknown": "this escrow was not registered with signer.escrow",
        "bad_key": "the merchant's key is malformed or its halves do not belong together",
        "channel_unknown": "the signer has no record of this channel",
        "out_of_order": "not the step that may follow what the signer has written",
        "already_different": "this state or attempt was used with other values",
        "bad_signature": "the merchant's signature does not verify",
        "newer_state": "a newer closing authorization exists; its record is in `record`",
        "closing": "a close of this channel was signed; it prepares no payment",
        "released": "the revocation secret of this state was released",
        "not_understood": "a transaction the signer does not understand",
        "invalid": "values out of range or contradicting each other",
        "foreign": "a record that was not made from this wallet's secrets for this state",
        "policy_refused": "the signer's own policy refuses; its name is in `policy`",
        "unavailable": "the signer's store cannot be read or written now; nothing was given away",
        "confirmation_pending": "a person has to say yes first; the question's id is in `question`",
    }
)

PolicyKind: TypeAlias = Literal["temporary", "policy", "permanent"]
"""`temporary`: the same request may pass later, with `after` in that many seconds; `policy`: only
once somebody changes the policy at the signer; `permanent`: never."""

POLICIES: dict[str, tuple[PolicyKind, str]] = {
    "policy-payment-limit": ("policy", "the payment is larger than the signer ever allows"),
    "policy-hour-limit": ("temporary", "the payments of one hour have reached their limit"),
    "policy-day-limit": ("temporary", "the payments of one day have reached their limit"),
    "policy-deposit-limit": ("policy", "the deposit is larger than the signer ever allows"),
    "policy-deposit-day-limit": ("temporary", "the deposits of one day have reached their limit"),
    "policy-asset-not-allowed": ("policy", "the signer has no limits for this asset"),
    "policy-escrow-not-allowed": ("policy", "the escrow is not on the signer's list"),
    "policy-merchant-not-allowed": ("policy", "the merchant is not on the signer's list"),
    "policy-fee-cap": ("policy", "the transaction could cost more than the signer allows"),
    "policy-fee-day-limit": ("temporary", "the fees of one day have reached their limit"),
    "policy-destination": ("permanent", "money goes to the wallet's own account alone"),
    "policy-confirmation-required": ("temporary", "a person has to confirm; nobody answered"),
    "policy-confirmation-declined": ("permanent", "the person at the signer said no"),
}
"""Every policy that `policy_refused` may name, with what its refusal means."""


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all requests: an unknown field is refused."""


class Answer(Struct, frozen=True):
    """Base of all answers."""


class Nothing(Request, frozen=True):
    """No parameters."""


class Done(Answer, frozen=True):
    """Nothing to say beyond success."""


# -- introduction: the signer calls ---------------------------------------------------------------


class LinkHelloParams(Request, frozen=True):
    """Who is dialling in; `identity` is the address of the signer's identity key."""

    version: int
    identity: Bytes20


class LinkChallenge(Answer, frozen=True):
    """What the identity key has to sign."""

    challenge: Bytes32


class LinkAttachParams(Request, frozen=True):
    """The signed challenge, the wallet's chain account, and the names of active policies.

    `instance` is random and the same for as long as the signer runs: so the daemon tells a signer
    that comes back from a second one.
    """

    signature: Bytes65
    account: Bytes20
    instance: Bytes16
    policies: list[str] = []


class Attached(Answer, frozen=True):
    """The connection generation that requests on this link belong to."""

    generation: int
    ping_interval: Seconds
    gone_after: Seconds
    request_timeout: Seconds = 10.0
    """Seconds after which the daemon waits for no answer any more."""


# -- pairing: the signer calls, before it was ever attached ---------------------------------------


class PairHelloParams(Request, frozen=True):
    """Who wants to be paired; `certificate` in DER, empty on a Unix socket."""

    version: int
    identity: Bytes20
    certificate: Annotated[bytes, Meta(max_length=4096)]
    nonce: Bytes32


class PairChallenge(Answer, frozen=True):
    """The daemon's part of what is proved."""

    nonce: Bytes32


class PairProveParams(Request, frozen=True):
    """That the signer read the pairing line (`zkchannels.wire.pairing`)."""

    proof: Bytes32


class Paired(Answer, frozen=True):
    """That the daemon made the pairing line; the signer may attach from now on."""

    proof: Bytes32


# -- the daemon calls -----------------------------------------------------------------------------


class EscrowParams(Request, frozen=True):
    """An escrow as the daemon read it from the chain, with both halves of the merchant's key."""

    chain_id: ChainId
    escrow: Bytes20
    merchant: Bytes20
    token: Bytes20
    unit: Annotated[int, Meta(ge=1)]
    g1_half: Bytes240
    escrow_key: Bytes1792


class EstablishProveParams(Request, frozen=True):
    """First state of a new channel; balances are the deposits."""

    channel: Bytes32
    chain_id: ChainId
    escrow: Bytes20
    salt: Bytes32
    customer_deposit: Balance
    merchant_deposit: Balance
    session: Bytes16
    operation: Bytes16
    note: str = ""


class EstablishProof(Answer, frozen=True):
    """The proof for `establish.prove`."""

    proof: Bytes240


class AuthorizeParams(Request, frozen=True):
    """A blinded closing authorization from the merchant, and the guard to permit for it."""

    channel: Bytes32
    index: Index
    attempt: Attempt
    signature: Bytes96
    guard: Bytes20


class Authorization(Answer, frozen=True):
    """A closing authorization ready for the chain, with the guard's permit for exactly it."""

    index: Index
    attempt: Attempt
    lock: Bytes32
    customer_balance: Balance
    merchant_balance: Balance
    signature: Bytes256
    guard: Bytes20
    permit: Bytes65

    def __repr__(self) -> str:
        return f"Authorization(index={self.index}, attempt={self.attempt})"


class CloseAuthorization(Authorization, frozen=True):
    """The authorization to close on, and what asks the merchant to agree if that was wanted."""

    request: Bytes65 | None

    def __repr__(self) -> str:
        return f"CloseAuthorization(index={self.index}, attempt={self.attempt})"


class CompleteParams(Request, frozen=True):
    """A blinded pay token to be checked."""

    channel: Bytes32
    index: Index
    attempt: Attempt
    token: Bytes96


class PayProveParams(Request, frozen=True):
    """A payment that leads to state `index`.

    `attempt` is 0, or one more than the attempt that the merchant durably refused.
    """

    channel: Bytes32
    index: Index
    attempt: Attempt
    operation: Bytes16
    amount: SignedAmount
    session: Bytes16
    token: Bytes96
    note: str = ""
    """What the owner wrote about it; shown to the person who has to confirm it."""


class PayProof(Answer, frozen=True):
    """The old nonce and the proof for `pay.prove`."""

    nonce: Bytes32
    proof: Bytes1920

    def __repr__(self) -> str:
        return "PayProof(...)"


class PayAuthorized(Answer, frozen=True):
    """The new closing authorization, and what revokes the old state.

    The daemon commits the authorization before it sends the secret; it never stores the secret,
    it asks again.
    """

    authorization: Authorization
    nonce: Bytes32
    secret: Bytes32
    lock_blinding: Bytes32

    def __repr__(self) -> str:
        return f"PayAuthorized({self.authorization!r})"


class CloseAuthorizeParams(Request, frozen=True):
    """The intention to close on state `index`; written by the signer before it answers."""

    channel: Bytes32
    index: Index
    kind: Literal["mutual", "unilateral"]
    guard: Bytes20


class TransactionParams(Request, frozen=True):
    """An EIP-1559 transaction of the wallet's account, to a known escrow or its token."""

    chain_id: ChainId
    nonce: Natural
    tip: Natural
    max_fee: Natural
    gas: Natural
    to: Bytes20
    value: Natural
    data: bytes


class SignedTransaction(Answer, frozen=True):
    """The raw signed transaction."""

    raw: bytes


class TokenPermitParams(Request, frozen=True):
    """An EIP-2612 permit for an escrow to pull a deposit."""

    chain_id: ChainId
    escrow: Bytes20
    token: Bytes20
    token_name: str
    token_version: str
    value: Natural
    nonce: Natural
    deadline: Natural


class Signature(Answer, frozen=True):
    """A 65-byte signature r | s | v."""

    signature: Bytes65


class DisputeParams(Request, frozen=True):
    """Asks for a secret that was released before, to dispute a stale close by the guard."""

    channel: Bytes32
    index: Index
    attempt: Attempt


class RevocationSecret(Answer, frozen=True):
    """The revocation secret of a state that is revoked."""

    secret: Bytes32

    def __repr__(self) -> str:
        return "RevocationSecret(...)"


class RecoverParams(Request, frozen=True):
    """Asks for the credential of `establish.recover`; the signer need not know the channel."""

    channel: Bytes32
    chain_id: ChainId
    escrow: Bytes20


class RecoverNonceParams(Request, frozen=True):
    """Asks for the nonce of the newest recorded state, or of the one before it."""

    channel: Bytes32
    index: Index


class RecoverNonce(Answer, frozen=True):
    """The credential of `pay.recover` for the payment that spent, or may have spent, the state."""

    nonce: Bytes32

    def __repr__(self) -> str:
        return "RecoverNonce(...)"


class RecoverEstablishParams(Request, frozen=True):
    """What the merchant recorded at establish, with the terms that the chain shows.

    `operation` is bound to the first state if the signer has no record of the channel.
    """

    channel: Bytes32
    chain_id: ChainId
    escrow: Bytes20
    salt: Bytes32
    customer_deposit: Balance
    merchant_deposit: Balance
    operation: Bytes16
    state_commitment: Bytes48
    close_commitment: Bytes48
    signature: Bytes96
    guard: Bytes20


class RecoverPayParams(Request, frozen=True):
    """What the merchant recorded about the payment that led to state `index`.

    `operation` is bound to it if the signer does not remember its proof.
    """

    channel: Bytes32
    index: Index
    operation: Bytes16
    amount: SignedAmount
    state_commitment: Bytes48
    close_commitment: Bytes48
    lock_commitment: Bytes48
    signature: Bytes96
    guard: Bytes20


class ConfirmationParams(Request, frozen=True):
    """Names the question to a person that `confirmation_pending` named."""

    question: Bytes16


class Confirmation(Answer, frozen=True):
    """What the person said; `unanswered` when nobody did in time. After a yes the request that
    had to be confirmed is asked again."""

    answer: Literal["yes", "no", "unanswered"]


class PolicyState(Answer, frozen=True):
    """One limit in force. Amounts are text like "0.05 ETH"; absent where they mean nothing."""

    name: str
    kind: PolicyKind
    about: str
    """The asset, or what else the limit is about."""
    limit: str | None = None
    used: str | None = None


class PolicyStates(Answer, frozen=True):
    """All limits in force."""

    policies: list[PolicyState]


class BackupKey(Answer, frozen=True):
    """Key of the wallet's backups, derived from the seed and good for nothing else."""

    key: Bytes32

    def __repr__(self) -> str:
        return "BackupKey(...)"


class RecordsParams(Request, frozen=True):
    """A page of the signer's records, in order of channel id, after the given one."""

    after: bytes = b""
    limit: Annotated[int, Meta(ge=1, le=500)] = 500


class Proved(Answer, frozen=True):
    """An attempt to reach a state, as it was bound before its proof left the signer."""

    index: Index
    attempt: Attempt
    operation: Bytes16
    amount: SignedAmount


class ProvedWith(Proved, frozen=True):
    """The same with the commitments of the proof, by which the signer knows it for its own."""

    state_commitment: Bytes48
    close_commitment: Bytes48
    lock_commitment: Bytes48


class Record(Answer, frozen=True):
    """What the signer has written about one channel."""

    channel: Bytes32
    chain_id: ChainId
    escrow: Bytes20
    salt: Bytes32
    customer_deposit: Balance
    merchant_deposit: Balance
    proved: Proved
    """The attempt whose proof last left."""
    reached: Proved | None
    """The attempt that led to the state of `authorization`."""
    previous: Proved | None
    """The attempt that led to the state before it."""
    authorization: Authorization | None
    released: Index | None
    """Highest state whose revocation secret was given to the daemon."""
    completed: Index | None
    """Highest state whose pay token was checked."""
    closing: Index | None
    """State a close was signed on."""


class Records(Answer, frozen=True):
    """A page of records; the last page is shorter than the limit."""

    records: list[Record]


class AdoptParams(Request, frozen=True):
    """A newer closing authorization from the daemon's database; the signer verifies it.

    `reached` and `previous` as in Record (`previous` is absent for state 0); `proved` is the last
    attempt on the state after it, if there was one, with what was sent of it.
    """

    channel: Bytes32
    chain_id: ChainId
    escrow: Bytes20
    salt: Bytes32
    customer_deposit: Balance
    merchant_deposit: Balance
    authorization: Authorization
    reached: Proved
    previous: Proved | None
    proved: ProvedWith | None
    released: Index | None
    completed: Index | None
    closing: Index | None


LINK_HELLO = Method(
    "link.hello",
    LinkHelloParams,
    LinkChallenge,
    summary="Introduce a signer.",
    errors=("version_unsupported", "wrong_wallet", "not_paired", "standby"),
)
LINK_ATTACH = Method(
    "link.attach",
    LinkAttachParams,
    Attached,
    summary="Attach with the signed challenge; a newer link takes over from an older one.",
    errors=(
        "not_introduced",
        "bad_signature",
        "wrong_wallet",
        "not_paired",
        "standby",
        "superseded",
    ),
)
PAIR_HELLO = Method(
    "pair.hello",
    PairHelloParams,
    PairChallenge,
    summary="Begin to pair a signer.",
    errors=("version_unsupported", "pairing_refused", "wrong_wallet", "standby"),
)
PAIR_PROVE = Method(
    "pair.prove",
    PairProveParams,
    Paired,
    summary="Pair with the proof of the one-time secret; it replaces an earlier pairing.",
    errors=("not_introduced", "pairing_refused", "wrong_wallet", "standby"),
)

PING = Method("signer.ping", Nothing, Done, summary="Show that the signer is alive.")
RECORDS = Method(
    "signer.records",
    RecordsParams,
    Records,
    summary="Read the signer's records for comparison.",
    errors=("unavailable",),
)
ADOPT = Method(
    "signer.adopt",
    AdoptParams,
    Done,
    summary="Fast-forward an older signer.",
    errors=("escrow_unknown", "bad_signature", "foreign", "out_of_order", "invalid", "unavailable"),
)
ESCROW = Method(
    "signer.escrow",
    EscrowParams,
    Done,
    summary="Register an escrow and check the merchant's key.",
    errors=("bad_key", "already_different", "policy_refused", "unavailable"),
)
ESTABLISH_PROVE = Method(
    "establish.prove",
    EstablishProveParams,
    EstablishProof,
    summary="Prove the first state of a new channel.",
    errors=(
        "escrow_unknown",
        "already_different",
        "out_of_order",
        "invalid",
        "policy_refused",
        "confirmation_pending",
        "unavailable",
    ),
)
ESTABLISH_AUTHORIZE = Method(
    "establish.authorize",
    AuthorizeParams,
    Authorization,
    summary="Check and keep the first closing authorization.",
    errors=("channel_unknown", "bad_signature", "out_of_order", "unavailable"),
)
ESTABLISH_COMPLETE = Method(
    "establish.complete",
    CompleteParams,
    Done,
    summary="Check the first pay token.",
    errors=("channel_unknown", "bad_signature", "out_of_order", "unavailable"),
)
PAY_PROVE = Method(
    "pay.prove",
    PayProveParams,
    PayProof,
    summary="Prove a payment.",
    errors=(
        "channel_unknown",
        "already_different",
        "bad_signature",
        "out_of_order",
        "closing",
        "invalid",
        "policy_refused",
        "confirmation_pending",
        "unavailable",
    ),
)
PAY_AUTHORIZE = Method(
    "pay.authorize",
    AuthorizeParams,
    PayAuthorized,
    summary="Check and keep the new closing authorization; release the old state's secret.",
    errors=("channel_unknown", "bad_signature", "out_of_order", "closing", "unavailable"),
)
PAY_COMPLETE = Method(
    "pay.complete",
    CompleteParams,
    Done,
    summary="Check the new pay token.",
    errors=("channel_unknown", "bad_signature", "out_of_order", "unavailable"),
)
CLOSE_AUTHORIZE = Method(
    "close.authorize",
    CloseAuthorizeParams,
    CloseAuthorization,
    summary="Write down a close and give its closing authorization.",
    errors=("channel_unknown", "newer_state", "out_of_order", "unavailable"),
)
TRANSACTION_SIGN = Method(
    "transaction.sign",
    TransactionParams,
    SignedTransaction,
    summary="Sign a transaction that the signer understands.",
    errors=(
        "not_understood",
        "escrow_unknown",
        "channel_unknown",
        "bad_signature",
        "released",
        "out_of_order",
        "invalid",
        "policy_refused",
        "unavailable",
    ),
)
TOKEN_PERMIT = Method(
    "token.permit",
    TokenPermitParams,
    Signature,
    summary="Sign an EIP-2612 permit for a registered escrow.",
    errors=("escrow_unknown", "invalid", "policy_refused", "unavailable"),
)
DISPUTE_SECRET = Method(
    "dispute.secret",
    DisputeParams,
    RevocationSecret,
    summary="Give a released revocation secret again, to dispute a stale close by the guard.",
    errors=("channel_unknown", "out_of_order", "unavailable"),
)
RECOVER_SIGN = Method(
    "recover.sign",
    RecoverParams,
    Signature,
    summary="Sign the credential for reading a channel back from the merchant.",
    errors=("escrow_unknown", "unavailable"),
)
RECOVER_NONCE = Method(
    "recover.nonce",
    RecoverNonceParams,
    RecoverNonce,
    summary="Give the nonce under which the merchant recorded a payment, if there was one.",
    errors=("channel_unknown", "out_of_order", "unavailable"),
)
RECOVER_ESTABLISH = Method(
    "recover.establish",
    RecoverEstablishParams,
    Record,
    summary="Check and keep the first closing authorization of a channel that was forgotten.",
    errors=(
        "escrow_unknown",
        "already_different",
        "bad_signature",
        "foreign",
        "invalid",
        "unavailable",
    ),
)
RECOVER_PAY = Method(
    "recover.pay",
    RecoverPayParams,
    Record,
    summary="Check and keep the closing authorization of a payment that was forgotten.",
    errors=(
        "channel_unknown",
        "out_of_order",
        "bad_signature",
        "foreign",
        "invalid",
        "unavailable",
    ),
)
BACKUP_KEY = Method(
    "backup.key",
    Nothing,
    BackupKey,
    summary="Give the key that opens this wallet's backups.",
)

CONFIRMATION_WAIT = Method(
    "confirmation.wait",
    ConfirmationParams,
    Confirmation,
    summary="Ask the person at the signer, and wait for the answer.",
    errors=("out_of_order",),
)
CONFIRMATION_WITHDRAW = Method(
    "confirmation.withdraw",
    ConfirmationParams,
    Done,
    summary="Take a question back: nobody waits for its answer any more.",
)
POLICY_STATES = Method(
    "signer.policies",
    Nothing,
    PolicyStates,
    summary="Show the limits in force and what is used of them.",
)

LINK_METHODS = (LINK_HELLO, LINK_ATTACH, PAIR_HELLO, PAIR_PROVE)
METHODS = (
    PING,
    RECORDS,
    ADOPT,
    ESCROW,
    ESTABLISH_PROVE,
    ESTABLISH_AUTHORIZE,
    ESTABLISH_COMPLETE,
    PAY_PROVE,
    PAY_AUTHORIZE,
    PAY_COMPLETE,
    CLOSE_AUTHORIZE,
    TRANSACTION_SIGN,
    TOKEN_PERMIT,
    DISPUTE_SECRET,
    RECOVER_SIGN,
    RECOVER_NONCE,
    RECOVER_ESTABLISH,
    RECOVER_PAY,
    BACKUP_KEY,
    CONFIRMATION_WAIT,
    CONFIRMATION_WITHDRAW,
    POLICY_STATES,
)
