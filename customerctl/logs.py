"""The daemon's lines in the journal: journalctl with the right matches, in this process' place."""

from __future__ import annotations

import os

from customerctl.failures import FAILED, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

BOOTED = "/run/systemd/system"
"""There where systemd runs the machine (sd_booted(3))."""
UNIT = "customerd.service"
SIGNER = "customersigner.service"
DETACHED = "/var/log/customerd.log"


def show(params: dict[str, Any], *, wallet: str | None, as_json: bool) -> NoReturn:
    """Become journalctl; raises Failure where there is no journal."""
    command = journalctl(params, wallet=wallet, as_json=as_json)
    if not os.path.isdir(BOOTED):  # noqa: PTH112 - pathlib takes long to import
        raise _no_journal("this machine is not run by systemd: there is no journal")
    try:
        os.execvp(command[0], command)  # noqa: S606 - journalctl takes signals and the terminal
    except OSError as error:
        raise _no_journal(f"journalctl cannot be run: {error.strerror}") from None


def journalctl(
    params: dict[str, Any], *, wallet: str | None = None, as_json: bool = False
) -> list[str]:
    """Return the command line: of the system's daemon, and of one that this user runs.

    `wallet`: of the system's daemon for this wallet alone. What a signer on this machine said
    about an operation belongs to its story.
    """
    signers = [SIGNER] if "operation" in params else []
    if wallet:
        units = [f"--unit={unit}" for unit in (f"customerd@{wallet}.service", *signers)]
    else:
        kinds = ("--unit", "--user-unit")
        units = [f"{kind}={unit}" for unit in (UNIT, *signers) for kind in kinds]
    command = ["journalctl", *units]
    if params.get("follow"):
        command.append("--follow")
    if "since" in params:
        command.append(f"--since={params['since']}")
    if as_json:
        command.append("--output=json")
    matches = (_match(name, params[name]) for name in ("channel", "operation") if name in params)
    return [*command, *matches]


def _match(name: str, value: str) -> str:
    if name == "operation":
        value = value.lower()
        if len(value) != 32 or set(value) - set("0123456789abcdef"):
            message = "--operation is an operation's id: 32 hexadecimal digits"
            raise Failure(USAGE, "usage", message, hint="customerctl operations shows it")
    return f"{name.upper()}={value}"


def _no_journal(message: str) -> Failure:
    return Failure(
        FAILED,
        "no_journal",
        message,
        hint="customerd writes its log to its standard error; started with --detach,"
        f" to {DETACHED}, a person's own to customerd.log in its state directory,"
        " or where --logfile says",
    )
