"""An escrow of each asset on each chain, shared; accounts and channels are each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.world import Escrow, World
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.devnet.embedded import Embedded
from zkchannels.escrow import artefact

_Shared = dict[tuple[str, str], Escrow]


@pytest.fixture(scope="session")
def shared_escrows() -> _Shared:
    """Escrows by chain and asset, deployed when first wanted."""
    return {}


def _escrow(chain: DevChain, asset: str, shared: _Shared) -> Escrow:
    found = shared.get((chain.url, asset))
    if found is None:
        token = bytes(20)
        if asset == "token":
            token = chain.deploy(DEV_KEYS[0], artefact.token_deployment_data())
        found = shared[chain.url, asset] = Escrow.deploy(chain, token=token)
    found.open_books()
    return found


@pytest.fixture(params=["native", "token"])
def asset(request: pytest.FixtureRequest) -> str:
    """Both assets, one after the other."""
    return str(request.param)


@pytest.fixture
def world(chain: DevChain, asset: str, shared_escrows: _Shared) -> Iterator[World]:
    """A world on both chains with both assets; its books are checked in the end."""
    world = World(_escrow(chain, asset, shared_escrows))
    yield world
    world.escrow.check_books()


@pytest.fixture
def native_world(chain: DevChain, shared_escrows: _Shared) -> Iterator[World]:
    """A world of the native coin on both chains."""
    world = World(_escrow(chain, "native", shared_escrows))
    yield world
    world.escrow.check_books()


@pytest.fixture
def token_world(chain: DevChain, shared_escrows: _Shared) -> Iterator[World]:
    """A world of the test token on both chains."""
    world = World(_escrow(chain, "token", shared_escrows))
    yield world
    world.escrow.check_books()


@pytest.fixture
def fresh_chain(request: pytest.FixtureRequest) -> Iterator[DevChain]:
    """A chain of the kind named by the parameter, without any history."""
    with Anvil() if request.param == "anvil" else Embedded() as chain:
        yield chain
