"""A holder of a token at the monitor socket."""

from __future__ import annotations

from typing import Any, Self

from tests.flow.world import World
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError
from zkchannels.macaroon import Macaroon

WITHIN = 30.0


def create(world: World, *methods: str, **more: Any) -> Any:
    """Make a token; return its id, its secret and its caveats."""
    return world.rpc("token-create", methods=list(methods), **more)


def restricted(token: str, *caveats: str) -> str:
    """Add caveats as a holder does, offline."""
    macaroon = Macaroon.decode(token)
    for caveat in caveats:
        macaroon = macaroon.restricted(caveat)
    return macaroon.encode()


def kind_of(error: RpcError) -> str:
    """Return the kind of a refusal."""
    assert isinstance(error.data, dict), error
    return str(error.data["kind"])


class Holder:
    """One connection to the monitor socket; a context manager."""

    def __init__(self, world: World, token: str | None = None) -> None:
        self.client = BlockingClient(str(world.network.monitor_socket), timeout=WITHIN)
        self.granted: Any = None
        if token is not None:
            self.granted = self.client.call("authenticate", {"token": token})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def call(self, method: str, /, **params: Any) -> Any:
        """Call a method that is allowed."""
        return self.client.call(method, params)

    def refused(self, method: str, /, **params: Any) -> str:
        """Call a method that is refused; return the kind."""
        try:
            self.client.call(method, params)
        except RpcError as error:
            return kind_of(error)
        raise AssertionError(f"{method} was not refused")

    def ended(self) -> bool:
        """Read what comes until the daemon ends the connection."""
        for _ in self.client.notifications():
            continue
        return True

    def lost(self, method: str, /, **params: Any) -> bool:
        """Whether the connection ends without an answer to this."""
        try:
            self.client.call(method, params)
        except ConnectionLost:
            return True
        return False


def refused_token(world: World, token: str) -> str:
    """Present a token that is refused; return the kind."""
    with Holder(world) as holder:
        return holder.refused("authenticate", token=token)
