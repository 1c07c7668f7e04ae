"""The methods of the owner RPC: the one definition that dispatch, help, CLI and docs come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from zkchannels.jsonrpc.method import Method
from zkchannels.wire.signer import POLICIES

Label = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[^\s\x00-\x1f][^\x00-\x1f]*$",
        description="Local unique name of a channel.",
    ),
]
AmountInput = Annotated[
    str | int,
    Meta(description='Decimal text with the asset ("0.005 ETH"), or whole units of the escrow.'),
]
OperationId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Id of an operation.")]
IdempotencyKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="The same key with the same parameters returns the first operation.",
    ),
]
Note = Annotated[str, Meta(max_length=8192, description="Text for the merchant.")]
Wait = Annotated[
    bool,
    Meta(description="Answer when the operation ended, or else as soon as it is queued."),
]
Seconds = Annotated[float, Meta(ge=0, description="Seconds to wait; the operation goes on.")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="How many rows at the most.")]
Topic = Literal["operation", "channel", "chain", "signer", "alarm", "log"]

OperationKind = Literal["establish", "pay", "refund", "close", "recover"]
Estimable = Literal["establish", "pay", "refund", "close"]
OperationStatus = Literal["queued", "running", "done", "refused", "cancelled"]


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all parameters: an unknown name is refused."""


class Result(Struct, frozen=True):
    """Base of all results: always an object; fields may be added."""


class NoParams(Params, frozen=True):
    """No parameters."""


class Amount(Result, frozen=True):
    """Money in whole units of the escrow and as decimal text."""

    units: int
    text: str


class Alert(Result, frozen=True):
    """Something an operator should act on; docs/watcher.md lists the kinds."""

    kind: str
    message: str
    label: str | None = None
    level: Literal["warning", "error", "critical"] = "error"
    since: float | None = None
    """When it was raised."""
    deadline: int | None = None
    """Chain time by which the act has to be on the chain."""


class ChainInfo(Result, frozen=True):
    """What the watcher sees of the chain."""

    chain_id: int | None
    head: int | None
    head_time: int | None
    final: int | None
    following: bool


class PolicyLimit(Result, frozen=True):
    """One limit of the signer's own, with what is used of it in its window."""

    name: str
    kind: Literal["temporary", "policy", "permanent"]
    about: str
    limit: str | None
    used: str | None


class SignerInfo(Result, frozen=True):
    """The signer, as far as the daemon knows it."""

    attached: bool
    compared: bool
    identity: str | None
    account: str | None
    generation: int
    policies: list[str]
    since: float | None
    """Unix time of the last change."""
    paired: bool = False
    fingerprint: str | None = None
    """SHA-256 of the paired signer's certificate, hexadecimal; none on a Unix socket."""
    pairing_until: float | None = None
    """Unix time until which a signer may be paired, where that was offered."""
    limits: list[PolicyLimit] = []
    """What the signer's policies allow; in `signer-status` alone, while a signer is attached."""


class SignerPairParams(Params, frozen=True):
    """How a signer is to be paired."""

    address: (
        Annotated[
            str,
            Meta(
                description='Where the signer finds this daemon, "host:port"; else as configured.'
            ),
        ]
        | None
    ) = None
    expires: Annotated[
        int, Meta(ge=1, le=86400, description="Seconds for which the pairing is open.")
    ] = 600


class SignerPairing(Result, frozen=True):
    """What the signer needs to be paired; whoever reads it may be the one that is paired."""

    line: str
    """For `customersigner pair`."""
    qr: str
    """The same as a QR code of block characters."""
    address: str
    fingerprint: str | None
    """SHA-256 of the daemon's certificate, hexadecimal; none on a Unix socket."""
    expires: int
    """Unix time."""

    def __repr__(self) -> str:
        return f"SignerPairing(address={self.address!r})"


class SignerAddressParams(Params, frozen=True):
    """Where the signer finds this daemon."""

    address: (
        Annotated[
            str,
            Meta(
                description='Where the signer finds this daemon, "host:port"; else as configured.'
            ),
        ]
        | None
    ) = None


class SignerAddress(Result, frozen=True):
    """What a paired signer needs to find this daemon, too; nothing of it is secret."""

    line: str
    """For `customersigner pair`."""
    qr: str
    """The same as a QR code of block characters."""
    address: str
    fingerprint: str | None
    """SHA-256 of the daemon's certificate, hexadecimal; none on a Unix socket."""


