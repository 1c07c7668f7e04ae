"""A daemon that listens on TCP, and signers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.link.between import Cable, Loopback, Wire, may_make_networks
from tests.link.parts import Daemon, Signer

_NUMBERS = itertools.count(1)

SignerMaker = Callable[..., Signer]


@pytest.fixture
def place(memory_directory: Path) -> Path:
    """An empty folder with a short path."""
    place = memory_directory / f"link{next(_NUMBERS)}"
    place.mkdir(mode=0o711)
    return place


@pytest.fixture
def daemon(place: Path, database_dsn: str) -> Iterator[Daemon]:
    """A running daemon that listens on TCP, quick to notice silence."""
    daemon = Daemon(
        place / "daemon", database_dsn, signer='ping_interval = "200ms"\ngone_after = "1s"\n'
    )
    try:
        daemon.service.start()
        yield daemon
    finally:
        daemon.service.stop()


@pytest.fixture
def new_signer(place: Path) -> Iterator[SignerMaker]:
    """Makes signers; those that run are ended."""
    made: list[Signer] = []

    def make(**options: Any) -> Signer:
        made.append(Signer(place / f"signer{next(_NUMBERS)}", **options))
        return made[-1]

    yield make
    for signer in made:
        signer.service.kill()


@pytest.fixture
def signer(new_signer: SignerMaker) -> Signer:
    """A signer that is not paired."""
    return new_signer()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A cable between two network namespaces, where this process may make them."""
    if may_make_networks():
        with Cable() as cable:
            yield cable
        return
    with Loopback() as loopback:
        yield loopback
