"""A blocking client for command lines: starts fast, as it imports nothing that the call needs not.

Only the C halves of `socket` and `json` are used: importing the public modules takes longer than
starting the interpreter.
"""

from __future__ import annotations

import sys

from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError

try:
    import _json
    import _socket as socket
except ImportError:  # another implementation of Python
    import socket  # type: ignore[no-redef]

    _json = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Notified = Callable[[str, Any], object]

CHUNK = 1 << 16


class ConnectError(Exception):
    """The daemon cannot be reached.

    `reason`: "absent" (there is no such socket), "refused" (a socket, but nobody listens),
    "forbidden" (not this user's), "busy" (no connection accepted in time), "stranger" (a server
    with another certificate than was expected), or "other".
    """

    def __init__(self, path: str, reason: str, error: OSError) -> None:
        super().__init__(path, reason, error.errno)
        self.path = path
        self.reason = reason
        self.errno = error.errno

    def __str__(self) -> str:
        return f"{self.path}: {_MEANINGS[self.reason]}"


_MEANINGS = {
    "absent": "no such socket",
    "refused": "nobody listens",
    "forbidden": "not permitted",
    "busy": "no connection accepted in time",
    "stranger": "the server shows another certificate",
    "other": "cannot connect",
}


class BlockingClient:
    """One connection over a Unix socket, or what a subclass connects to; raises ConnectError.

    Connects blocking (a non-blocking connect to a socket whose backlog is full fails at once) and
    has `timeout` seconds to wait for each answer afterwards, None for ever.
    """

    def __init__(
        self, path: str, *, timeout: float | None = None, connect_timeout: float = 5.0
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._received = bytearray()
        self._searched = 0
        self._last_identity = 0
        try:
            # Bounds the blocking connect: a struct timeval, seconds and microseconds.
            parts = divmod(int(connect_timeout * 1_000_000), 1_000_000)
            timeval = b"".join([part.to_bytes(8, sys.byteorder) for part in parts])
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            self._socket.connect(path)
            self._socket.settimeout(timeout)
        except OSError as error:
            self._socket.close()
            raise ConnectError(path, reason_of(error), error) from None

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight go on at the daemon."""
        self._socket.close()

    def call(self, method: str, params: Any = None, on_notification: Notified | None = None) -> Any:
        """Return the result; notifications that come before it go to `on_notification`.

        `params`: a dict or a list. Raises RpcError, ConnectionLost, RequestTimeout.
        """
        self._last_identity += 1
        request = {"jsonrpc": "2.0", "id": self._last_identity, "method": method}
        if params is not None:
            request["params"] = params
        try:
            self._socket.sendall(b"%s\n" % _encode(request).encode())
        except TimeoutError:
            raise RequestTimeout(f"{method}: not sent in time") from None
        except OSError:
            pass  # the reason may be waiting to be read, as the error that refuses a connection
        while True:
            message = self._receive()
            if "method" in message:
                if on_notification is not None:
                    on_notification(message["method"], message.get("params"))
                continue
            identity = message.get("id")
            if identity is not None and identity != self._last_identity:
                continue  # of a call that was given up
            if "error" in message:
                error = message["error"]
                raise RpcError(error["code"], error["message"], error.get("data"))
            return message["result"]

    def notifications(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, params) until the daemon closes the connection.

        Raises RequestTimeout when none came in time.
        """
        while True:
            try:
                message = self._receive()
            except ConnectionLost:
                return
            if "method" in message:
                yield message["method"], message.get("params")

    def _receive(self) -> dict[str, Any]:
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            try:
                chunk = self._socket.recv(CHUNK)
            except TimeoutError:
                raise RequestTimeout("no answer in time") from None
            except OSError as error:
                raise ConnectionLost(f"connection lost: {error.strerror}") from None
            if not chunk:
                raise ConnectionLost("the daemon closed the connection")
            self._received += chunk
        line = self._received[:end].decode()
        del self._received[: end + 1]
        self._searched = 0
        try:
            message, stop = _scan(line, 0)
        except (StopIteration, ValueError):
            raise ConnectionLost("the daemon's answer cannot be read") from None
        if not isinstance(message, dict) or line[stop:].strip():
            raise ConnectionLost("the daemon's answer cannot be read")
        return message


def reason_of(error: OSError) -> str:
    """Return what a failed connect means, as ConnectError names it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "absent"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, PermissionError):
        return "forbidden"
    return "busy" if isinstance(error, BlockingIOError) else "other"


if _json is not None:

    class _Context:
        """How the scanner reads: as `json.loads` does, without NaN and the infinities."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int

        @staticmethod
        def parse_constant(name: str) -> Any:
            """Refuse what is no JSON."""
            raise ValueError(name)

    def _unfit(value: object) -> Any:
        raise TypeError(f"not a JSON value: {type(value).__name__}")

    _quote = _json.encode_basestring_ascii
    _chunks = _json.make_encoder(None, _unfit, _quote, None, ":", ",", False, False, False)
    _scan = _json.make_scanner(_Context)  # type: ignore[arg-type]

    def _encode(value: object) -> str:
        return "".join(_chunks(value, 0))

else:
    import json

    _encode = json.dumps
    _scan = json.JSONDecoder().scan_once
