"""The administrator's guide on a clean machine, from the installation to the purge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.debian.installed import InstalledNetwork
from tests.systemd.test_operations_guide import prepare, type_all

pytestmark = pytest.mark.timeout(1200)


def test_the_whole_guide_with_packages(network: InstalledNetwork, packages: list[Path]) -> None:
    """Who types every command, those about packages too, is left with nothing but what is kept."""
    merchants = [path for path in packages if path.name.startswith("merchantd")]
    network.delay = 24 * 3600
    network.install(merchants)
    prepare(network)
    for path in packages:
        network.box.push(path, f"/root/{path.name}")
    assert type_all(network, packages=True) > 40
    assert network.box.path("/var/lib/customerd/guard.key").exists()
    assert network.box.path("/var/lib/customersigner/seed").exists()
    assert not network.box.path("/usr/bin/customerd").exists()
