"""Where the daemon is, and what to say when it is not there."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zkchannels.jsonrpc.client import ConnectError

VARIABLE = "CUSTOMERD_SOCKET"
FOLDER = "/run/customerd"
SYSTEM = f"{FOLDER}/customerd.sock"
TLS = "tls://"
HEXADECIMAL = "0123456789abcdef"
MONITOR = f"{FOLDER}/monitor.sock"


def socket_path(option: str | None, *, wallet: str | None = None, monitor: bool = False) -> str:
    """Return the socket to connect to: the option's, the environment's, the system's, or ours.

    `wallet`: that of the system's daemon for this wallet. `monitor`: that for holders of tokens.
    """
    if option:
        return option
    if wallet:
        return f"{FOLDER}/{wallet}/{'monitor' if monitor else 'customerd'}.sock"
    if monitor:
        return MONITOR
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    own = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() == 0 or not own:
        return SYSTEM
    personal = f"{own}/customerd/customerd.sock"
    # Whoever has a daemon of their own means that one, also where the system has another.
    return personal if _is_there(personal) or not _is_there(SYSTEM) else SYSTEM


def tls_address(text: str) -> tuple[str, int, str]:
    """Read "tls://HOST:PORT#SHA256": host, port, fingerprint; raises Failure."""
    place, _, pinned = text.removeprefix(TLS).partition("#")
    host, _, port = place.rpartition(":")
    digits = pinned.lower().replace(":", "")
    if not host or not port.isdecimal() or len(digits) != 64 or set(digits) - set(HEXADECIMAL):
        from customerctl.failures import USAGE, Failure

        message = "over TLS --socket is tls://HOST:PORT#SHA256-OF-THE-CERTIFICATE"
        raise Failure(USAGE, "usage", message)
    return host.removeprefix("[").removesuffix("]"), int(port), digits


def _is_there(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - importing pathlib takes longer than the whole command
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def absence(error: ConnectError) -> tuple[str, str]:
    """Return why no daemon can be reached, and what to do about it."""
    start = _how_to_start(error.path)
    if error.reason == "stranger":
        return (
            f"the server at {error.path} shows another certificate than was asked for",
            "nothing was sent to it; its owner finds the right one in the daemon's journal",
        )
    if error.reason == "absent":
        return f"customerd is not running: there is no socket {error.path}", start
    if error.reason == "refused":
        return f"customerd is not running: nobody listens at {error.path}", start
    if error.reason == "forbidden":
        return (
            f"you may not use customerd: permission denied for {error.path}",
            f"use it as its owner: sudo -u {_owner(error.path)} customerctl ..., or as root",
        )
    if error.reason == "busy":
        return (
            f"customerd accepts no connection at {error.path}",
            "it may be overloaded or stuck; see its journal: journalctl -u customerd",
        )
    # Python refuses by itself what does not fit into a socket's address.
    reason = os.strerror(error.errno) if error.errno else "the path is too long"
    return f"cannot connect to {error.path}: {reason}", start


def _how_to_start(path: str) -> str:
    if path == SYSTEM:
        return "start it: systemctl start customerd"
    wallet = path.removeprefix(f"{FOLDER}/").partition("/")
    if path.startswith(f"{FOLDER}/") and wallet[1]:
        return f"start it: systemctl start customerd@{wallet[0]}"
    if path == f"{os.environ.get('XDG_RUNTIME_DIR')}/customerd/customerd.sock":
        return "start it: systemctl --user start customerd, or customerd"
    return "start it: customerd, or name another socket with --socket"


def _owner(path: str) -> str:
    """Return the user whose socket this is, as far as we may see it."""
    import pwd

    while path not in ("", "/"):
        try:
            return pwd.getpwuid(os.stat(path).st_uid).pw_name  # noqa: PTH116
        except (OSError, KeyError):
            path = path.rpartition("/")[0]
    return "customerd"
