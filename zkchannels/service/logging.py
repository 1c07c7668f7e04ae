"""Structured logs: journald's fields under systemd, colour on a terminal, JSON lines elsewhere.

This module owns the process-wide logging configuration. Nothing here ever blocks: what cannot be
written at once is dropped, counted, and the count is told with the next line that gets through.
Nor is there ever too much: how many lines of a kind are written in a second is bounded
(`zkchannels.service.flood`), and the rest is counted and told as well.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import logging as standard_logging
import os
import re
import select
import socket
import struct
import sys
from collections.abc import Iterator, MutableMapping
from functools import cache
from typing import Any, Protocol, cast

import msgspec


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make `import module` fail for a while."""
    known = sys.modules.get(module)
    sys.modules[module] = cast(Any, None)
    try:
        yield
    finally:
        if known is None:
            del sys.modules[module]
        else:
            sys.modules[module] = known


# structlog imports rich when it is there, only to draw tracebacks: 45 ms of every start.
with _hidden("rich"):
    import structlog

from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger  # noqa: E402

from zkchannels.service.events import identifier  # noqa: E402
from zkchannels.service.flood import Flood  # noqa: E402

__all__ = [
    "FilteringBoundLogger",
    "about",
    "also_about",
    "configure",
    "dropped",
    "get_logger",
    "set_level",
    "tell_missing",
]

JOURNAL_SOCKET = "/run/systemd/journal/socket"

_LEVELS = {
    "debug": standard_logging.DEBUG,
    "info": standard_logging.INFO,
    "warning": standard_logging.WARNING,
    "error": standard_logging.ERROR,
    "critical": standard_logging.CRITICAL,
}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; it follows `configure` and `set_level` at any time."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=name))


def configure(program: str, *, level: str = "info", journal_socket: str = JOURNAL_SOCKET) -> None:
    """Decide where this process logs to, from what its standard error is connected to.

    `level` is debug, info, warning, error or critical; ValueError for another. The standard
    library's loggers are led the same way, from warning on.
    """
    output: _Output
    ending: list[Processor]
    if _stderr_is_journal():
        output = _Journal(journal_socket, program)
        ending = [_identified, output.render]
    elif sys.stderr is not None and sys.stderr.isatty():
        output = _Stream(program)
        ending = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _harmless,
            _console(),
            _line,
        ]
    else:
        output = _Stream(program)
        ending = [structlog.processors.TimeStamper(fmt="iso", key="time"), _identified]
        ending.append(output.render)
    _State.flood = Flood()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _bounded,
            structlog.processors.format_exc_info,
            _without_rows,
            _hexadecimal,
            *ending,
        ],
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    _State.output = output
    set_level(level)
    standard_logging.basicConfig(handlers=[_Forward()], level=standard_logging.WARNING, force=True)


def set_level(level: str) -> None:
    """Drop what is less important than `level` from now on."""
    if level not in _LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_LEVELS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))


@contextlib.contextmanager
def about(**fields: object) -> Iterator[None]:
    """Add fields to every line of this task and of those it starts, while the body runs.

    What the task was started with, as fields of its starter, is left out.
    """
    before = structlog.contextvars.get_contextvars()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)


def also_about(**fields: object) -> None:
    """Add fields to every further line within the innermost `about`."""
    structlog.contextvars.bind_contextvars(**fields)


def tell_missing() -> None:
    """Tell how many lines are missing, if no further one does; for a daemon's regular round."""
    if _State.output is not None:
        _State.output.tell_dropped()
    for kind, count in _State.flood.owed():
        get_logger("zkchannels.service").warning("log_lines_suppressed", about=kind, count=count)


def dropped() -> int:
    """Return how many lines this process could not write."""
    return _State.output.dropped if _State.output is not None else 0


