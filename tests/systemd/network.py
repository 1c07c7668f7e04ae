"""A whole network inside a booted machine: every part a unit, ours as they are packaged."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.box import Box, Plan
from zkchannels.devnet.accounts import CHAIN_ID
from zkchannels.devnet.anvil import executable
from zkchannels.devnet.control import DevChain
from zkchannels.devnet.network import ETHER, REFUND_LIMIT, MerchantParts, Network
from zkchannels.escrow.ethereum import PrivateKey, parse_address

CHECKOUT = Path(__file__).parents[2]
UNITS = CHECKOUT / "packaging" / "systemd"
PROGRAMS = ("customerd", "customerctl", "customersigner", "merchantd")
LIBRARY = "/usr/lib/customerd"
PYTHON = "/opt/customerd-python"
TESTS = "usr/lib/customerd-tests"
CHAIN_PORT = 8545
MERCHANT_PORT = 8443
CHAIN_UNIT = f"""
[Service]
ExecStart=/{TESTS}/anvil --host 127.0.0.1 --port {CHAIN_PORT} \
    --hardfork prague --slots-in-an-epoch 1 --chain-id {CHAIN_ID} --silent
DynamicUser=yes
# It does not say by itself when it listens; bash knows /dev/tcp.
ExecStartPost=/bin/bash -c 'until exec 3<>/dev/tcp/127.0.0.1/{CHAIN_PORT}; do :; done 2>/dev/null'
"""


@contextmanager
def machine(name: str) -> Iterator[Box]:
    """A booted machine on the host's own root, with our programs and units as a package puts them.

    The programs run from the checkout, with the packages of the environment that runs the tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        binds = _programs(tree)
        for path in sorted(UNITS.iterdir()):
            if path.suffix in (".service", ".socket"):
                _put(path, tree / "usr/lib/systemd/system" / path.name)
        shutil.copytree(UNITS / "user", tree / "usr/lib/systemd/user")
        shutil.copytree(UNITS / "sysusers.d", tree / "usr/lib/sysusers.d")
        shutil.copytree(UNITS / "tmpfiles.d", tree / "usr/lib/tmpfiles.d")
        _put(Path(executable()), tree / f"{TESTS}/anvil")
        _put(CHECKOUT / "tests/service/hanging.py", tree / f"{TESTS}/hanging.py")
        _put(Path(__file__).with_name("probe.py"), tree / f"{TESTS}/probe.py")
        (tree / "usr/lib/systemd/system/anvil.service").write_text(CHAIN_UNIT)
        plan = Plan(binds_read_only=tuple(binds), copies=(f"{tree}:/",))
        with Box.up(name, plan, owner=os.getpid()) as box:
            yield box


def interpreter() -> str:
    """Return the Python of the machine for our programs, as a script's first line has it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if Path(f"/usr/bin/{version}").exists():
        return f"/usr/bin/{version} -IS"
    # Services do not see anybody's home, where this Python may be at home.
    return f"/usr/bin/env -S LD_LIBRARY_PATH={PYTHON}/lib {PYTHON}/bin/{version} -IS"


def _programs(tree: Path) -> list[str]:
    """Write the programs' files; return what of the host they need to see."""
    packages = Path(sysconfig.get_path("purelib"))
    binds = [f"{packages}:{LIBRARY}/site-packages"]
    folders = (*PROGRAMS, "zkchannels")
    for name in folders:
        shutil.copytree(CHECKOUT / name, tree / LIBRARY.lstrip("/") / name)
    # The daemon cannot write its own code, so what Python makes of it is made now, as by a package.
    compiler = (sys.executable, "-m", "compileall", "-q", "-j0", tree / LIBRARY.lstrip("/"))
    subprocess.run(compiler, check=True)
    if PYTHON in interpreter():
        binds.append(f"{sys.base_prefix}:{PYTHON}")
    for name in PROGRAMS:
        path = tree / "usr/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"#!{interpreter()}\n"
            "import sys\n"
            f"sys.path[:0] = ['{LIBRARY}', '{LIBRARY}/site-packages']\n"
            f"from {name}.__main__ import main\n"
            "sys.exit(main())\n"
        )
        path.chmod(0o755)
    return binds


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