class SignerForgotten(Result, frozen=True):
    """The signer that is not paired any more."""

    identity: str
    fingerprint: str | None


class AssetBalance(Result, frozen=True):
    """What all channels of one asset hold."""

    symbol: str
    escrow: str
    spendable: Amount
    refundable: Amount
    closing: Amount


class BackupInfo(Result, frozen=True):
    """The continuous backup."""

    directory: str
    pending: int
    """Channels with changes that are not there yet."""
    behind: float
    """Seconds since the oldest of them was committed."""
    trouble: str


class Info(Result, frozen=True):
    """State of the daemon."""

    version: str
    mode: Literal["starting", "standby", "safe", "ready", "stopping"]
    missing: list[str]
    """What is away, named as the errors are that follow from it; also in `ready`: the chain."""
    chain: ChainInfo
    database: bool
    signer: SignerInfo
    guard: str
    """Address of the guard account."""
    guard_balance: str | None
    channels: int
    operations: int
    """Operations that have not ended."""
    alarms: list[Alert]
    pid: int
    uptime: float
    backup: BackupInfo | None = None
    """The continuous backup, where one is configured."""


class Recovery(Result, frozen=True):
    """How far one channel came."""

    label: str
    channel: str
    status: Literal["recovered", "waiting", "suspect", "closing"]
    """`waiting`: the merchant does not help yet; the daemon goes on asking."""
    index: int
    """Number of the newest state that is known; -1: none."""
    customer_balance: Amount
    message: str
    """What is in the way, and what can be done."""
    operation: str


class Recoveries(Result, frozen=True):
    """Rows of `recover`."""

    recoveries: list[Recovery]


class Resumed(Result, frozen=True):
    """The operations that go on."""

    operations: list[str]


class BackedUp(Result, frozen=True):
    """The file that was written."""

    file: str
    size: int
    """Bytes."""
    channels: int


class RestoredChannel(Result, frozen=True):
    """A channel from a backup."""

    label: str
    status: str
    chain_status: str
    index: int
    stale: bool
    """Whether the signer knows a newer state than the backup."""


class Restored(Result, frozen=True):
    """What a backup brought back."""

    channels: list[RestoredChannel]
    missing: list[str]
    """Channels that signer or chain know and the backup does not; `recover` brings them back."""
    age: float
    """Seconds since the backup, or the oldest of its files, was written."""
    held: int
    """Operations that wait for `resume`."""


class Balance(Result, frozen=True):
    """Money per asset, and the two accounts that pay gas."""

    assets: list[AssetBalance]
    account: str | None
    account_balance: str | None
    guard: str
    guard_balance: str | None


class Channel(Result, frozen=True):
    """A channel as the daemon records it and as the chain shows it."""

    label: str
    channel: str
    merchant: str
    escrow: str
    chain_id: int
    symbol: str
    status: str
    chain_status: str
    customer_balance: Amount
    merchant_balance: Amount
    customer_deposit: Amount
    merchant_deposit: Amount
    index: int
    """Number of the newest state with a pay token."""
    deadline: int | None
    """Chain time until which somebody has to act."""
    operation: str | None
    """The operation that is at work on this channel."""
    created: float


class Channels(Result, frozen=True):
    """Rows of `list`."""

    channels: list[Channel]


class Step(Result, frozen=True):
    """One step of an operation."""

    name: str
    started: float
    finished: float | None


class Failure(Result, frozen=True):
    """Why an operation ended without its effect."""

    kind: str
    message: str
    hint: str = ""
    """What to do about it."""


class Operation(Result, frozen=True):
    """A durable queue entry."""

    operation: str
    kind: OperationKind
    label: str
    status: OperationStatus
    step: str | None
    amount: Amount | None
    receipt: bool | None
    """Whether the merchant confirmed a payment; false: paid, but without the merchant's answer."""
    service_note: str | None
    error: Failure | None
    created: float
    updated: float
    steps: list[Step]
    customer_balance: Amount | None = None
    """What the channel holds for the customer now, where the channel is known."""
    held: bool = False
    """Whether it waits for `resume`, because the database went back in time."""


class Operations(Result, frozen=True):
    """Rows of `operations`."""

    operations: list[Operation]


class HistoryEvent(Result, frozen=True):
    """One recorded event."""

    seq: int
    time: float
    topic: Topic
    kind: str
    label: str | None
    operation: str | None
    details: dict[str, Any]


