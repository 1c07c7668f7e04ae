"""What one process leaves to the next of a connection that outlives it."""

from __future__ import annotations

from msgspec import Struct

from zkchannels.jsonrpc.message import Identity


class CarriedCall(Struct, frozen=True):
    """A call that was begun and not answered; `params` are JSON, by name.

    `note`: what its handler wrote down about its effect, before the effect. `resting`: it only
    waited for something to happen. `age`: seconds since it was begun. `batch`: the number of the
    batch that it belongs to, -1 for none.
    """

    identity: Identity
    method: str
    params: bytes
    note: bytes
    resting: bool
    age: float
    batch: int = -1


class CarriedConnection(Struct, frozen=True):
    """The state of a connection whose every written byte has left.

    `partial`: the beginning of a line; with `skipping` the rest of a line that was too long is
    still to come. `backlog`: lines that were read and not begun, None for one that was too long.
    `batches`: the answers that are there, by number of the batch. `ending`: why nothing more is
    read; empty when more is read.
    """

    partial: bytes = b""
    skipping: bool = False
    backlog: list[bytes | None] = []
    calls: list[CarriedCall] = []
    batches: list[list[bytes]] = []
    ending: str = ""
