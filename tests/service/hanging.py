"""Run customerd so that SIGUSR1 makes a part of it hang, as a fault in it would.

    python -m tests.service.hanging loop|follower|reconcile|commits --config FILE

`loop`: the event loop itself never comes back. `follower`, `reconcile`: that loop of the watcher
begins a piece of work that never ends, while the event loop goes on. `commits`: after SIGUSR1 the
next call that writes never comes to its commit; after SIGUSR2 it never comes back from it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from typing import Any

from customerd.__main__ import main
from customerd.store.events import Store
from customerd.watch.watcher import Watcher
from zkchannels.chain.client import ChainClient
from zkchannels.jsonrpc.peer import current_call

_hanging = threading.Event()
ASKED = ("pay", "token-create")
_before, _after = threading.Event(), threading.Event()
_watchers: list[Watcher] = []
_made = Watcher.__init__


def _hang_loop(*_: object) -> None:
    threading.Event().wait()


def _hang(*_: object) -> None:
    _hanging.set()
    for watcher in _watchers:
        watcher.kick_all()


def _remember(watcher: Watcher, *arguments: Any) -> None:
    _watchers.append(watcher)
    _made(watcher, *arguments)


def _never_again(owner: Any, name: str) -> None:
    original = getattr(owner, name)

    async def hanging(*arguments: Any, **options: Any) -> Any:
        if _hanging.is_set():
            await asyncio.Event().wait()
        return await original(*arguments, **options)

    setattr(owner, name, hanging)


def _hold_commits() -> None:
    original = Store.write
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)

    async def hang() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(b"STATUS=hanging in a commit", address)
        await asyncio.Event().wait()

    async def write(self: Store, writes: Any) -> float:
        task = asyncio.current_task()
        asked = current_call() is not None and task is not None and task.get_name() in ASKED
        if asked and _before.is_set():
            await hang()
        moment = await original(self, writes)
        if asked and _after.is_set():
            await hang()
        return moment

    Store.write = write  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, lambda *_: _before.set())
    signal.signal(signal.SIGUSR2, lambda *_: _after.set())


if __name__ == "__main__":
    part = sys.argv.pop(1)
    Watcher.__init__ = _remember  # type: ignore[method-assign]
    if part == "commits":
        _hold_commits()
    elif part == "loop":
        signal.signal(signal.SIGUSR1, _hang_loop)
    else:
        signal.signal(signal.SIGUSR1, _hang)
        if part == "follower":
            _never_again(ChainClient, "survey")
        else:
            _never_again(Watcher, "_all_open")
    sys.exit(main())
