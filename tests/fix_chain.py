"""Development chains: a fresh one per test, or one shared by tests that deploy for themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.devnet.embedded import Embedded


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    """A fresh anvil; `finalized` lags two blocks behind the head."""
    with Anvil() as chain:
        yield chain


@pytest.fixture
def embedded_chain() -> Iterator[Embedded]:
    """A fresh embedded chain; `finalized` lags two blocks behind the head."""
    with Embedded() as chain:
        yield chain


@pytest.fixture(scope="session")
def shared_anvil() -> Iterator[Anvil]:
    """An anvil that tests share: they bring accounts and contracts and only move forward."""
    with Anvil() as chain:
        yield chain


@pytest.fixture(scope="session")
def shared_embedded_chain() -> Iterator[Embedded]:
    """An embedded chain that tests share, like `shared_anvil`."""
    with Embedded() as chain:
        yield chain


@pytest.fixture(params=["anvil", "embedded"])
def chain(request: pytest.FixtureRequest) -> DevChain:
    """Both kinds of chain, one after the other, shared between tests."""
    name = "shared_anvil" if request.param == "anvil" else "shared_embedded_chain"
    shared: DevChain = request.getfixturevalue(name)
    return shared
