"""Which methods are answered, and how; shared by any number of connections."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from zkchannels.jsonrpc.message import Identity, encode_result, encode_success
from zkchannels.jsonrpc.method import Method

if TYPE_CHECKING:
    from zkchannels.jsonrpc.peer import Peer

P = TypeVar("P", bound=Struct)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered method."""

    method: Method[Any, Any]
    handler: Callable[[Any, Peer], Any]
    cancel_on_disconnect: bool


class Handlers:
    """Maps methods to what answers them.

    Coroutine handlers run as tasks of `task_group`; plain functions are answered in line and must
    not block. `check_results` reads every result back as its method's type before it is sent; a
    result that does not fit becomes an internal error (for tests).
    """

    def __init__(
        self, *, task_group: asyncio.TaskGroup | None = None, check_results: bool = False
    ) -> None:
        self.task_group = task_group
        self._check_results = check_results
        self._entries: dict[str, Entry] = {}

    def register(
        self,
        method: Method[P, R],
        handler: Callable[[P, Peer], R | Awaitable[R]],
        *,
        cancel_on_disconnect: bool = False,
    ) -> None:
        """Answer `method` with `handler`; raises ValueError if it is answered already.

        A handler runs to its end even if its connection ends meanwhile, unless
        `cancel_on_disconnect` says that nobody else cares.
        """
        if method.name in self._entries:
            raise ValueError(f"method registered twice: {method.name}")
        if self.task_group is None and inspect.iscoroutinefunction(handler):
            raise ValueError(f"a coroutine handler needs a task group: {method.name}")
        self._entries[method.name] = Entry(method, handler, cancel_on_disconnect)

    @property
    def methods(self) -> list[Method[Any, Any]]:
        """The registered methods, in the order of registration."""
        return [entry.method for entry in self._entries.values()]

    def find(self, name: str) -> Entry | None:
        """Return what is registered under this name."""
        return self._entries.get(name)

    def encode(self, entry: Entry, identity: Identity, result: Any) -> bytes:
        """Return the answer with this result; raises what msgspec raises if it does not fit."""
        answer = encode_success(identity, result)
        if self._check_results:
            entry.method.decode_result(encode_result(result))
        return answer