class Unit:
    """One unit of a booted machine, as a service of the network."""

    def __init__(self, box: Box, name: str) -> None:
        self.box = box
        self.name = name

    def show(self, name: str) -> str:
        """Return one of its properties."""
        shown = self.box.shell("systemctl", "show", "--property", name, "--value", self.name)
        return shown.stdout.strip()

    @property
    def state(self) -> str:
        """ActiveState: active, inactive, failed, activating, ..."""
        return self.show("ActiveState")

    @property
    def running(self) -> bool:
        """Whether it is active."""
        return self.state == "active"

    @property
    def pid(self) -> int:
        """The number of its main process inside the machine; 0 when there is none."""
        return int(self.show("MainPID"))

    def start(self) -> None:
        """Start it; returns when it is ready."""
        self.box.shell("systemctl", "start", self.name)

    def stop(self) -> None:
        """Stop it; returns when it has ended."""
        self.box.shell("systemctl", "stop", self.name)

    def restart(self) -> None:
        """Stop and start it."""
        self.box.shell("systemctl", "restart", self.name)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to its main process."""
        self.box.shell("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", self.name)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return what it and systemd about it have written to the journal."""
        said = self.box.shell(
            "journalctl", "--output=json", "--no-pager", f"--unit={self.name}", *matches
        ).stdout
        return [json.loads(line) for line in said.splitlines()]

    def last_lines(self, count: int = 30) -> str:
        """Return the end of its journal as people read it."""
        return self.box.shell(
            "journalctl", "--no-pager", f"--lines={count}", f"--unit={self.name}"
        ).stdout


