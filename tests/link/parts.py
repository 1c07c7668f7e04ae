"""A daemon and signers as real processes, and what stands between them on the network."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from customersigner import seedfile
from customersigner.derivation import Wallet, entropy_of
from tests.nursery import new_service
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RequestTimeout, RpcError
from zkchannels.service.secretfile import write_secret

PATIENCE = 60.0
PASSPHRASE = b"correct horse battery staple"
WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"


def wallet(words: str = WORDS) -> Wallet:
    """The wallet of some words."""
    return Wallet(entropy_of(words))


@cache
def sealed(words: str) -> bytes:
    """A seed file's contents, made once for all tests."""
    return seedfile.seal(entropy_of(words), PASSPHRASE)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


class Daemon:
    """One customerd with a database and without a chain."""

    def __init__(
        self,
        directory: Path,
        dsn: str,
        *,
        host: str = "127.0.0.1",
        sockets: str = "",
        signer: str = "",
    ) -> None:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / "customerd.sock"
        self.signer_socket = directory / "signer.sock"
        self.port = free_port(host)
        self.dsn = dsn
        config = directory / "customerd.toml"
        config.write_text(
            f'[sockets]\nrpc = "{self.socket}"\nsigner = "{self.signer_socket}"\n'
            + (sockets or f'signer_tls = "{host}:{self.port}"\n')
            + f'[database]\ndsn = "{dsn}"\nlease = "2s"\n'
            '[chain]\nendpoints = ["http://127.0.0.1:9"]\n'
            f'[guard]\nkey = "{directory / "guard.key"}"\n'
            f"[signer]\n{signer}"
        )
        self.config = config
        command = [sys.executable, "-m", "customerd", "--config", str(config)]
        self.service = new_service("customerd", command, log=directory / "customerd.log")

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call the owner RPC."""
        with BlockingClient(str(self.socket), timeout=PATIENCE) as client:
            return client.call(method, params)

    def pair_line(self, **params: Any) -> str:
        """Offer a pairing and return its line."""
        return str(self.rpc("signer-pair", **params)["line"])

    def refused(self, method: str, /, **params: Any) -> str:
        """Call what must be refused; return the kind of the error."""
        try:
            self.rpc(method, **params)
        except RpcError as error:
            assert isinstance(error.data, dict)
            return str(error.data["kind"])
        raise AssertionError(f"{method} was not refused")

    def logged(self, event: str) -> dict[str, Any]:
        """Wait until an event was logged and return its first line."""
        return logged(self.service.log, event)

    def until(self, holds: Callable[[Any], object]) -> Any:
        """Return the signer's status once the condition holds, looking at every event."""
        ends = time.monotonic() + PATIENCE
        with BlockingClient(str(self.socket), timeout=0.1) as stream:
            with contextlib.suppress(RpcError, RequestTimeout):
                stream.call("subscribe", {"topics": ["signer"]})
            while time.monotonic() < ends:
                status = self.rpc("signer-status")
                if holds(status):
                    return status
                try:
                    next(stream.notifications(), None)
                except RequestTimeout:
                    continue
        raise AssertionError(f"not in time: {status}\n{self.service.log.read_text()[-4000:]}")

    def attached(self, *, after: int = 0) -> int:
        """Wait for a signer of a later generation than this; return its generation."""
        status = self.until(lambda s: s["attached"] and s["generation"] > after)
        return int(status["generation"])

    def lost(self) -> float:
        """Wait until no signer is attached; return the seconds that took."""
        began = time.monotonic()
        self.until(lambda s: not s["attached"])
        return time.monotonic() - began


class Signer:
    """One device with customersigner: a state directory, and a process when it runs."""

    def __init__(
        self,
        directory: Path,
        *,
        words: str = WORDS,
        prefix: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.state = directory / "state"
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.passphrase = directory / "passphrase"
        write_secret(self.passphrase, PASSPHRASE)
        write_secret(self.state / "seed", sealed(words))
        self.prefix = prefix
        base = [*prefix, sys.executable, "-m", "customersigner"]
        self._base = [*base, "--state-directory", str(self.state)]
        self._secret = ["--passphrase-file", str(self.passphrase)]
        run = [*self._base, "run", *self._secret, *arguments]
        self.service = new_service("customersigner", run, log=directory / "signer.log")

    def pair(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run `customersigner pair`, the line on standard input."""
        return subprocess.run(
            [*self._base, "pair", *self._secret],
            input=line + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def paired(self, line: str) -> None:
        """Pair, and expect it to be done."""
        done = self.pair(line)
        assert done.returncode == 0, done.stderr

    def redirect(self, address: str) -> None:
        """Have the paired daemon sought at another address."""
        path = self.state / "daemon.json"
        (known,) = json.loads(path.read_text())
        write_secret(path, json.dumps([{**known, "address": address}]).encode())

    def copy(self, directory: Path) -> Signer:
        """A second device with all files of this one."""
        other = Signer(directory, prefix=self.prefix)
        for path in self.state.iterdir():
            if path.name != "lock":
                shutil.copy(path, other.state / path.name)
        return other

    def log(self, event: str) -> list[dict[str, Any]]:
        """The logged lines of one event."""
        return events(self.service.log, event)

    def logged(self, event: str) -> dict[str, Any]:
        """Wait until an event was logged and return its first line."""
        return logged(self.service.log, event)


def logged(log: Path, event: str) -> dict[str, Any]:
    """Wait until an event is in a log file and return its first line."""
    ends = time.monotonic() + PATIENCE
    pause = select.poll()
    while time.monotonic() < ends:
        if found := events(log, event):
            return found[0]
        pause.poll(20)
    raise AssertionError(f"no {event}: {log.read_text()[-4000:]}")


def events(log: Path, event: str) -> list[dict[str, Any]]:
    """The lines of one event in a log file."""
    lines: Iterator[Any] = (
        json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")
    )
    return [line for line in lines if line["event"] == event]


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
