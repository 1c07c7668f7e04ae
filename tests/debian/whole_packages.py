"""What takes too long for every run: the same bytes twice, autopkgtest, the guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.debian.installed import APT, InstalledNetwork
from tests.debian.packages import build
from tests.systemd import test_operations_guide as guide
from tests.systemd.network import CHECKOUT

pytestmark = pytest.mark.timeout(1200)


def test_the_same_files_make_the_same_bytes(packages: list[Path], tmp_path: Path) -> None:
    """Built again, at another time and place, every package is the same."""
    again = {path.name: path.read_bytes() for path in build(tmp_path)}
    assert again == {path.name: path.read_bytes() for path in packages}


def test_debians_own_tests_pass(network: InstalledNetwork, packages: list[Path]) -> None:
    """autopkgtest installs the packages on a minimal machine and runs debian/tests there."""
    network.box.with_network(*APT, "update")
    network.box.with_network(*APT, "install", "--no-install-recommends", "autopkgtest")
    source = "/root/source"
    network.box.push(CHECKOUT / "packaging" / "debian", f"{source}/debian")
    for path in packages:
        network.box.push(path, f"/root/{path.name}")
    command = ["autopkgtest", *(f"/root/{path.name}" for path in packages), source, "--", "null"]
    done = network.box.with_network(*command, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installed            PASS" in done.stdout


def test_every_command_of_the_guide(network: InstalledNetwork, packages: list[Path]) -> None:
    """An administrator who types what docs/operations.md says, on a clean machine, gets that."""
    merchants = [path for path in packages if path.name.startswith("merchantd")]
    network.delay = 24 * 3600
    network.install(merchants)
    guide.prepare(network)
    for path in packages:
        network.box.push(path, f"/root/{path.name}")
    assert guide.type_all(network, packages=True) > 40
    # Purged, with what is worth money still there.
    assert network.box.path("/var/lib/customerd/guard.key").exists()
    assert network.box.path("/var/lib/customersigner/seed").exists()
    assert not network.box.path("/usr/bin/customerd").exists()