class _Output(Protocol):
    """Where rendered lines go, under the method names structlog calls."""

    dropped: int

    def render(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes: ...

    def msg(self, data: bytes) -> None: ...

    def tell_dropped(self) -> None: ...


class _State:
    """The process-wide output."""

    output: _Output | None = None
    flood = Flood()


class _Lines:
    """Counts what could not be written and tells it when it can."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.dropped = 0
        self._untold = 0

    def render(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        raise NotImplementedError

    def _write(self, data: bytes) -> bool:
        raise NotImplementedError

    def msg(self, data: bytes) -> None:
        """Write one rendered line, or count it."""
        self.tell_dropped()
        if not self._write(data):
            self.dropped += 1
            self._untold += 1

    def tell_dropped(self) -> None:
        """Tell how many lines could not be written since that was told."""
        if self._untold:
            event = {"event": "log_lines_dropped", "level": "warning", "count": self._untold}
            event["message_id"] = identifier("log_lines_dropped")
            if self._write(self.render(None, "warning", event)):
                self._untold = 0

    debug = info = warning = error = critical = fatal = exception = log = msg


class _Stream(_Lines):
    """Standard error, with one JSON object per line unless a renderer came before."""

    def render(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        return _encode({"program": self.program, **event}) + b"\n"

    def _write(self, data: bytes) -> bool:
        try:
            # A pipe that polls as writable takes PIPE_BUF bytes without blocking.
            for start in range(0, len(data), select.PIPE_BUF):
                if not _writable():
                    return False
                os.write(2, data[start : start + select.PIPE_BUF])
        except OSError:
            return False
        return True


class _Journal(_Lines):
    """journald's native protocol: one datagram per line, each key a field of its own."""

    def __init__(self, address: str, program: str) -> None:
        super().__init__(program)
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)

    def render(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        level = event.pop("level", "info")
        title = event.pop("event", "")
        values = {name: _text(value) for name, value in event.items() if value is not None}
        # A reader of the plain journal sees the short fields too.
        told = [f"{name}={value}" for name, value in values.items() if name not in _NOT_TOLD]
        message = " ".join([str(title), *(one for one in told if "\n" not in one)])
        fields = [
            _field("MESSAGE", message),
            _field("EVENT", str(title)),
            _field("PRIORITY", str(_PRIORITIES.get(level, 6))),
            _field("SYSLOG_IDENTIFIER", self.program),
            *(_field(_field_name(name), value) for name, value in values.items()),
        ]
        return b"".join(fields)

    def _write(self, data: bytes) -> bool:
        try:
            self._socket.sendto(data, socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                return False
            return self._write_big(data)
        return True

    def _write_big(self, data: bytes) -> bool:
        """Hand over what no datagram holds as a sealed memory file, as journald asks for."""
        try:
            memory = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(data)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
            self._socket.sendmsg([b""], passed, socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False
        finally:
            os.close(memory)
        return True


_OUR_LINES = ("exception", "stack")
"""Fields of several lines, made by the program itself."""
_NOT_TOLD = frozenset({"module", "exception", "message_id"})
_TAKEN = frozenset({"MESSAGE", "EVENT", "PRIORITY", "SYSLOG_IDENTIFIER"})
"""Fields of every entry; a line's own of that name gets another."""
_LIBRARY = "_library"
"""Key of a line that another library wrote: any text, so its logger is its kind."""


class _Forward(standard_logging.Handler):
    """Leads the standard library's loggers (asyncio's, aiohttp's, psycopg's) into ours."""

    def emit(self, record: standard_logging.LogRecord) -> None:
        level = _LEVELS.get(record.levelname.lower(), standard_logging.WARNING)
        logger, exc_info = get_logger(record.name), record.exc_info or None
        event = getattr(record, "event", None)
        if event is not None:  # from our own packages that know no more than the standard library
            logger.log(level, event, exc_info=exc_info, **getattr(record, "fields", {}))
            return
        logger.log(level, record.getMessage(), exc_info=exc_info, **{_LIBRARY: True})


def _stderr_is_journal() -> bool:
    """Compare standard error with what systemd says it connected to the journal."""
    try:
        device, inode = os.environ["JOURNAL_STREAM"].split(":")
        status = os.fstat(2)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False


def _writable() -> bool:
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))


def _console() -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
    )


def _line(_logger: WrappedLogger, _method: str, text: Any) -> bytes:
    return str(text).encode("utf-8", "backslashreplace") + b"\n"


def _bounded(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop a line of a kind of which there are too many; raises structlog.DropEvent."""
    kind = str(event.get("module") if event.pop(_LIBRARY, False) else event.get("event"))
    subject = event.get("operation") or event.get("channel")
    before = _State.flood.admit(kind, subject, event["level"])
    if before is None:
        raise structlog.DropEvent
    if before:
        event["suppressed"] = before
    return event


def _identified(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give an event that operators act on its stable id."""
    found = identifier(str(event.get("event")), str(event.get("alarm", "")))
    if found is not None:
        event["message_id"] = found
    return event


_ROW = re.compile(r"DETAIL:[^\n]*")


def _without_rows(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out the rows that PostgreSQL's errors show: there are authorizations in some."""
    for name, value in event.items():
        if isinstance(value, str) and "DETAIL:" in value:
            event[name] = _ROW.sub("DETAIL: left out", value)
    return event


def _hexadecimal(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show bytes (channel ids, hashes) as people write them."""
    for name, value in event.items():
        if isinstance(value, bytes):
            event[name] = value.hex()
    return event


def _harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Let nothing that others said steer the terminal, or look like a line of its own."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name in _OUR_LINES else [value]
            event[name] = "\n".join(_escaped(line) for line in lines)
    return event


def _escaped(text: str) -> str:
    """Write what cannot be printed as JSON does, so that reading JSON gives it back."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _encode(event: MutableMapping[str, Any]) -> bytes:
    try:
        text = msgspec.json.encode(event, enc_hook=repr).decode()
        # Also control characters beyond ASCII, which JSON allows, are obeyed by terminals.
        return (text if text.isprintable() else _escaped(text)).encode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Lone surrogates, integers beyond 64 bits, odd keys: never lose the line for its form.
        return json.dumps(event, default=repr, skipkeys=True).encode()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return _encode(value).decode()


@cache
def _field_name(name: str) -> str:
    """Return a name journald accepts: A-Z, 0-9 and _, neither of the latter two at its head."""
    accepted = re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:64] or "FIELD"
    return f"EVENT_{accepted}" if accepted in _TAKEN else accepted


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
