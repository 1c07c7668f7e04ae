"""Every setting of the signer, with its default, in one typed object."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from customersigner.errors import SignerError
from customersigner.policy import DEFAULT_FEE_CAP, Policy
from zkchannels.escrow.ethereum import InvalidAddress, parse_address

SYSTEM_CONFIGURATION = Path("/etc/customersigner/customersigner.toml")


class InvalidSetting(SignerError):
    """A setting has a value that it cannot have."""


def _is_root() -> bool:
    return os.geteuid() == 0


def _default_socket() -> str:
    """Where customerd listens for its signer by default."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    return (
        "/run/customerd/signer.sock" if _is_root() or not base else f"{base}/customerd/signer.sock"
    )


def _default_state() -> str:
    """The state directory of systemd, of the system, or of this person."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return given
    if _is_root():
        return "/var/lib/customersigner"
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"{base}/customersigner"


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the signer refuses whatever the daemon asks."""

    fee_cap: int = DEFAULT_FEE_CAP
    """Most that one transaction may cost, in wei."""
    payment_limit: int | None = None
    """Most that one payment may move to a merchant, in units of its escrow; none when absent."""
    escrows: list[str] | None = None
    """The only escrows to deal with; any when absent. Without this list a stolen daemon can name
    an escrow of its own and have a deposit paid into it."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings; `policy` is a table of the configuration file."""

    socket: str | None = None
    """The daemon's socket for its signer. When absent the paired daemon is dialled, and without a
    pairing the daemon's usual socket on this host."""
    state_directory: str = msgspec.field(default_factory=_default_state)
    """Directory of the seed file and the store, mode 0700."""
    log_level: str = "info"
    policy: PolicySettings = msgspec.field(default_factory=PolicySettings)

    @property
    def socket_path(self) -> Path:
        """The daemon's socket on this host."""
        return Path(self.socket or _default_socket())

    @property
    def pairing_file(self) -> Path:
        """The paired daemon's address and certificate."""
        return Path(self.state_directory) / "daemon.json"

    @property
    def certificate_file(self) -> Path:
        """The certificate that the daemon knows this device by, and its key."""
        return Path(self.state_directory) / "link.pem"

    @property
    def seed_file(self) -> Path:
        """The encrypted seed."""
        return Path(self.state_directory) / "seed"

    @property
    def store_file(self) -> Path:
        """The record."""
        return Path(self.state_directory) / "signer.sqlite"


def policy_of(settings: PolicySettings) -> Policy:
    """The policy that some settings ask for; raises InvalidSetting."""
    for name, value in (("fee_cap", settings.fee_cap), ("payment_limit", settings.payment_limit)):
        if value is not None and value < 0:
            raise InvalidSetting(f"policy.{name} is negative")
    escrows = settings.escrows
    try:
        allowed = None if escrows is None else frozenset(map(parse_address, escrows))
    except InvalidAddress as error:
        raise InvalidSetting(f"policy.escrows: {error}") from None
    return Policy(fee_cap=settings.fee_cap, payment_limit=settings.payment_limit, escrows=allowed)
