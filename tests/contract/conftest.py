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


def _escrow(request: pytest.FixtureRequest, chain: str, asset: str) -> Escrow:
    shared: _Shared = request.getfixturevalue("shared_escrows")
    found = shared.get((chain, asset))
    if found is None:
        name = "shared_anvil" if chain == "anvil" else "shared_embedded_chain"
        node: DevChain = request.getfixturevalue(name)
        token = bytes(20)
        if asset == "token":
            token = node.deploy(DEV_KEYS[0], artefact.token_deployment_data())
        found = shared[chain, asset] = Escrow.deploy(node, token=token)
    found.open_books()
    return found


def _checked(escrow: Escrow) -> Iterator[World]:
    world = World(escrow)
    yield world
    world.escrow.check_books()


# Tokens on the embedded chain, the slowest of the four, are left to `token_world` and the gas test.
@pytest.fixture(params=["anvil native", "anvil token", "embedded native"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of either asset; its books are checked in the end."""
    yield from _checked(_escrow(request, *request.param.split()))


@pytest.fixture(params=["native", "token"])
def anvil_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of either asset on anvil, for tests of many steps."""
    yield from _checked(_escrow(request, "anvil", request.param))


@pytest.fixture(params=["anvil", "embedded"])
def native_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of the native coin on either chain."""
    yield from _checked(_escrow(request, request.param, "native"))


@pytest.fixture(params=["anvil", "embedded"])
def token_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of the test token on either chain."""
    yield from _checked(_escrow(request, request.param, "token"))


@pytest.fixture
def fresh_chain(request: pytest.FixtureRequest) -> Iterator[DevChain]:
    """A chain of the kind named by the parameter, without any history."""
    with Anvil() if request.param == "anvil" else Embedded() as chain:
        yield chain
