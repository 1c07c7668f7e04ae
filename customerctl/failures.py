"""How a command ends without success: exit code, words for people, an object for programs."""

from __future__ import annotations

from customerctl._commands import COMMANDS, ERRORS
from zkchannels.jsonrpc.errors import INVALID_PARAMS, METHOD_NOT_FOUND, REFUSED, STOPPING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from zkchannels.jsonrpc.errors import RpcError

DONE = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
INTERRUPTED = 130


class Failure(Exception):
    """What went wrong, and what to do about it."""

    def __init__(
        self, exit_code: int, kind: str, message: str, *, hint: str = "", **data: Any
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint
        self.code: int | None = None
        self.data: dict[str, Any] = {"kind": kind, **data}

    def as_object(self) -> dict[str, Any]:
        """Return the error as `--json` shows it: that of the daemon where it gave one."""
        code = {} if self.code is None else {"code": self.code}
        hint = {"hint": self.hint} if self.hint else {}
        return {"error": {**code, "message": self.message, "data": {**hint, **self.data}}}


def of_error(error: RpcError, command: str, *, operation: str | None = None) -> Failure:
    """Return the failure that an error of the daemon means."""
    data = dict(error.data) if isinstance(error.data, dict) else {}
    if operation is not None:
        data.setdefault("operation", operation)
    kind = str(data.pop("kind", ""))
    hint = str(data.pop("hint", ""))
    exit_code, message = FAILED, error.message
    if error.code == STOPPING:
        exit_code, kind, message = NO_DAEMON, kind or "stopping", "customerd is stopping"
        hint = goes_on(operation) if operation else "try again once it is back"
    elif error.code == REFUSED:
        exit_code, kind = NO_DAEMON, kind or "forbidden"
    elif error.code == INVALID_PARAMS and not kind:
        exit_code, kind = USAGE, "usage"
        message, hint = _about_parameter(message.removeprefix("invalid params: "), command)
    elif error.code == METHOD_NOT_FOUND and not kind:
        kind = "not_found"
        hint = hint or "customerctl rpc rpc.discover lists what this daemon knows"
    failure = Failure(exit_code, kind or "internal", message, hint=hint, **data)
    failure.code = error.code
    return failure


def of_operation(operation: dict[str, Any]) -> Failure:
    """Return the failure that the end of an operation without its effect means."""
    error = operation["error"] or {
        "kind": "cancelled",
        "message": f"the operation was {operation['status']}",
    }
    kind, identity = error["kind"], operation["operation"]
    code, retry = ERRORS.get(kind, (None, "never"))
    failure = Failure(
        FAILED,
        kind,
        error["message"],
        hint=error.get("hint", ""),
        retry=retry,
        operation=identity,
    )
    failure.code = code
    return failure


def goes_on(operation: str) -> str:
    """Say how to come back to an operation."""
    return f"the operation goes on: customerctl wait {operation}"


def _about_parameter(message: str, command: str) -> tuple[str, str]:
    """Name the argument that the daemon does not accept (it tells `$.field`), and its meaning."""
    field = message.rpartition("`$.")[2].partition("`")[0].partition("[")[0]
    for parameter in COMMANDS[command]["parameters"] if command in COMMANDS else ():
        if parameter["name"] == field:
            name = parameter["flag"] or parameter["metavar"]
            return f"{name}: {message.partition(' - at ')[0]}", f"{name}: {parameter['help']}"
    return message, ""
