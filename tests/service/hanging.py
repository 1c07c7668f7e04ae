"""Run customerd so that SIGUSR1 makes a part of it hang, as a fault in it would.

    python -m tests.service.hanging loop|follower|reconcile --config FILE

`loop`: the event loop itself never comes back. `follower`, `reconcile`: that loop of the watcher
begins a piece of work that never ends, while the event loop goes on.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

from customerd.__main__ import main
from customerd.watch.watcher import Watcher
from zkchannels.chain.client import ChainClient

_hanging = threading.Event()
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


if __name__ == "__main__":
    part = sys.argv.pop(1)
    Watcher.__init__ = _remember  # type: ignore[method-assign]
    if part == "loop":
        signal.signal(signal.SIGUSR1, _hang_loop)
    else:
        signal.signal(signal.SIGUSR1, _hang)
        if part == "follower":
            _never_again(ChainClient, "survey")
        else:
            _never_again(Watcher, "_all_open")
    sys.exit(main())
