"""From `apt install` to `apt purge` on a machine that had nothing: what an administrator lives."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.debian.installed import InstalledNetwork
from tests.debian.packages import PACKAGES, newer
from tests.flow.world import World
from tests.systemd.waiting import until
from zkchannels.jsonrpc.client import BlockingClient

LATER = "0.1.1"
# Packages are built, and a Debian is made, when they are not there.
pytestmark = pytest.mark.timeout(1200)


def test_lintian_has_nothing_to_say(packages: list[Path]) -> None:
    """No error, no warning."""
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", *map(str, packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_install_pay_crash_upgrade_reboot_remove_purge(
    network: InstalledNetwork, packages: list[Path], tmp_path: Path
) -> None:
    """Every step leaves all money and every channel, and no client goes without its answer."""
    installed(network, packages)
    # Stopped, to keep a payment in flight, it is not to be taken for one that hangs.
    network.drop_in("merchantd.service", "[Service]\nWatchdogSec=0\n")
    network.__enter__()
    world = World(network, prefix="debian")
    label = world.establish()
    world.pay(label, "0.1 ETH")
    crash(world, label)
    upgrade_under_load(world, label, [newer(path, LATER, tmp_path) for path in packages])
    network.reboot()
    network.chain.unit.start()
    network.wait_mode("ready")
    until(lambda: network.unit("merchantd").running)
    world.pay(label, "0.1 ETH")
    assert network.failed_units() == []
    remove_and_install_again(world, label, packages)
    purge(network)


def installed(network: InstalledNetwork, packages: list[Path]) -> None:
    """Users, roles, databases and sockets are there; what lacks keys waits for them."""
    network.install(packages)
    assert network.failed_units() == []
    for name in PACKAGES:
        network.box.shell("getent", "passwd", name)
    for name in ("customerd", "merchantd"):
        network.as_user(name, "psql", "-qAtX", "-c", "SELECT 1")
    assert network.listening.running
    for name in ("customersigner", "merchantd"):
        assert network.unit(name).state == "inactive"
    assert network.ctl("getinfo").returncode == 0
    # The journal's words, and the manual, are where their readers look.
    assert "customerd" in network.box.shell("journalctl", "--list-catalog").stdout
    assert network.box.path("/usr/share/man/man1/customerctl.1.gz").exists()


def crash(world: World, label: str) -> None:
    """Killed in the middle of a payment, the daemon completes it, and the client waits for it."""
    network = world.network
    merchant = network.merchants["coffee"].service
    merchant.kill("STOP")
    operation = world.rpc("pay", label=label, amount="0.1 ETH", wait=False)["operation"]
    network.daemon.kill()
    merchant.kill("CONT")
    network.wait_mode("ready")
    assert world.rpc("wait", operation=operation, timeout=60)["status"] == "done"


def upgrade_under_load(world: World, label: str, packages: list[Path]) -> None:
    """Every call made during the upgrade is answered, on old connections and new ones."""
    network = world.network
    assert isinstance(network, InstalledNetwork)
    merchant = network.merchants["coffee"].service
    merchants = [path for path in packages if path.name.startswith("merchantd")]
    before, _ = world.balances(label)
    merchant.kill("STOP")
    paid: list[Any] = []
    with BlockingClient(str(network.socket), timeout=120) as paying:
        parameters = {"label": label, "amount": "0.1 ETH"}
        client = threading.Thread(target=lambda: paid.append(paying.call("pay", parameters)))
        client.start()
        until(lambda: network.rpc("getinfo")["operations"] == 1)
        with Load(network.socket) as load:
            network.upgrade([path for path in packages if path not in merchants])
            until(lambda: {LATER} == load.latest_versions())
        merchant.kill("CONT")
        client.join()
    assert load.errors == []
    assert [answer["status"] for answer in paid] == ["done"]
    network.wait_mode("ready")
    assert world.balances(label)[0] == before - 100_000_000
    network.upgrade(merchants)
    for unit in map(network.unit, PACKAGES):
        until(lambda unit=unit: unit.running)


class Load:
    """Clients that ask without a pause: one keeps its connection, one makes a new one each time."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._end = threading.Event()
        self._versions: dict[str, str] = {}
        self.answers = 0
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(kind,)) for kind in ("kept", "new")
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def latest_versions(self) -> set[str]:
        """Return which versions of the daemon gave the latest answers."""
        assert not self.errors, self.errors
        return set(self._versions.values())

    def _ask(self, kind: str) -> None:
        client = BlockingClient(str(self._socket), timeout=120)
        try:
            while not self._end.is_set():
                if kind == "new":
                    client.close()
                    client = BlockingClient(str(self._socket), timeout=120)
                self._versions[kind] = client.call("getinfo", {})["version"]
                self.answers += 1
                # No processor is left for the upgrade otherwise.
                self._end.wait(0.01)
        except BaseException as error:
            self.errors.append(error)
        finally:
            client.close()


def remove_and_install_again(world: World, label: str, packages: list[Path]) -> None:
    """Removed, nothing runs and all records stay; installed again, everything goes on."""
    network = world.network
    assert isinstance(network, InstalledNetwork)
    balances = world.balances(label)
    network.apt("remove", *PACKAGES)
    for unit in (*map(network.unit, PACKAGES), network.listening):
        assert not unit.running, unit.name
    assert not network.socket.exists()
    assert not network.box.path("/usr/lib/customerd").exists()
    network.upgrade(packages)
    network.wait_mode("ready")
    until(lambda: network.unit("merchantd").running)
    assert world.balances(label) == balances
    world.pay(label, "0.1 ETH")


def purge(network: InstalledNetwork) -> None:
    """Nothing is left but what money hangs on, and the administrator is told of it."""
    began = time.monotonic()
    said = network.apt("purge", *PACKAGES)
    assert time.monotonic() - began < 60
    for told in (
        "kept the database 'customerd'",
        "kept the database 'merchantd'",
        "the key of the guard's account",
        "kept /var/lib/customersigner: the seed",
        "kept the keys in /var/lib/merchantd",
    ):
        assert told in said
    money = {
        "/var/lib/customerd",
        "/var/lib/customersigner",
        "/var/lib/merchantd",
        "/etc/credstore.encrypted/customersigner.passphrase",
    }
    network.remove_drop_in("merchantd.service")
    # The administrator's certificate for the daemon, and what only the test brought.
    not_ours = {"/etc/customerd", "/usr/lib/customerd-tests"}
    assert network.traces() - not_ours == money
    assert [path.name for path in network.box.path("/etc/customerd").iterdir()] == ["merchants.pem"]
    kept = network.box.shell("find", *sorted(money), "-type", "f").stdout.split()
    assert {Path(path).name for path in kept} == {
        "guard.key",
        "seed",
        "signer.sqlite",
        "customersigner.passphrase",
        "merchant.key",
        "account.key",
        "certificate.key",
    }
    for name in ("customerd", "merchantd"):
        found = network.as_user("postgres", "psql", "-qAtXc", "SELECT 1", name).stdout
        assert found.strip() == "1"
    assert network.failed_units() == []