class History(Result, frozen=True):
    """Rows of `history`, newest first."""

    events: list[HistoryEvent]


class Estimate(Result, frozen=True):
    """What an operation will cost and take, before it is done."""

    transactions: list[str]
    gas: int
    fee: str
    seconds: float
    """Expected duration until the operation ends."""
    notes: list[str]


class Metrics(Result, frozen=True):
    """Figures in OpenMetrics text."""

    text: str


class Subscribed(Result, frozen=True):
    """Events follow as notifications `event`, beginning after `after`."""

    after: int


class MethodHelp(Result, frozen=True):
    """Help on one method."""

    name: str
    summary: str
    needs: str
    errors: list[str]


class Help(Result, frozen=True):
    """Rows of `help`."""

    methods: list[MethodHelp]


class TokenCreated(Result, frozen=True):
    """A new token; its secret is shown this once."""

    id: str
    token: str
    """The secret itself; the daemon does not keep it."""
    caveats: list[str]

    def __repr__(self) -> str:
        return f"TokenCreated(id={self.id!r})"


class TokenInfo(Result, frozen=True):
    """A token as it was made; its holder may have restricted it further."""

    id: str
    note: str
    status: Literal["valid", "expired", "revoked"]
    methods: list[str]
    channels: list[str] | None
    """Ids of the channels that it may see and use; null: all."""
    expires: int | None
    rates: list[str]
    """Calls per seconds."""
    spend: str | None
    """What it may pay altogether; null: nothing."""
    spent: str | None
    """What it paid, and what is being paid, of that."""
    created: float
    revoked: float | None


class TokenRows(Result, frozen=True):
    """Rows of `token-list`."""

    tokens: list[TokenInfo]


class TokenRevoked(Result, frozen=True):
    """The token has ended, and every token made from it."""

    id: str


class Granted(Result, frozen=True):
    """What the presented token allows on this connection."""

    id: str
    methods: list[str]
    channels: list[str] | None
    """Ids of the channels that it may see and use; null: all."""
    expires: int | None


class Reloaded(Result, frozen=True):
    """What differs from before, as "section.key"."""

    applied: Annotated[list[str], Meta(description="Settings that hold from now on.")]
    restart: Annotated[list[str], Meta(description="Settings that the next start brings.")]


class Stopping(Result, frozen=True):
    """The daemon ends after this answer."""

    pid: int


class LabelParams(Params, frozen=True):
    """Names a channel."""

    label: Label


class RenameParams(Params, frozen=True):
    """Renames a channel."""

    label: Label
    new_label: Label


class HistoryParams(Params, frozen=True):
    """Selects recorded events."""

    label: Label | None = None
    operation: OperationId | None = None
    before: Annotated[
        int | None, Meta(description="Only events with a smaller number: the next page.")
    ] = None
    limit: Limit = 100


class EstablishParams(Params, frozen=True):
    """Opens a channel with a merchant."""

    merchant: Annotated[str, Meta(description="zkchannel://host[:port]/0xESCROW")]
    deposit: AmountInput
    merchant_deposit: Annotated[
        AmountInput | None, Meta(description="What the merchant is asked to put in, if anything.")
    ] = None
    label: Label | None = None
    note: Note = ""
    wait: Wait = True
    idempotency_key: IdempotencyKey | None = None


class PayParams(Params, frozen=True):
    """Pays, or asks for a refund, on a channel."""

    label: Label
    amount: AmountInput
    note: Note = ""
    wait: Wait = True
    idempotency_key: IdempotencyKey | None = None


class CloseParams(Params, frozen=True):
    """Closes a channel, by agreement unless `force`."""

    label: Label
    force: Annotated[bool, Meta(description="Close unilaterally, without asking the merchant.")] = (
        False
    )
    wait: bool = True
    idempotency_key: IdempotencyKey | None = None


class RecoverParams(Params, frozen=True):
    """Selects channels; all that need it when neither is named."""

    label: Label | None = None
    merchant: Annotated[
        str | None,
        Meta(description="Look on the chain for channels with zkchannel://host[:port]/0xESCROW"),
    ] = None
    wait: Wait = True
    timeout: Annotated[int, Meta(ge=0, description="Seconds to wait; the recovery goes on.")] = 30


class ResumeParams(Params, frozen=True):
    """Names a held operation; all when none is named."""

    operation: OperationId | None = None


