"""Telling systemd how the service is doing (sd_notify), and how often its watchdog wants a sign."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

ANSWERS_WITHIN = 2.0
"""Seconds that a manager has to take what it was sent; one that is not systemd never does."""
AT_A_TIME = 200
"""Descriptors in one message; the kernel takes 253."""


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

    # -- descriptors that the manager keeps for the next process ---------------------------------

    async def keeps(self) -> bool:
        """Tell whether the manager keeps descriptors: FileDescriptorStoreMax is above 0.

        One is stored to see: a manager that has no room for it closes it at once.
        """
        name = "probe"
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                sent = self.store(name, [theirs.fileno()])
            if not sent or not await self.taken():
                return False
            poll = select.poll()
            poll.register(ours.fileno(), 0)
            kept = not poll.poll(0)
            self.forget(name)
            return kept

    def store(self, name: str, descriptors: Sequence[int]) -> bool:
        """Hand descriptors to the manager under a name; False when it cannot be reached.

        It drops one by itself when its other end is closed.
        """
        return all(
            self._send_with(f"FDSTORE=1\nFDNAME={name}", descriptors[start : start + AT_A_TIME])
            for start in range(0, len(descriptors), AT_A_TIME)
        )

    def forget(self, name: str) -> None:
        """Have the manager close what it keeps under this name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    async def taken(self) -> bool:
        """Wait until the manager has taken everything that it was sent; False if it does not."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        try:
            try:
                if not self._send_with("BARRIER=1", [writing]):
                    return False
            finally:
                os.close(writing)
            loop.add_reader(reading, closed.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWERS_WITHIN):
                    await closed.wait()
            return closed.is_set()
        finally:
            loop.remove_reader(reading)
            os.close(reading)

    def close(self) -> None:
        """Close the socket."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _send(self, state: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes as Latin-1 and swallows what it cannot encode; systemd wants UTF-8.
            self._notifier.notify(state.encode("utf-8", "replace").decode("latin-1"))

    def _send_with(self, state: str, descriptors: Sequence[int]) -> bool:
        if self._notifier is None:
            return False
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._notifier.socket.sendmsg([state.encode()], passed)
        except OSError:
            return False
        return True


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
