"""What was logged: every test sees it, and fails if something unexpected was logged as an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

# Imported first: it keeps structlog from importing rich.
from zkchannels.service import logging as service_logging

_SERIOUS = frozenset({"error", "critical"})


class Log:
    """The events logged so far, each a dict with "event", "log_level", "module" and its fields."""

    def __init__(self, entries: list[Any], caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.entries = entries
        self._expected: set[str] = set()

    def expect_error(self, event: str) -> None:
        """Say that this event (or library's logger) may log errors in this test."""
        self._expected.add(event)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return what was logged, or only the lines of one event."""
        return [entry for entry in self.entries if event in (None, entry["event"])]

    def unexpected(self) -> list[dict[str, Any]]:
        """Return the lines at error level or above that nobody expected, libraries' included."""
        # asyncio tells so of exceptions nobody retrieved, aiohttp of sessions nobody closed.
        foreign = [
            {"module": record.name, "event": record.name, "log_level": "error", "text": text}
            for record in self._caplog.get_records("call")
            if record.levelno >= logging.ERROR and (text := record.getMessage())
        ]
        return [
            entry
            for entry in [*self.entries, *foreign]
            if entry["log_level"] in _SERIOUS and entry["event"] not in self._expected
        ]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """Capture all log lines of the test; at its end, no unexpected error may be among them."""
    assert service_logging.structlog is structlog
    with structlog.testing.capture_logs() as entries:
        captured = Log(entries, caplog)
        yield captured
    unexpected = captured.unexpected()
    assert not unexpected, f"logged as errors: {unexpected}"
