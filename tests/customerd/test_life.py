"""The daemon's life: started in every way, twice, killed, stopped, waiting for its database."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.customerd.conftest import Alone
from zkchannels.devnet.postgres import Cluster


def test_sigterm_ends_it_cleanly(alone: Alone) -> None:
    """SIGTERM ends the daemon with exit code 0 and without an error in its log."""
    assert alone.service.stop() == 0
    assert [event for event in alone.log() if event["level"] in ("error", "critical")] == []


def test_a_second_daemon_on_the_same_socket_gives_up(alone: Alone) -> None:
    """Another daemon with the same socket ends with exit code 1; the first goes on."""
    second = subprocess.run(alone.command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process answers" in second.stderr
    assert alone.rpc("getinfo")["pid"] == alone.service.pid


def test_a_second_daemon_on_the_same_database_stands_by(place: Path, database_dsn: str) -> None:
    """Of two daemons on one database one acts; the other takes over when the first is killed."""
    first = Alone(place, database_dsn, name="first")
    second = Alone(place, database_dsn, name="second")
    first.service.start()
    standing_by = subprocess.Popen(
        second.command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert standing_by.stderr is not None
        for line in standing_by.stderr:
            if "standing_by" in line:
                break
        assert second.rpc("getinfo")["mode"] == "standby"
        first.service.kill()
        for line in standing_by.stderr:
            if '"serving"' in line:
                break
        assert second.rpc("getinfo")["mode"] == "safe"
    finally:
        standing_by.terminate()
        standing_by.communicate()
        first.service.stop()


def test_a_killed_daemon_starts_again_at_once(alone: Alone) -> None:
    """After kill -9 the same daemon takes its own lease again without waiting for its end."""
    alone.service.kill()
    assert alone.service.start() < 10
    assert alone.rpc("getinfo")["mode"] == "safe"


def test_a_handed_over_socket_is_served(place: Path, database_dsn: str) -> None:
    """With LISTEN_FDS the daemon serves systemd's socket: a client that came first is answered."""
    alone = Alone(place, database_dsn)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(alone.socket))
    listening.listen()
    with alone.connect() as early:
        early.sendall(b'{"jsonrpc":"2.0","id":1,"method":"getinfo"}\n')
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1',"
            " LISTEN_FDNAMES='customerd.socket'); os.execv(sys.argv[2], sys.argv[2:])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listening.fileno()), *alone.command],
            pass_fds=(listening.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        try:
            assert b'"result"' in early.recv(65536)
            # Still starting when it answered the early bird: now wait for the rest.
            with alone.connect() as second:
                second.sendall(b'{"jsonrpc":"2.0","id":1,"method":"getinfo"}\n')
                assert b'"result"' in second.recv(65536)
        finally:
            process.terminate()
            assert process.wait(20) == 0
    listening.close()


def test_detached_it_returns_when_ready_with_a_truthful_exit_code(
    place: Path, database_dsn: str
) -> None:
    """`--detach` returns 0 once the daemon serves, and 1 when it cannot start."""
    alone = Alone(place, database_dsn)
    detached = [
        *alone.command,
        "--detach",
        "--pidfile",
        str(place / "pid"),
        "--logfile",
        str(place / "log"),
    ]
    first = subprocess.run(detached, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    info = alone.rpc("getinfo")
    assert int((place / "pid").read_text()) == info["pid"]
    second = subprocess.run(detached, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    ended = os.pidfd_open(info["pid"])
    os.kill(info["pid"], signal.SIGTERM)
    os.close(ended)


def test_it_waits_for_its_database(place: Path, own_cluster: Cluster) -> None:
    """Started before PostgreSQL the daemon answers, says what it waits for, and then serves."""
    own_cluster.create_database("late")
    dsn = own_cluster.dsn("late")
    own_cluster.stop()
    alone = Alone(place, dsn)
    process = subprocess.Popen(alone.command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting_for_database" in line:
                break
        info = alone.rpc("getinfo")
        assert info["mode"] == "starting"
        assert "not_ready" in info["missing"]
        own_cluster.start()
        for line in process.stderr:
            if '"serving"' in line:
                break
        assert alone.rpc("list") == {"channels": []}
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[chain]\nendpoint = []\n", "endpoints"),
        ('[database]\nlease = "soon"\n', "duration"),
        ("[chain\n", "customerd.toml"),
    ],
)
def test_a_wrong_configuration_is_named(place: Path, text: str, said: str) -> None:
    """A wrong setting ends the start with exit code 2 and says which one, and what was meant."""
    place.mkdir()
    config = place / "customerd.toml"
    config.write_text(text)
    for extra in ([], ["--check-config"]):
        done = subprocess.run(
            [sys.executable, "-m", "customerd", "--config", str(config), *extra],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_the_guards_key_is_told_to_nobody(alone: Alone) -> None:
    """The guard's secret key appears in no log, no answer and no command line."""
    secret = (alone.directory / "guard.key").read_text().strip()
    told = alone.service.log.read_text() + str(alone.rpc("getinfo")) + str(alone.rpc("metrics"))
    told += Path(f"/proc/{alone.service.pid}/cmdline").read_text()
    assert secret not in told
