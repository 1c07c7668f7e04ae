"""merchantd's settings: one typed object, every default in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from merchantd.errors import MarginTooLong
from zkchannels.service.configuration import (
    ConfigurationError,
    Duration,
    load,
    refuse_open_password,
)
from zkchannels.wire.fields import Balance
from zkchannels.wire.merchant import DEFAULT_PORT

PASSWORD = "merchantd.database-password"  # noqa: S105 - its name
MERCHANT_KEY = "merchantd.merchant-key"
ACCOUNT_KEY = "merchantd.account-key"
TLS_KEY = "merchantd.tls-key"
"""Names of the credentials that merchantd takes from systemd; each comes before its file."""

DEFAULT_PATH = Path("/etc/merchantd/merchantd.toml")
MARGINS_IN_DELAY = 4
"""The least number of margins that the escrow's delay holds (docs/protocol.md, deadlines)."""


class Chain(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the chain is read, and how much of it is trusted."""

    endpoints: Annotated[list[str], Meta(min_length=1)]
    """HTTP(S) addresses of Ethereum nodes, best first."""
    confirmations: Annotated[int, Meta(ge=1)] | Literal["finalized"] = "finalized"
    """When a funding is final: so many blocks, or the chain's own `finalized`."""
    poll: Duration = 60.0
    """How often the chain is read when no node announces new blocks."""
    maximum_fee: Annotated[int, Meta(gt=0)] = 500_000_000_000
    """The most that is paid per gas, in wei."""
    minimum_tip: Annotated[int, Meta(ge=0)] = 1_000_000_000
    """The least tip per gas that is offered, in wei."""


class Listen(Struct, frozen=True, forbid_unknown_fields=True):
    """Where customers connect."""

    host: str = "::"
    """Address to listen on; "::" is every one."""
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_PORT
    """TCP port."""
    certificate: str = "certificate.pem"
    """File of the TLS certificate, with its chain."""
    private_key: str = "certificate.key"
    """File of its secret key."""
    names: Annotated[tuple[str, ...], Meta(min_length=1)] = ("localhost",)
    """Host names and addresses of the certificate that `merchantd init` makes."""


class Keys(Struct, frozen=True, forbid_unknown_fields=True):
    """Secret files; each is created by `merchantd init`, readable by its owner only."""

    merchant: str = "merchant.key"
    """The key that signs channel states; belongs to one escrow and one database."""
    account: str = "account.key"
    """The Ethereum account that deploys the escrow, pays for gas and is paid."""


class Approver(Struct, frozen=True, forbid_unknown_fields=True):
    """Who decides about new channels, payments and refunds."""

    url: str | None = None
    """An HTTP service that is asked; without it, payments are approved automatically."""
    automatic_refunds: Balance = 0
    """The largest refund that is approved automatically, in units; 0 refuses all."""
    timeout: Duration = 360.0
    """How long the HTTP service may think about one question."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one customer, or one network address, may ask for. Amounts are in units."""

    minimum_deposit: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 1
    """The least that a customer locks up in a channel."""
    maximum_deposit: Balance = 2**63 - 1
    """The most that a customer locks up in a channel."""
    maximum_merchant_deposit: Balance = 0
    """The most that the merchant itself pays into a new channel."""
    sessions_per_address: Annotated[int, Meta(ge=1)] = 64
    """Payments and openings under way at once."""
    session_lifetime: Duration = 600.0
    """How long one of them may take."""
    strikes_per_address: Annotated[int, Meta(ge=1)] = 1000
    """Refused proofs and new channels per hour: what is kept for ever without being paid for."""
    connections_per_address: Annotated[int, Meta(ge=1)] = 256
    """Connections at once."""
    connections: Annotated[int, Meta(ge=1)] = 4096
    """All connections; beyond them idle ones end, those of the busiest addresses first."""
    idle: Duration = 600.0
    """After how long without a message a connection is closed; above the approver's timeout."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that `merchantd.toml` holds; paths are relative to that file."""

    chain: Chain
    database: str = "dbname=merchantd"
    """How PostgreSQL is reached (libpq connection string); the credential
    `merchantd.database-password` comes before a password in it."""
    margin: Duration = 3600.0
    """The longest reorganisation expected; claims wait so long after a deadline."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""
    listen: Listen = Listen()
    keys: Keys = Keys()
    approver: Approver = Approver()
    limits: Limits = Limits()


def check_margin(settings: Settings, delay: int) -> None:
    """Raise MarginTooLong unless the escrow's delay, in seconds, is long against the margin."""
    if settings.margin * MARGINS_IN_DELAY > delay:
        raise MarginTooLong(
            f"the margin ({settings.margin:g} s) may be a {MARGINS_IN_DELAY}th of the escrow's "
            f"delay ({delay} s) at most"
        )


def read_settings(path: Path) -> Settings:
    """Return the settings with all paths made absolute.

    Raises ConfigurationError for a file that cannot be read or holds unknown or wrong values.
    """
    settings = load(Settings, path, prefix="MERCHANTD")
    refuse_open_password(path, settings.database, PASSWORD)
    if settings.limits.minimum_deposit > settings.limits.maximum_deposit:
        raise ConfigurationError("limits: minimum_deposit is above maximum_deposit")
    folder = path.absolute().parent
    listen, keys = settings.listen, settings.keys
    return msgspec.structs.replace(
        settings,
        listen=msgspec.structs.replace(
            listen,
            certificate=str(folder / listen.certificate),
            private_key=str(folder / listen.private_key),
        ),
        keys=msgspec.structs.replace(
            keys, merchant=str(folder / keys.merchant), account=str(folder / keys.account)
        ),
    )