class FileParams(Params, frozen=True):
    """Names a file on the daemon's machine."""

    file: Annotated[str, Meta(min_length=1, description="Path of the backup, from / on.")]


class EstimateParams(Params, frozen=True):
    """The operation to estimate."""

    operation: Annotated[Estimable, Meta(description="Kind of operation.")]
    label: Label | None = None
    force: Annotated[bool, Meta(description="For a close: unilaterally.")] = False


class OperationsParams(Params, frozen=True):
    """Selects operations, newest first."""

    label: Label | None = None
    status: Annotated[
        OperationStatus | None, Meta(description="Only operations in this status.")
    ] = None
    limit: Limit = 100


class OperationParams(Params, frozen=True):
    """Names an operation."""

    operation: OperationId


class WaitParams(Params, frozen=True):
    """Waits for the end of an operation."""

    operation: OperationId
    timeout: Seconds | None = None


class SubscribeParams(Params, frozen=True):
    """Which events to send; all topics when none is named."""

    topics: Annotated[list[Topic], Meta(description="Which events; all when empty.")] = []
    after: Annotated[
        int | None,
        Meta(description="Number of the last event seen: what came after it is sent first."),
    ] = None


class TokenCreateParams(Params, frozen=True):
    """What a new token allows; everything else it does not."""

    methods: Annotated[
        list[str], Meta(min_length=1, max_length=64, description="Methods that it may call.")
    ]
    expires: (
        Annotated[str, Meta(description='How long it is valid: "12h", "30d"; else for ever.')]
        | None
    ) = None
    note: Annotated[str, Meta(max_length=200, description="What it is for.")] = ""
    channels: Annotated[
        list[Label],
        Meta(max_length=64, description="Channels that it may see and use; all when empty."),
    ] = []
    rate: (
        Annotated[str, Meta(description='How many calls: "10/s", "100/m"; else any number.')] | None
    ) = None
    spend: (
        Annotated[str, Meta(description='What it may pay altogether: "0.1 ETH"; else nothing.')]
        | None
    ) = None


