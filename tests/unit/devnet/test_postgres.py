"""The private cluster: made whole or not at all, unreachable by others, gone with its parent."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from zkchannels.devnet import postgres
from zkchannels.devnet.postgres import DURABLE, THROWAWAY, Cluster, ClusterError

PARENT = """
import sys
from pathlib import Path
from zkchannels.devnet.postgres import THROWAWAY, Cluster
cluster = Cluster(Path(sys.argv[1]), settings=THROWAWAY)
cluster.start()
print(cluster.pid, flush=True)
sys.stdin.read()
"""

ANSWER = """
import os, sys
from pathlib import Path
import psycopg
from zkchannels.devnet.postgres import THROWAWAY, Cluster
with Cluster(Path(sys.argv[1]), settings=THROWAWAY) as cluster:
    print(os.stat(f"/proc/{cluster.pid}").st_uid)
    with psycopg.connect(cluster.dsn()) as connection:
        print(connection.execute("select 1").fetchone()[0])
"""


def start_parent(directory: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a process that owns a cluster; return it and the server's process id."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def end(parent: subprocess.Popen[str]) -> None:
    """Kill the process and close its pipes."""
    parent.kill()
    parent.wait()
    for pipe in (parent.stdin, parent.stdout):
        assert pipe is not None
        pipe.close()


def test_data_stays(own_cluster: Cluster) -> None:
    """What is in a cluster is there again after a stop, and after a kill, and a start."""
    own_cluster.create_database("kept")
    with psycopg.connect(own_cluster.dsn("kept")) as connection:
        connection.execute("create table t as select 7 as x")
    own_cluster.restart()
    os.kill(own_cluster.pid, signal.SIGKILL)
    own_cluster.restart()
    with psycopg.connect(own_cluster.dsn("kept")) as connection:
        assert connection.execute("select x from t").fetchone() == (7,)


def test_only_the_owner_reaches_it(own_cluster: Cluster) -> None:
    """The cluster's folder is closed to others and the server listens on no network."""
    assert stat.S_IMODE(own_cluster.directory.stat().st_mode) == 0o700
    with psycopg.connect(own_cluster.dsn()) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)


def test_dies_with_its_parent(memory_directory: Path) -> None:
    """When the process that started the server is killed the server ends, and another may start."""
    directory = memory_directory / "orphan"
    parent, pid = start_parent(directory)
    server = os.pidfd_open(pid)
    end(parent)
    assert select.select([server], [], [], 10)[0]
    os.close(server)
    with Cluster(directory, settings=THROWAWAY) as cluster:
        psycopg.connect(cluster.dsn()).close()


def test_surviving_server_is_replaced(memory_directory: Path) -> None:
    """A server that did not end with its parent, because it hung, is ended by the next start."""
    directory = memory_directory / "survivor"
    parent, pid = start_parent(directory)
    os.kill(pid, signal.SIGSTOP)
    end(parent)
    server = os.pidfd_open(pid)
    with Cluster(directory, settings=THROWAWAY) as cluster:
        assert cluster.pid != pid
        psycopg.connect(cluster.dsn()).close()
    assert select.select([server], [], [], 0)[0]
    os.close(server)


def test_without_user_namespaces(tmp_path: Path) -> None:
    """Where root can make no user namespace the server runs under an unprivileged account."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    (tmp_path / "setpriv").symlink_to(setpriv)
    # pytest's own folders are closed to the account.
    with tempfile.TemporaryDirectory(prefix="customerd-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        answered = subprocess.run(
            [sys.executable, "-c", ANSWER, Path(directory) / "cluster"],
            env={**os.environ, "PATH": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
    uid, answer = answered.stdout.split()
    assert int(uid) != 0
    assert answer == "1"


def test_one_user_at_a_time(own_cluster: Cluster) -> None:
    """A second process, or object, does not touch a cluster in use."""
    second = Cluster(own_cluster.directory, settings=THROWAWAY)
    with pytest.raises(ClusterError, match="another process uses"):
        second.start()
    psycopg.connect(own_cluster.dsn()).close()


def test_interrupted_making_is_repeated(memory_directory: Path) -> None:
    """A folder that a killed initdb left half made is made anew."""
    half = memory_directory / "half" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    with Cluster(memory_directory / "half", settings=THROWAWAY) as cluster:
        psycopg.connect(cluster.dsn()).close()


def test_other_major_version_is_refused(tmp_path: Path) -> None:
    """Data made by another major version is not touched, and the message names both."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ClusterError, match="made by PostgreSQL 9"):
        Cluster(tmp_path).start()
    assert (tmp_path / "data" / "PG_VERSION").read_text() == "9\n"


def test_failing_start_says_why(memory_directory: Path) -> None:
    """A server that ends at once is reported with its own last words, and nothing is left."""
    settings = {**THROWAWAY, "shared_buffers": "not a size"}
    cluster = Cluster(memory_directory / "broken", settings=settings)
    with pytest.raises(ClusterError, match="shared_buffers"):
        cluster.start()
    with Cluster(memory_directory / "broken", settings=THROWAWAY) as mended:
        psycopg.connect(mended.dsn()).close()


def test_long_folder_gets_a_short_socket(memory_directory: Path) -> None:
    """A folder whose path is too long for a socket works; its socket folder goes with the stop."""
    with Cluster(memory_directory / ("long" * 30), settings=THROWAWAY) as cluster:
        sockets = Path(psycopg.conninfo.conninfo_to_dict(cluster.dsn())["host"] or "")
        assert len(str(sockets)) < 60
        psycopg.connect(cluster.dsn()).close()
    assert not sockets.exists()


def test_durable_is_the_default() -> None:
    """Nothing that risks data is in the settings a cluster has unless throwaway is asked for."""
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & set(DURABLE)


def test_server_programs_of_the_wheel(memory_directory: Path) -> None:
    """The programs inside the wheel work like the system's."""
    (binaries,) = postgres.wheel_binaries()[:1]
    with Cluster(memory_directory / "wheel", settings=THROWAWAY, binaries=binaries) as cluster:
        cluster.create_database("x")
        with psycopg.connect(cluster.dsn("x")) as connection:
            assert connection.info.server_version // 10000 == postgres.major_version(binaries)


def test_named_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$CUSTOMERD_POSTGRESQL decides, and naming a folder without a server is an error."""
    (binaries,) = postgres.wheel_binaries()[:1]
    monkeypatch.setenv("CUSTOMERD_POSTGRESQL", str(binaries))
    assert postgres.find_binaries() == binaries
    monkeypatch.setenv("CUSTOMERD_POSTGRESQL", str(tmp_path))
    with pytest.raises(ClusterError, match="holds no postgres"):
        postgres.find_binaries()
