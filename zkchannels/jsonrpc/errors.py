"""What can go wrong with a call: the peer's error, a lost connection, no answer in time."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would double the start of the command line
if TYPE_CHECKING:
    from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
STOPPING = -32000
"""The call was not begun or was given up, because its server stops."""
REFUSED = -32001
"""This connection is not accepted; it is closed after this error."""


class RpcError(Exception):
    """An error object of JSON-RPC 2.0 (section 5.1), raised by handlers and by callers."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ConnectionLost(Exception):
    """The connection ended before the answer came; whether the call was executed is unknown."""


class ProtocolError(ConnectionLost):
    """The peer broke the protocol (its answer cannot be read); the connection is closed."""


class RequestTimeout(Exception):
    """No answer came in time; the call may still be executed."""
