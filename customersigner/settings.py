"""Every setting of the signer, with its default, in one typed object."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

SYSTEM_CONFIGURATION = Path("/etc/customersigner/customersigner.toml")


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


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings but the policy, which has a file of its own."""

    socket: str | list[str] | None = None
    """The daemon's socket for its signer, or those of several daemons on one database, in the
    order in which they are tried. When absent the paired daemon is dialled, and without a pairing
    the daemon's usual socket on this host."""
    state_directory: str = msgspec.field(default_factory=_default_state)
    """Directory of the seed file and the store, mode 0700."""
    log_level: str = "info"
    """The least level that is logged: "debug", "info", "warning" or "error"."""

    @property
    def socket_paths(self) -> list[Path]:
        """The daemons' sockets on this host."""
        given = self.socket or _default_socket()
        return [Path(each) for each in ([given] if isinstance(given, str) else given)]

    @property
    def pairing_file(self) -> Path:
        """The paired daemons' addresses and certificates."""
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

    @property
    def policy_file(self) -> Path:
        """The owner's limits."""
        return Path(self.state_directory) / "policy.toml"

    @property
    def confirmation_socket(self) -> Path:
        """Where `customersigner confirm` finds the running signer."""
        return Path(self.state_directory) / "confirm.sock"
