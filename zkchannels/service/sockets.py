"""Sockets handed over by systemd, sockets only the owner may reach, and who is at the other end."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

FIRST_PASSED = 3
# A full backlog refuses a non-blocking connect at once; the kernel caps this at somaxconn.
BACKLOG = 1024
LONGEST_PATH = 107


class SocketError(Exception):
    """A listening socket cannot be had; the message says why."""


class AlreadyRunning(SocketError):
    """Another process answers on this socket."""


class Passed(NamedTuple):
    """What systemd passed to this process, by FileDescriptorName= or FDNAME."""

    listening: dict[str, list[socket.socket]]
    stored: list[tuple[str, int]]
    """Descriptors that an earlier process had stored: connections, memory files."""


def passed_fds() -> Passed:
    """Return what systemd passed to this process; nothing when there is nothing for it.

    Takes it once: the variables are removed from the environment, so that children do not mistake
    the descriptors for their own.
    """
    pid = os.environ.pop("LISTEN_PID", None)
    count = os.environ.pop("LISTEN_FDS", None)
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    passed = Passed({}, [])
    if pid != str(os.getpid()) or count is None or not count.isdecimal():
        return passed
    for index in range(int(count)):
        descriptor = FIRST_PASSED + index
        name = names[index] if index < len(names) and names[index] else "unknown"
        os.set_inheritable(descriptor, False)
        if not _listens(descriptor):
            passed.stored.append((name, descriptor))
            continue
        received = socket.socket(fileno=descriptor)
        received.setblocking(False)
        passed.listening.setdefault(name, []).append(received)
    return passed


def listen_fds() -> dict[str, list[socket.socket]]:
    """Return the listening sockets alone, for a program that stores nothing."""
    return passed_fds().listening


def bind_owner_only(path: Path, mode: int = 0o600, *, group: str | None = None) -> socket.socket:
    """Return a listening Unix socket at `path` that never existed with another mode or `group`.

    A socket that a killed process left behind is replaced. Raises AlreadyRunning when a process
    answers there, SocketError when the path cannot be used.
    """
    if len(os.fsencode(path)) + 9 > LONGEST_PATH:
        raise SocketError(f"{path} is too long for a Unix socket")
    _refuse_living(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        mask = os.umask(0o777 & ~mode)
        try:
            listening.bind(os.fspath(temporary))
        finally:
            os.umask(mask)
        try:
            if group is not None:
                shutil.chown(temporary, group=group)
            # Listen first: nobody may ever find the name without an answer behind it.
            listening.listen(BACKLOG)
            listening.setblocking(False)
            temporary.rename(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
    except LookupError:
        listening.close()
        raise SocketError(f"{path}: there is no group {group!r}") from None
    except OSError as error:
        listening.close()
        raise SocketError(f"{path}: {error.strerror}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Return bound TCP sockets that do not listen yet, one for each address of the host.

    An empty host stands for every address. Raises SocketError.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            listening = socket.socket(family, kind, protocol)
            bound.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind(address)
    except OSError as error:
        for listening in bound:
            listening.close()
        raise SocketError(f"{host}:{port}: {error.strerror}") from error
    return bound


def peer_credentials(connected: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process at the other end of a Unix socket when it connected."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack(
        "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid, gid


def _listens(descriptor: int) -> bool:
    """Tell a socket that systemd listens on, or one that is bound only, from a connection."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as looked_at:
        try:
            looked_at.getpeername()
        except OSError as error:
            return error.errno == errno.ENOTCONN
    return False


def _refuse_living(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path} is there and is not a socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Blocking would wait for a daemon whose backlog is full; that one is alive (EAGAIN).
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            pass
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise SocketError(f"{path}: {error.strerror}") from error
    raise AlreadyRunning(f"another process answers on {path}")
