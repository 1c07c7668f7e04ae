"""Telling systemd how the service is doing (sd_notify), and how often its watchdog wants a sign."""

from __future__ import annotations

import os
import socket
import time
from typing import Any


class Notifier:
    """Sends states to the socket systemd named; does nothing when there is none.

    Construct it with `from_environment`, once, before any child is started.
    """

    def __init__(self, notifier: Any | None, watchdog_interval: float | None) -> None:
        self._notifier = notifier
        self._interval = watchdog_interval

    @classmethod
    def from_environment(cls) -> Notifier:
        """Take what systemd set out of the environment: it is not for children."""
        interval = _watchdog_interval()
        try:
            # sdnotify leaves a socket unclosed when nobody is at the other end.
            if not _answers(os.environ.get("NOTIFY_SOCKET", "")):
                return cls(None, interval)
            import sdnotify  # noqa: PLC0415

            notifier = sdnotify.SystemdNotifier()
        finally:
            os.environ.pop("NOTIFY_SOCKET", None)
        # A systemd that does not read must not hold up the event loop for long.
        notifier.socket.settimeout(0.1)
        return cls(notifier, interval)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between signs of life (half of what systemd waits), or None when unwatched."""
        return self._interval

    def ready(self, status: str) -> None:
        """Say that the service serves; also ends `reloading`."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Describe the service in a few words, for `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def more_time(self, seconds: float) -> None:
        """Ask for so much time from now on before a start or stop counts as hung."""
        self._send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` follows."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the service is on its way down."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Give a sign of life."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _send(self, state: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes as Latin-1 and swallows what it cannot encode; systemd wants UTF-8.
            self._notifier.notify(state.encode("utf-8", "replace").decode("latin-1"))


def _answers(address: str) -> bool:
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return address != "" and probe.connect_ex(address) == 0


def _watchdog_interval() -> float | None:
    pid = os.environ.pop("WATCHDOG_PID", None)
    microseconds = os.environ.pop("WATCHDOG_USEC", None)
    if microseconds is None or not microseconds.isdecimal() or microseconds == "0":
        return None
    if pid is not None and pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


def _one_line(text: str) -> str:
    """Keep a text from ending the assignment and starting another one."""
    return " ".join(text.split())
