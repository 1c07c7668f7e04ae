"""sd_notify, on a real datagram socket in systemd's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from zkchannels.service.notify import Notifier


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end of the notification socket, named in the environment."""
    name = f"customerd-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        yield manager


def lines(manager: socket.socket) -> list[str]:
    """Receive one datagram."""
    return manager.recv(65536).decode().split("\n")


def test_states_arrive(manager: socket.socket) -> None:
    """Every state reaches systemd in the form its documentation gives."""
    notifier = Notifier.from_environment()
    notifier.ready("ready: 3 channels")
    assert lines(manager) == ["READY=1", "STATUS=ready: 3 channels"]
    notifier.status("standing by")
    assert lines(manager) == ["STATUS=standing by"]
    notifier.more_time(60)
    assert lines(manager) == ["EXTEND_TIMEOUT_USEC=60000000"]
    notifier.watchdog()
    assert lines(manager) == ["WATCHDOG=1"]
    notifier.reloading()
    reloading, moment = lines(manager)
    assert reloading == "RELOADING=1"
    assert moment.startswith("MONOTONIC_USEC=")
    assert moment.removeprefix("MONOTONIC_USEC=").isdecimal()
    notifier.stopping()
    assert lines(manager) == ["STOPPING=1"]
    notifier.close()


def test_status_cannot_smuggle_a_state(manager: socket.socket) -> None:
    """A status with line ends, or letters beyond Latin-1, stays one status in UTF-8."""
    notifier = Notifier.from_environment()
    notifier.status("bad\nSTOPPING=1\r\n… ✓")
    assert lines(manager) == ["STATUS=bad STOPPING=1 … ✓"]
    notifier.close()


def test_environment_is_taken_once(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children inherit neither the socket nor the watchdog of their parent."""
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier.from_environment()
    assert notifier.watchdog_interval == 10.0
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    notifier.close()


@pytest.mark.parametrize(
    ("microseconds", "pid"), [("20000000", "1"), ("0", None), ("soon", None), (None, None)]
)
def test_no_watchdog(
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    pid: str | None,
) -> None:
    """A watchdog that is off, malformed or another process's asks for nothing."""
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    notifier = Notifier.from_environment()
    assert notifier.watchdog_interval is None
    notifier.close()


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket, and with one nobody is behind, every call is silent."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    silent = Notifier.from_environment()
    monkeypatch.setenv("NOTIFY_SOCKET", "@customerd-test-nobody")
    deaf = Notifier.from_environment()
    for notifier in (silent, deaf):
        notifier.ready("x")
        notifier.status("x")
        notifier.watchdog()
        notifier.reloading()
        notifier.stopping()
        notifier.close()
        notifier.status("after the end")


def test_stuck_manager_does_not_hold_up(manager: socket.socket) -> None:
    """A systemd that reads nothing delays the daemon by a moment per state, not for ever."""
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    notifier = Notifier.from_environment()
    for _ in range(14):
        notifier.status("x" * 1000)
    notifier.close()