class BoxedChain(DevChain):
    """The chain node inside; it is reached on the machine's own network."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self.unit = Unit(box, "anvil.service")
        self.unit.start()
        super().__init__(self.unit, f"http://127.0.0.1:{CHAIN_PORT}")  # type: ignore[arg-type]

    def call(self, method: str, *params: object) -> Any:
        """One JSON-RPC request."""
        inside = super().call
        return self._box.on_its_network(lambda: inside(method, *params))


class BoxedNetwork(Network):
    """PostgreSQL, a chain, a merchant, the daemon and the signer as units of one machine."""

    def __init__(self, box: Box) -> None:
        super().__init__(box.path("/run/customerd"), merchants=("coffee",))
        self.box = box
        self.socket = box.path("/run/customerd/customerd.sock")
        self.signer_socket = box.path("/run/customerd/signer.sock")
        self.monitor_socket = box.path("/run/customerd/monitor.sock")
        self.config = box.path("/etc/customerd/customerd.toml")
        self.database = Unit(box, "postgresql@15-main.service")
        self.listening = Unit(box, "customerd.socket")

    def __enter__(self) -> BoxedNetwork:
        self.start_postgres()
        self.start_chain()
        self.start_merchant("coffee")
        self.start_daemon()
        self.start_signer()
        return self

    def __exit__(self, *_: object) -> None:
        """The machine's end is the network's."""

    def write(self, path: str, text: str, *, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file of the machine."""
        place = self.box.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.touch(mode=0o600)
        place.write_text(text)
        place.chmod(mode)
        self.box.shell("chown", f"{owner}:", path)

    def drop_in(self, unit: str, text: str) -> None:
        """Add settings to a unit, in the way administrators do."""
        self.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.box.shell("systemctl", "daemon-reload")

    def remove_drop_in(self, unit: str) -> None:
        """Take the settings away again."""
        shutil.rmtree(self.box.path(f"/etc/systemd/system/{unit}.d"), ignore_errors=True)
        self.box.shell("systemctl", "daemon-reload")

    def as_user(
        self, user: str, *command: str, given: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as a user of the machine."""
        return self.box.shell("runuser", "-u", user, "--", *command, given=given, check=check)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `customerctl` inside, as the daemon's user, whatever its exit code."""
        return self.as_user("customerd", "customerctl", *arguments, check=False)

    def merchantctl(self, name: str, *arguments: str) -> Any:
        """Run a `merchantd` command inside that answers JSON."""
        done = self.as_user("merchantd", "merchantd", *arguments, "--json")
        return json.loads(done.stdout)

    def sql(self, *statements: str) -> None:
        """Execute statements as the administrator of the database server."""
        options = [part for each in statements for part in ("-c", each)]
        self.as_user("postgres", "psql", "-qX", *options)

    def unit(self, name: str) -> Unit:
        """Return a service by its name."""
        return Unit(self.box, f"{name}.service")

    def whole(self) -> None:
        """Undo what a test did: no drop-ins, every unit started, the daemon ready."""
        drop_ins = list(self.box.path("/etc/systemd/system").glob("*.d"))
        for path in drop_ins:
            shutil.rmtree(path)
        if drop_ins:
            self.box.shell("systemctl", "daemon-reload")
        parts = (self.database, self.chain.unit, self.merchants["coffee"].service)
        names = [unit.name for unit in parts]
        self.box.shell("systemctl", "start", *names, "customerd.socket", "customerd.service")
        if not self.rpc("getinfo")["signer"]["attached"]:
            self.signer.restart()  # it waits longer and longer between its attempts
        self.chain.mine()
        self.wait_mode("ready")

    # -- parts --------------------------------------------------------------------------------

    def start_postgres(self) -> None:
        """Make a cluster as Debian does, with roles and databases for peer authentication."""
        (version,) = [path.name for path in sorted(Path("/usr/lib/postgresql").iterdir())][-1:]
        self.database = Unit(self.box, f"postgresql@{version}-main.service")
        # Nothing outlives the machine, so nothing need be forced to a disk.
        self.box.shell("pg_createcluster", version, "main", "-o", "fsync=off", "--", "--no-sync")
        self.box.shell("systemctl", "daemon-reload")
        self.box.shell("systemctl", "start", "postgresql.service")
        for name in ("customerd", "merchantd"):
            self.sql(f"create role {name} login", f"create database {name} owner {name}")

    def start_chain(self) -> None:
        """Start anvil."""
        self.chain = BoxedChain(self.box)

    def start_merchant(self, name: str) -> None:
        """Make its keys, fund it, deploy its escrow, and start its unit."""
        home = "/var/lib/merchantd"
        self.write(
            "/etc/merchantd/merchantd.toml",
            f'margin = "{self.margin}s"\n'
            "[chain]\n"
            f'endpoints = ["{self.chain.url}"]\n'
            'poll = "2s"\n'
            "[listen]\n"
            'host = "127.0.0.1"\n'
            f"port = {MERCHANT_PORT}\n"
            'names = ["localhost", "127.0.0.1"]\n'
            f'certificate = "{home}/certificate.pem"\n'
            f'private_key = "{home}/certificate.key"\n'
            "[keys]\n"
            f'merchant = "{home}/merchant.key"\n'
            f'account = "{home}/account.key"\n'
            "[approver]\n"
            f"automatic_refunds = {REFUND_LIMIT}\n",
        )
        key = PrivateKey(secret := secrets.token_bytes(32))
        self.write(f"{home}/account.key", secret.hex() + "\n", mode=0o600, owner="merchantd")
        self.chain.faucet(key.address, 100 * ETHER)
        made = self.merchantctl(name, "init", "--delay", f"{self.delay}s")
        service = Unit(self.box, "merchantd.service")
        service.start()
        self.merchants[name] = MerchantParts(
            name,
            service,  # type: ignore[arg-type]
            self.box.path("/etc/merchantd/merchantd.toml"),
            made["address"],
            parse_address(made["escrow"]),
            parse_address(made["account"]),
        )

    def start_daemon(self) -> None:
        """Write the configuration and have systemd listen; the first connection starts it."""
        certificate = self.box.path("/var/lib/merchantd/certificate.pem").read_text()
        self.write("/etc/customerd/merchants.pem", certificate)
        self.write(
            "/etc/customerd/customerd.toml",
            "[database]\n"
            f'lease = "{self.lease:g}s"\n'
            "[chain]\n"
            f'endpoints = ["{self.chain.url}"]\n'
            'poll = "2s"\n'
            f'margin = "{self.margin}s"\n'
            "[merchant]\n"
            'certificates = "/etc/customerd/merchants.pem"\n',
        )
        self.daemon = Unit(self.box, "customerd.service")  # type: ignore[assignment]
        self.box.shell("systemctl", "enable", "--now", "customerd.socket")
        self.box.shell("systemctl", "enable", "customerd.service", "customerd-monitor.socket")

    def start_signer(self) -> None:
        """Make a seed, pair the signer, start it, and fund the two accounts it takes."""
        passphrase = secrets.token_urlsafe(24)
        self.passphrase_text = passphrase
        self.box.shell("mkdir", "--mode=0700", "--parents", "/etc/credstore.encrypted")
        self.box.shell(
            "systemd-creds",
            "encrypt",
            "--name=customersigner.passphrase",
            "-",
            "/etc/credstore.encrypted/customersigner.passphrase",
            given=passphrase,
        )
        # It tells of each attempt to reach the daemon.
        self.write("/etc/customersigner/customersigner.toml", 'log_level = "debug"\n')
        place = "/var/lib/customersigner/passphrase"
        self.write(place, passphrase, mode=0o600, owner="customersigner")
        command = ["customersigner", "--state-directory", "/var/lib/customersigner"]
        secret = ["--passphrase-file", place]
        user = "customersigner"
        self.as_user(user, *command, "init", "--restore", *secret, given=self.words + "\n")
        self.wait_info(lambda info: info["mode"] != "starting")
        line = self.rpc("signer-pair")["line"]
        self.as_user(user, *command, "pair", *secret, given=line + "\n")
        # From here on it is in the credential alone.
        self.box.path(place).unlink()
        self.signer = Unit(self.box, "customersigner.service")  # type: ignore[assignment]
        self.signer.start()
        info = self.wait_mode("ready", "safe")
        for account in (self.account, parse_address(info["guard"])):
            self.chain.faucet(account, 100 * ETHER)
        self.chain.mine()
        self.wait_info(lambda info: info["guard_balance"] not in (None, "0 ETH"))
