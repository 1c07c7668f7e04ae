"""Sockets: handed over by systemd, or bound so that nobody else ever reaches them."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zkchannels.service.sockets import (
    AlreadyRunning,
    SocketError,
    bind_owner_only,
    peer_credentials,
)

# Does what systemd does: passes descriptors from 3 on and names this very process.
PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.dup2(int(sys.argv[3]), 5)
os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[4])), LISTEN_FDS="3",
                  LISTEN_FDNAMES="rpc:monitor:rpc")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[5]])
"""
TAKE = """
import os
from zkchannels.service.sockets import listen_fds
passed = listen_fds()
print({name: [one.getsockname() for one in sockets] for name, sockets in passed.items()})
print(all(not one.get_inheritable() and not one.getblocking()
          for sockets in passed.values() for one in sockets))
print([name for name in os.environ if name.startswith("LISTEN")], listen_fds())
"""


def take(sockets: list[socket.socket], shift: int = 0) -> list[str]:
    """Pass three sockets to a new process as systemd does; return what it found, line by line."""
    descriptors = [one.fileno() for one in sockets]
    return subprocess.run(
        [sys.executable, "-c", PASS, *map(str, descriptors), str(shift), TAKE],
        pass_fds=descriptors,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory, memory_directory: Path) -> Path:
    """A folder whose path leaves room for a socket's name."""
    folder = memory_directory / f"sockets-{os.urandom(4).hex()}"
    folder.mkdir()
    return folder


def test_passed_sockets_by_name(short_path: Path) -> None:
    """Passed sockets are found under their units' names, several under one, and only once."""
    with (
        bind_owner_only(short_path / "a") as first,
        bind_owner_only(short_path / "b") as second,
        bind_owner_only(short_path / "c") as third,
    ):
        found, closed, again = take([first, second, third])
        # A socket is called what it was bound as, before it got its final name.
        assert found.startswith("{'rpc': [")
        assert "'monitor': [" in found
        for one in (first, second, third):
            assert one.getsockname() in found
        assert closed == "True"
        assert again == "[] {}"


def test_sockets_for_another_process_are_left_alone(short_path: Path) -> None:
    """Variables that name another process, inherited by mistake, give no sockets."""
    with bind_owner_only(short_path / "a") as one:
        found, _, again = take([one, one, one], shift=1)
    assert found == "{}"
    assert again == "[] {}"


def test_bound_for_the_owner(short_path: Path) -> None:
    """The socket has its mode from the start, listens, and leaves no other name behind."""
    with bind_owner_only(short_path / "rpc") as listening:
        assert stat.S_IMODE((short_path / "rpc").stat().st_mode) == 0o600
        assert [file.name for file in short_path.iterdir()] == ["rpc"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(short_path / "rpc"))
            with listening.accept()[0] as accepted:
                assert peer_credentials(accepted) == (os.getpid(), os.geteuid(), os.getegid())
    with bind_owner_only(short_path / "group", mode=0o660):
        assert stat.S_IMODE((short_path / "group").stat().st_mode) == 0o660


def test_stale_socket_is_replaced(short_path: Path) -> None:
    """A socket whose process is gone does not keep the next one from starting."""
    bind_owner_only(short_path / "rpc").close()
    with bind_owner_only(short_path / "rpc"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_path / "rpc"))


def test_living_daemon_is_not_replaced(short_path: Path) -> None:
    """A second daemon is refused while the first one's socket is there, also when it is busy."""
    with bind_owner_only(short_path / "rpc") as first:
        with pytest.raises(AlreadyRunning):
            bind_owner_only(short_path / "rpc")
        first.listen(0)
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            for client in (one, two):
                client.setblocking(False)
                client.connect_ex(str(short_path / "rpc"))
            with pytest.raises(AlreadyRunning):
                bind_owner_only(short_path / "rpc")
    assert [file.name for file in short_path.iterdir()] == ["rpc"]


def test_other_files_are_not_replaced(short_path: Path) -> None:
    """A file that is no socket, a missing folder and a path too long are errors."""
    (short_path / "file").write_text("mine")
    with pytest.raises(SocketError, match="not a socket"):
        bind_owner_only(short_path / "file")
    assert (short_path / "file").read_text() == "mine"
    with pytest.raises(SocketError, match="No such file"):
        bind_owner_only(short_path / "missing" / "rpc")
    with pytest.raises(SocketError, match="too long"):
        bind_owner_only(short_path / ("x" * 100))


def test_no_moment_without_an_answer(short_path: Path) -> None:
    """Clients that connect while the socket is bound find either nothing or a listener."""
    path = short_path / "rpc"
    refused: list[OSError] = []
    bound = threading.Event()

    def knock() -> None:
        while not bound.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(path))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    refused.append(error)
                return

    clients = [threading.Thread(target=knock) for _ in range(4)]
    for client in clients:
        client.start()
    with bind_owner_only(path):
        bound.set()
        for client in clients:
            client.join()
    assert refused == []
