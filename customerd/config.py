"""Every setting of the daemon, with its default, in one typed object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from zkchannels.service.configuration import Duration
from zkchannels.wire.pairing import InvalidLine, read_address

PASSWORD = "customerd.database-password"  # noqa: S105 - its name
GUARD_KEY = "customerd.guard-key"
TOKENS_KEY = "customerd.tokens-key"
"""Names of the credentials that the daemon takes from systemd; each comes before its file."""


def runtime_directory() -> str:
    """Return where the sockets are: the system's daemon's, or a person's own."""
    if os.geteuid() == 0:
        return "/run/customerd"
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return str(Path(base) / "customerd")


def _state_directory() -> str:
    if os.geteuid() == 0:
        return "/var/lib/customerd"
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(base) / "customerd")


def log_file() -> str:
    """Return where a detached daemon logs to."""
    return "/var/log/customerd.log" if os.geteuid() == 0 else f"{_state_directory()}/customerd.log"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: an unknown key is refused."""


class Sockets(Section, frozen=True):
    """Where the daemon listens."""

    rpc: str = msgspec.field(default_factory=lambda: f"{runtime_directory()}/customerd.sock")
    """The owner's RPC socket, mode 0600."""
    signer: str = msgspec.field(default_factory=lambda: f"{runtime_directory()}/signer.sock")
    """The socket that the signer dials."""
    signer_mode: Literal["0600", "0660", "0666"] = "0600"
    """Its mode. Others than the daemon's own user and root are listened to with another mode
    only, and attach only as the paired signer."""
    signer_group: str | None = None
    """Its group."""
    signer_tls: str | None = None
    """Where a signer dials in over TCP with TLS 1.3: "host:port", ":port" for every address;
    nowhere when absent."""
    monitor: str | None = None
    """The socket for holders of tokens, mode 0660; none when absent."""
    monitor_group: str | None = None
    """Who but the owner may connect there: its group; the daemon's own when absent."""
    monitor_tls: str | None = None
    """Where holders of tokens connect over TCP with TLS 1.3: "host:port", ":port" for every
    address; nowhere when absent."""

    def __post_init__(self) -> None:
        for name, address in (("signer_tls", self.signer_tls), ("monitor_tls", self.monitor_tls)):
            try:
                if address is not None:
                    read_address(address)
            except InvalidLine as error:
                raise ValueError(f"{name}: {error}") from None


class DatabaseSettings(Section, frozen=True):
    """The PostgreSQL database."""

    dsn: str = "dbname=customerd"
    """How PostgreSQL is reached (libpq connection string); the credential
    `customerd.database-password` comes before a password in it."""
    """How it is reached: a connection string of libpq."""
    lease: Duration = 15.0
    """How long another daemon has to wait after this one vanished."""


class ChainSettings(Section, frozen=True):
    """The EVM chain and how it is followed."""

    endpoints: list[str] = msgspec.field(default_factory=lambda: ["http://127.0.0.1:8545"])
    """HTTP addresses of nodes, tried in order; WebSocket on the same address."""
    symbol: str = "ETH"
    """How the native coin is called."""
    confirmations: Annotated[int, Meta(ge=1)] | Literal["finalized"] = "finalized"
    """When a change is final: so many blocks, or the chain's own `finalized`."""
    poll: Duration = 60.0
    """How often to look when no new head is pushed."""
    stale_after: Duration = 600.0
    """How old the head may be before the watcher counts as not following."""
    stuck_after: Duration = 300.0
    """How long the watcher may be at one piece of work before it counts as hung: then systemd's
    watchdog is fed no more. A node that is away never takes that long."""
    margin: Duration = 3600.0
    """How long before a deadline every act has to be final: the longest expected reorganisation."""
    fee_cap: int = 500_000_000_000
    """Highest fee per gas that is ever offered, in wei."""
    tip_floor: int = 1_000_000_000
    """Lowest tip per gas that is offered, in wei."""
    first_block: Annotated[int, Meta(ge=0)] = 0
    """Block from which `recover --merchant` looks for channels; that of the oldest will do."""
    history_patience: Duration = 600.0
    """How long one call may read the chain's history; the next call goes on where it ended."""


class MerchantSettings(Section, frozen=True):
    """Sessions with merchants."""

    certificates: str | None = None
    """File with trusted certificates; the system's when absent."""
    connect_timeout: Duration = 10.0
    """How long connecting to one may take."""
    message_timeout: Duration = 60.0
    """How long one answer is waited for."""
    approval_timeout: Duration = 360.0
    """How long an answer is waited for that somebody at the merchant may have to give."""
    patience: Duration = 10.0
    """How long a merchant that says "later" is asked again before a payment is refused."""
    warm: bool = True
    """Keep one unused connection per merchant ready."""
    mutual_patience: Duration = 600.0
    """How long a mutual close asks the merchant before it closes unilaterally."""


class SignerSettings(Section, frozen=True):
    """The link that the signer dials."""

    ping_interval: Duration = 2.0
    """How often it is asked for a sign of life."""
    gone_after: Duration = 5.0
    """How long it may be silent; longer than a ping's interval."""
    request_timeout: Duration = 10.0
    """How long one answer is waited for; until it comes the signer is slow, not gone."""

    def __post_init__(self) -> None:
        if not 0 < self.ping_interval < self.gone_after:
            raise ValueError("gone_after has to be longer than ping_interval, which is above zero")


class GuardSettings(Section, frozen=True):
    """The hot account that pays for defence."""

    key: str = msgspec.field(default_factory=lambda: f"{_state_directory()}/guard.key")
    """File of its secret key, mode 0600; made at the first start. The credential
    `customerd.guard-key` comes before it; other keys of the daemon are made beside it."""
    enabled: bool = True
    """Whether the guard may close channels while the signer is away."""


class TokenSettings(Section, frozen=True):
    """Tokens, which let others do some things."""

    key: str | None = None
    """File of the key that all tokens come from, mode 0600; made at the first start. `tokens.key`
    beside the guard's key when absent."""


class BackupSettings(Section, frozen=True):
    """The continuous backup."""

    directory: str | None = None
    """Where every channel is written, encrypted, soon after each change; nowhere when absent."""


class Settings(Section, frozen=True):
    """All settings; each section is a table of the configuration file."""

    sockets: Sockets = msgspec.field(default_factory=Sockets)
    database: DatabaseSettings = msgspec.field(default_factory=DatabaseSettings)
    chain: ChainSettings = msgspec.field(default_factory=ChainSettings)
    merchant: MerchantSettings = msgspec.field(default_factory=MerchantSettings)
    signer: SignerSettings = msgspec.field(default_factory=SignerSettings)
    backup: BackupSettings = msgspec.field(default_factory=BackupSettings)
    guard: GuardSettings = msgspec.field(default_factory=GuardSettings)
    tokens: TokenSettings = msgspec.field(default_factory=TokenSettings)
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """The least level that is logged."""