class TokenParams(Params, frozen=True):
    """Names a token."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Id of a token.")]


class AuthenticateParams(Params, frozen=True):
    """Presents a token; the first request on a monitor socket."""

    token: Annotated[str, Meta(max_length=32768, description="The token, a secret.")]

    def __repr__(self) -> str:
        return "AuthenticateParams(token=...)"


class HelpParams(Params, frozen=True):
    """The method to explain; all when none is named."""

    method: Annotated[str | None, Meta(description="Name of a method; all when absent.")] = None


_SPEND = (
    "not_ready",
    "safe_mode",
    "chain_unavailable",
    "database_unavailable",
    "not_found",
    "invalid_amount",
    "insufficient_balance",
    "amount_too_small",
    "wrong_status",
    "rejected_by_merchant",
    "merchant_unreachable",
    "merchant_misbehaved",
    "policy_refused",
    *POLICIES,
    "idempotency_mismatch",
    "cancelled",
)

GETINFO = Method(
    "getinfo",
    NoParams,
    Info,
    summary="Show the state of the daemon.",
    needs="nothing",
    grant="read",
    example=NoParams(),
)
BALANCE = Method(
    "balance",
    NoParams,
    Balance,
    summary="Show what the channels and accounts hold.",
    errors=(
        "not_ready",
        "database_unavailable",
    ),
    needs="database",
    grant="read",
    example=NoParams(),
)
LIST = Method(
    "list",
    NoParams,
    Channels,
    summary="List all channels.",
    errors=(
        "not_ready",
        "database_unavailable",
    ),
    needs="database",
    grant="read",
    example=NoParams(),
)
SHOW = Method(
    "show",
    LabelParams,
    Channel,
    summary="Show one channel.",
    errors=("not_ready", "database_unavailable", "not_found"),
    needs="database",
    grant="read",
    example=LabelParams(label="coffee"),
)
RENAME = Method(
    "rename",
    RenameParams,
    Channel,
    summary="Give a channel another label.",
    errors=("interrupted", "not_ready", "database_unavailable", "not_found", "label_taken"),
    needs="database",
    example=RenameParams(label="coffee", new_label="espresso"),
)
HISTORY = Method(
    "history",
    HistoryParams,
    History,
    summary="Show what happened, newest first.",
    errors=("not_ready", "database_unavailable", "not_found"),
    needs="database",
    grant="read",
    example=HistoryParams(label="coffee", limit=10),
)
ESTABLISH = Method(
    "establish",
    EstablishParams,
    Operation,
    summary="Open a channel: lock a deposit in the merchant's escrow.",
    errors=(*_SPEND, "label_taken", "invalid_address", "fee_too_high"),
    needs="signer",
    example=EstablishParams(
        merchant="zkchannel://merchant.example/0x5FbDB2315678afecb367f032d93F642f64180aa3",
        deposit="0.1 ETH",
        label="coffee",
    ),
)
PAY = Method(
    "pay",
    PayParams,
    Operation,
    summary="Pay on a channel.",
    errors=(*_SPEND, "spending_limit"),
    needs="signer",
    grant="spend",
    example=PayParams(label="coffee", amount="0.005 ETH", note="one espresso"),
)
REFUND = Method(
    "refund",
    PayParams,
    Operation,
    summary="Ask the merchant to pay back on a channel.",
    errors=_SPEND,
    needs="signer",
    example=PayParams(label="coffee", amount="0.001 ETH", note="it was cold"),
)
CLOSE = Method(
    "close",
    CloseParams,
    Operation,
    summary="Close a channel and pay both sides out on chain.",
    errors=_SPEND,
    needs="signer",
    example=CloseParams(label="coffee"),
)
RECOVER = Method(
    "recover",
    RecoverParams,
    Recoveries,
    summary="Bring channels back, with what the merchants recorded.",
    errors=(
        "not_ready",
        "safe_mode",
        "chain_unavailable",
        "database_unavailable",
        "not_found",
        "wrong_status",
        "invalid_address",
        "merchant_unreachable",
        "merchant_misbehaved",
        "rejected_by_merchant",
        "policy_refused",
        "timed_out",
    ),
    needs="signer",
    example=RecoverParams(label="coffee"),
)
RESUME = Method(
    "resume",
    ResumeParams,
    Resumed,
    summary="Let operations go on that wait because the database went back in time.",
    errors=("interrupted", "not_ready", "database_unavailable", "not_found"),
    needs="database",
    example=ResumeParams(operation="0" * 32),
)
_BACKUP = ("not_ready", "safe_mode", "chain_unavailable", "database_unavailable", "backup_unusable")
BACKUP = Method(
    "backup",
    FileParams,
    BackedUp,
    summary="Write everything but the signer's secrets into one encrypted file.",
    errors=_BACKUP,
    needs="signer",
    example=FileParams(file="/mnt/safe/wallet.zkbackup"),
)
RESTORE = Method(
    "restore",
    FileParams,
    Restored,
    summary="Restore a backup, or a directory of them, into an empty database.",
    errors=("interrupted", *_BACKUP, "wrong_wallet", "not_empty"),
    needs="signer",
    example=FileParams(file="/mnt/safe/wallet.zkbackup"),
)
ESTIMATE = Method(
    "estimate",
    EstimateParams,
    Estimate,
    summary="Say what an operation would cost and take.",
    errors=("not_ready", "chain_unavailable", "database_unavailable", "not_found"),
    needs="chain",
    grant="read",
    example=EstimateParams(operation="close", label="coffee"),
)
OPERATIONS = Method(
    "operations",
    OperationsParams,
    Operations,
    summary="List operations, newest first.",
    errors=("not_ready", "database_unavailable", "not_found"),
    needs="database",
    grant="read",
    example=OperationsParams(limit=10),
)
OPERATION = Method(
    "operation",
    OperationParams,
    Operation,
    summary="Show one operation with its steps.",
    errors=("not_ready", "database_unavailable", "not_found"),
    needs="database",
    grant="read",
    example=OperationParams(operation="0" * 32),
)
WAIT = Method(
    "wait",
    WaitParams,
    Operation,
    summary="Wait for the end of an operation.",
    errors=("not_ready", "database_unavailable", "not_found", "timed_out"),
    needs="database",
    grant="read",
    example=WaitParams(operation="0" * 32, timeout=10.0),
)
CANCEL = Method(
    "cancel",
    OperationParams,
    Operation,
    summary="Cancel an operation that has not bound anything yet.",
    errors=("not_ready", "database_unavailable", "not_found", "channel_busy"),
    needs="database",
    example=OperationParams(operation="0" * 32),
)
SUBSCRIBE = Method(
    "subscribe",
    SubscribeParams,
    Subscribed,
    summary="Receive events as notifications on this connection.",
    errors=(
        "not_ready",
        "database_unavailable",
    ),
    needs="database",
    grant="read",
    example=SubscribeParams(topics=["operation"]),
)
SIGNER_STATUS = Method(
    "signer-status",
    NoParams,
    SignerInfo,
    summary="Show the signer.",
    needs="nothing",
    grant="read",
    example=NoParams(),
)
TOKEN_CREATE = Method(
    "token-create",
    TokenCreateParams,
    TokenCreated,
    summary="Make a token, which lets its holder do some things.",
    errors=("interrupted", "not_ready", "database_unavailable", "not_found", "invalid_restriction"),
    needs="database",
    example=TokenCreateParams(
        methods=["getinfo", "balance", "list"], expires="30d", note="grafana"
    ),
)
TOKEN_LIST = Method(
    "token-list",
    NoParams,
    TokenRows,
    summary="List all tokens that were made.",
    errors=("not_ready", "database_unavailable"),
    needs="database",
    example=NoParams(),
)
TOKEN_REVOKE = Method(
    "token-revoke",
    TokenParams,
    TokenRevoked,
    summary="End a token and all made from it, at once.",
    errors=("not_ready", "database_unavailable", "not_found"),
    needs="database",
    example=TokenParams(id="0" * 32),
)
AUTHENTICATE = Method(
    "authenticate",
    AuthenticateParams,
    Granted,
    summary="Present a token: the first request on a monitor socket.",
    errors=("not_ready", "forbidden", "rate_limited"),
    needs="nothing",
    example=AuthenticateParams(token="AgEJY3VzdG9tZXJk..."),  # noqa: S106 - an example
)
SIGNER_PAIR = Method(
    "signer-pair",
    SignerPairParams,
    SignerPairing,
    summary="Let one signer pair itself, once and for a while.",
    errors=("not_ready", "database_unavailable", "invalid_address"),
    needs="database",
    example=SignerPairParams(expires=300),
)
SIGNER_ADDRESS = Method(
    "signer-address",
    SignerAddressParams,
    SignerAddress,
    summary="Show where this daemon is, for a signer that is paired already.",
    errors=("invalid_address",),
    needs="nothing",
    example=SignerAddressParams(address="standby.example"),
)
SIGNER_FORGET = Method(
    "signer-forget",
    NoParams,
    SignerForgotten,
    summary="Forget the paired signer, cut its connection, withdraw an open pairing.",
    errors=("interrupted", "not_ready", "database_unavailable", "not_found"),
    needs="database",
    example=NoParams(),
)
METRICS = Method(
    "metrics",
    NoParams,
    Metrics,
    summary="Show figures in OpenMetrics text.",
    needs="nothing",
    grant="read",
    example=NoParams(),
)
RELOAD = Method(
    "reload",
    NoParams,
    Reloaded,
    summary="Read the configuration again, and apply what can change while the daemon runs.",
    errors=("invalid_configuration",),
    needs="nothing",
    example=NoParams(),
)
STOP = Method(
    "stop",
    NoParams,
    Stopping,
    summary="End the daemon and its watcher.",
    needs="nothing",
    example=NoParams(),
)
HELP = Method(
    "help",
    HelpParams,
    Help,
    summary="Explain the methods.",
    errors=("not_found",),
    needs="nothing",
    grant="read",
    example=HelpParams(method="pay"),
)
DISCOVER = Method(
    "rpc.discover",
    NoParams,
    dict[str, Any],
    summary="Describe this RPC as an OpenRPC document.",
    needs="nothing",
    grant="read",
    example=NoParams(),
)

METHODS: tuple[Method[Any, Any], ...] = (
    GETINFO,
    BALANCE,
    LIST,
    SHOW,
    RENAME,
    HISTORY,
    ESTABLISH,
    PAY,
    REFUND,
    CLOSE,
    RECOVER,
    RESUME,
    BACKUP,
    RESTORE,
    ESTIMATE,
    OPERATIONS,
    OPERATION,
    WAIT,
    CANCEL,
    SUBSCRIBE,
    SIGNER_STATUS,
    TOKEN_CREATE,
    TOKEN_LIST,
    TOKEN_REVOKE,
    SIGNER_PAIR,
    SIGNER_ADDRESS,
    SIGNER_FORGET,
    METRICS,
    RELOAD,
    STOP,
    HELP,
    DISCOVER,
)
