"""A whole network on one machine, every part a process of its own: the demo's and the tests' world.

PostgreSQL, an EVM chain, a merchant for the native coin and one for a test token, the daemon, the
signer. Everything lives below one folder and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mnemonic import Mnemonic

from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.devnet.embedded import Embedded
from zkchannels.devnet.postgres import DURABLE, Cluster
from zkchannels.devnet.service import Service
from zkchannels.escrow import calls
from zkchannels.escrow.artefact import token_deployment_data
from zkchannels.escrow.ethereum import PrivateKey, checksum, parse_address
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RequestTimeout, RpcError

ETHER = 10**18
DELAY = 3600
MARGIN = 600
FINALITY = 2
LEASE = 15.0
TOKEN_SYMBOL = "TEST"  # noqa: S105 - the name of an asset
TOKEN_DECIMALS = 6
REFUND_LIMIT = 2**62
LOOK_AGAIN = 0.25


@dataclass(frozen=True, slots=True)
class MerchantParts:
    """One merchant: its service, its configuration and its public address."""

    name: str
    service: Service
    config: Path
    address: str
    escrow: bytes
    account: bytes


class Network:
    """The whole network; a context manager that tears everything down."""

    def __init__(
        self,
        directory: Path,
        *,
        block_time: float | None = None,
        postgres: Mapping[str, str] = DURABLE,
        cluster: Cluster | None = None,
        merchants: tuple[str, ...] = ("coffee", "bakery"),
        delay: int = DELAY,
        margin: int = MARGIN,
        finality: int = FINALITY,
        lease: float = LEASE,
    ) -> None:
        self.directory = directory
        self.block_time = block_time
        self.delay = delay
        self.margin = margin
        self.finality = finality
        self.lease = lease
        self._postgres = postgres
        self._shared_cluster = cluster
        self._merchant_names = merchants
        self._stack = contextlib.ExitStack()
        self._databases = secrets.token_hex(4)
        self.merchants: dict[str, MerchantParts] = {}
        self.token: bytes | None = None
        self.socket = directory / "customerd.sock"
        self.signer_socket = directory / "signer.sock"
        self.monitor_socket = directory / "monitor.sock"
        self.config = directory / "customerd.toml"
        self.signer_directory = directory / "signer"
        self.passphrase = directory / "passphrase"
        self.cluster: Cluster
        self.chain: DevChain
        self.daemon: Service
        self.signer: Service
        self.signer_command: list[str] = []
        self.words = Mnemonic("english").generate(128)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.start_postgres()
            self.start_chain()
            for name in self._merchant_names:
                self.start_merchant(name)
            self.start_daemon()
            self.start_signer()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- parts --------------------------------------------------------------------------------

    def program(self, program: str, name: str = "") -> list[str]:  # noqa: ARG002 - for subclasses
        """The beginning of a program's command line; `name` tells merchants apart."""
        return [sys.executable, "-m", program]

    def new_service(self, name: str, command: list[str], *, log: Path) -> Service:
        """A service of this network that is not started yet."""
        return Service(name, command, log=log)

    def execute(self, command: list[str], *, given: str = "") -> str:
        """Run a program to its end and return what it printed; raises RuntimeError."""
        done = subprocess.run(command, capture_output=True, text=True, check=False, input=given)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[2:])} failed:\n{done.stderr or done.stdout}")
        return done.stdout

    def start_postgres(self) -> None:
        """Start a private cluster, unless one is shared."""
        if self._shared_cluster is not None:
            self.cluster = self._shared_cluster
            return
        self.cluster = self._stack.enter_context(
            Cluster(self.directory / "postgres", settings=self._postgres)
        )

    def start_chain(self) -> None:
        """Start anvil where $ANVIL names one, else the embedded chain; deploy the test token."""
        if os.environ.get("ANVIL"):
            state = self.directory / "anvil.json"
            anvil = Anvil(block_time=self.block_time, state=state, finality=self.finality)
            self.chain = self._stack.enter_context(anvil)
        else:
            self.chain = self._stack.enter_context(Embedded(block_time=self.block_time))
        if len(self._merchant_names) > 1:
            self.token = self.chain.deploy(DEV_KEYS[0], token_deployment_data())

    def start_merchant(self, name: str) -> None:
        """Make a merchant's keys, fund it, deploy its escrow, and start it."""
        home = self.directory / name
        home.mkdir(mode=0o700, exist_ok=True)
        port = _free_port()
        config = home / "merchantd.toml"
        config.write_text(
            f'database = "{self._database(name)}"\n'
            f'margin = "{self.margin}s"\n'
            "[chain]\n"
            f'endpoints = ["{self.chain.url}"]\n'
            'poll = "2s"\n'
            "[listen]\n"
            'host = "127.0.0.1"\n'
            f"port = {port}\n"
            'names = ["localhost", "127.0.0.1"]\n'
            "[approver]\n"
            f"automatic_refunds = {REFUND_LIMIT}\n"
            "[limits]\n"
            f"maximum_merchant_deposit = {REFUND_LIMIT}\n"
        )
        key = _new_key(home / "account.key")
        self.chain.faucet(key.address, 100 * ETHER)
        arguments = ["init", "--json", "--delay", f"{self.delay}s"]
        if name != self._merchant_names[0]:
            assert self.token is not None
            self.mint(key.address, 1_000_000 * 10**TOKEN_DECIMALS)
            arguments += ["--token", checksum(self.token), "--symbol", TOKEN_SYMBOL]
            arguments += ["--decimals", str(TOKEN_DECIMALS), "--unit", "1"]
        command = [*self.program("merchantd", name), "--config", str(config)]
        made = json.loads(self.execute([*command, *arguments]))
        service = self.new_service(
            f"merchantd/{name}", [*command, "run"], log=home / "merchantd.log"
        )
        self._stack.callback(service.stop)
        service.start()
        self.merchants[name] = MerchantParts(
            name,
            service,
            config,
            made["address"],
            parse_address(made["escrow"]),
            parse_address(made["account"]),
        )

    def merchantctl(self, name: str, *arguments: str) -> Any:
        """Run a `merchantd` command that answers JSON."""
        config = self.merchants[name].config
        command = [sys.executable, "-m", "merchantd", "--config", str(config)]
        return json.loads(self.execute([*command, *arguments, "--json"]))

    def nodes(self) -> list[str]:
        """The endpoints that the daemon knows, preferred ones first."""
        return [self.chain.url]

    def start_daemon(self) -> None:
        """Write the daemon's configuration and start it."""
        certificates = self.directory / "merchants.pem"
        certificates.write_text(
            "".join(
                (self.directory / name / "certificate.pem").read_text()
                for name in self._merchant_names
            )
        )
        self.config.write_text(
            "[sockets]\n"
            f'rpc = "{self.socket}"\n'
            f'signer = "{self.signer_socket}"\n'
            f'monitor = "{self.monitor_socket}"\n'
            "[database]\n"
            f'dsn = "{self._database("customerd")}"\n'
            f'lease = "{self.lease:g}s"\n'
            "[chain]\n"
            f"endpoints = {json.dumps(self.nodes())}\n"
            'poll = "2s"\n'
            f'margin = "{self.margin}s"\n'
            "[merchant]\n"
            f'certificates = "{certificates}"\n'
            "[guard]\n"
            f'key = "{self.directory / "guard.key"}"\n'
        )
        self.daemon = self.new_service(
            "customerd",
            [*self.program("customerd"), "--config", str(self.config)],
            log=self.directory / "customerd.log",
        )
        self._stack.callback(self.daemon.stop)
        self.daemon.start()

    def start_signer(self) -> None:
        """Make a seed, start the signer, and fund the two accounts it takes."""
        self.passphrase.write_text(secrets.token_urlsafe(24) + "\n")
        self.passphrase.chmod(0o600)
        command = self.program("customersigner")
        command += ["--state-directory", str(self.signer_directory)]
        secret = ["--passphrase-file", str(self.passphrase)]
        self.execute([*command, "init", "--restore", *secret], given=self.words + "\n")
        self.signer_command = [*command, "run", *secret, "--socket", str(self.signer_socket)]
        self.signer = self.new_service(
            "customersigner",
            self.signer_command,
            log=self.directory / "customersigner.log",
        )
        self._stack.callback(self.signer.stop)
        self.signer.start()
        info = self.wait_mode("ready", "safe")
        for account in (self.account, parse_address(info["guard"])):
            self.chain.faucet(account, 100 * ETHER)
        if self.token is not None:
            self.mint(self.account, 10_000 * 10**TOKEN_DECIMALS)
        self.chain.mine()
        self.wait_info(lambda info: info["guard_balance"] not in (None, "0 ETH"))

    def mint(self, to: bytes, amount: int) -> None:
        """Make test tokens out of nothing."""
        assert self.token is not None
        self.chain.send(DEV_KEYS[0], to=self.token, data=calls.mint(to, amount))

    # -- use ----------------------------------------------------------------------------------

    @property
    def account(self) -> bytes:
        """The wallet's account on chain."""
        return parse_address(self.rpc("signer-status")["account"])

    @property
    def guard(self) -> bytes:
        """The guard's account on chain."""
        return parse_address(self.rpc("getinfo")["guard"])

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call the daemon's owner RPC on a connection of its own."""
        with BlockingClient(str(self.socket)) as client:
            return client.call(method, params)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `customerctl` against the daemon, whatever its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "customerctl", "--socket", str(self.socket), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_mode(self, *modes: str) -> Any:
        """Return `getinfo` once the daemon is in one of the modes and a signer was seen.

        For "ready" nothing may be missing, the chain included.
        """

        def holds(info: Any) -> bool:
            whole = info["mode"] != "ready" or not info["missing"]
            return info["mode"] in modes and whole and bool(info["signer"]["account"])

        return self.wait_info(holds)

    def wait_info(self, holds: Callable[[Any], object]) -> Any:
        """Return `getinfo` once the condition holds for it, looking again at every event."""
        return self._wait("getinfo", {}, holds)

    def wait_channel(self, label: str, holds: Callable[[Any], object]) -> Any:
        """Return a channel once the condition holds for it, looking again at every event."""
        return self._wait("show", {"label": label}, holds)

    def _wait(self, method: str, params: dict[str, Any], holds: Callable[[Any], object]) -> Any:
        """Look at every event, and now and then for what has none (the chain's freshness)."""
        with BlockingClient(str(self.socket), timeout=LOOK_AGAIN) as events:
            # Without a database there are no events; a busy machine subscribes a little later.
            with contextlib.suppress(RpcError, RequestTimeout):
                events.call("subscribe", {})
            while True:
                found = self.rpc(method, **params)
                if holds(found):
                    return found
                try:
                    next(events.notifications(), None)
                except RequestTimeout:
                    continue

    def _database(self, name: str) -> str:
        database = f"{name}_{self._databases}"
        self.cluster.create_database(database)
        return self.cluster.dsn(database)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _new_key(path: Path) -> PrivateKey:
    secret = secrets.token_bytes(32)
    path.write_text(secret.hex() + "\n")
    path.chmod(0o600)
    return PrivateKey(secret)
