"""One machine with a booted systemd for all tests here, and a network of units inside."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.flow.world import World
from tests.systemd.network import BoxedNetwork, machine
from tools.box import Box

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The machine."""
    with machine(f"customerd-{os.getpid()}") as booted:
        yield booted


@pytest.fixture(scope="session")
def shared_units(box: Box) -> BoxedNetwork:
    """The network, whose parts tests stop and break and leave to be started again."""
    return BoxedNetwork(box).__enter__()


@pytest.fixture
def network(shared_units: BoxedNetwork) -> BoxedNetwork:
    """The network with everything running as it was installed."""
    shared_units.whole()
    return shared_units


@pytest.fixture
def world(network: BoxedNetwork) -> World:
    """The same, for operations on channels."""
    return World(network, prefix=f"s{next(_NUMBERS)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the machine's journal beside a failure."""
    report = yield
    box = getattr(item, "funcargs", {}).get("box")
    network = getattr(item, "funcargs", {}).get("network")
    box = box or (network.box if network else None)
    if report.failed and isinstance(box, Box):
        journal = box.shell("journalctl", "--no-pager", "--lines=60", check=False).stdout
        report.sections.append(("journal of the machine", journal))
    return report
