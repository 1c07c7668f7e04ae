"""Run one of the programs as it is, with a boundary around every effect that leaves the process.

    python -m tests.fault.launcher CONTROL customerd --config FILE

The seams are few: the commit of a PostgreSQL transaction, the commit of the signer's store, a line
written to a peer, a transaction handed to the node. Each passage has a stable name made of program,
scope (operation and step, message, or task), seam and message. At an armed name the process ends
or stops itself, before the effect or after it; "after" means that the commit has returned, or that
the system has taken every byte of the line.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from tests.fault.control import SIZE, Armed, When, recording_of

_SCOPE: ContextVar[str] = ContextVar("scope", default="")
_PASS_ON_FUNCTIONS = ("_write", "_change", "_execute", "_write_once", "commit", "change", "insert")
_PASS_ON_FILES = ("zkchannels/store/", "customerd/store/", "contextlib", "asyncio/", __file__)


class Boundaries:
    """Counts passages of the armed boundary in this process, and acts at the right one."""

    def __init__(self, program: str, control: Path) -> None:
        self.program = program
        self._control = os.open(control, os.O_RDONLY | os.O_CLOEXEC)
        self._recording = os.open(recording_of(control), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._token = 0
        self._passed = 0
        self._action = "kill"

    def name(self, *words: str) -> str:
        """Return the name of a boundary in the present scope."""
        return " ".join(word for word in (self.program, _scope(), *words) if word)

    def passes(self, name: str, when: When) -> bool:
        """Record a passage; return whether the process has to act on it."""
        with self._lock:
            armed = Armed.decode(os.pread(self._control, SIZE, 0))
            due = self._is_due(armed, name, when)
            mark = "!" if due else "."
            os.write(self._recording, f"{os.getpid()} {when} {mark} {name}\n".encode())
            self._action = armed.action if armed is not None else "kill"
            return due

    def _is_due(self, armed: Armed | None, name: str, when: When) -> bool:
        if armed is None or (armed.name, armed.when) != (name, when):
            return False
        if armed.token != self._token:
            self._token, self._passed = armed.token, 0
        self._passed += 1
        return self._passed == armed.passing

    def act(self) -> None:
        """End or stop this process now."""
        os.kill(os.getpid(), signal.SIGSTOP if self._action == "stop" else signal.SIGKILL)

    def at(self, name: str, when: When) -> None:
        """Pass a boundary, or end there."""
        if self.passes(name, when):
            self.act()


def _scope() -> str:
    found = _SCOPE.get()
    if found:
        return found
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return ""
    name = "" if task is None else task.get_name()
    return "" if re.fullmatch(r"Task-\d+", name) else name.replace(" ", "-")


@contextmanager
def _within(scope: str) -> Iterator[None]:
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def _asked_by() -> str:
    """Return the name of the function that began the transaction which commits now."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        inside = any(part in path for part in _PASS_ON_FILES)
        if not inside and frame.f_code.co_name not in _PASS_ON_FUNCTIONS:
            return frame.f_code.co_name.strip("_")
        assert frame.f_back is not None
        frame = frame.f_back
    return ""


# -- PostgreSQL ------------------------------------------------------------------------------------


COMMITTING = ("run", "run_alone")
"""The methods of Database that commit."""


def _wrap_database(boundaries: Boundaries) -> None:
    from zkchannels.store.database import Database

    original, alone = Database.run, Database.run_alone

    async def run(self: Database, body: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
        # The function alone tells apart what one task commits; a step of an operation is a name.
        name = boundaries.name(*(("commit",) if _is_step() else ("commit", _asked_by())))

        async def watched(connection: Any) -> Any:
            result = await body(connection)
            boundaries.at(name, "before")
            return result

        result = await original(self, watched, **options)
        boundaries.at(name, "after")
        return result

    async def run_alone(
        self: Database, statement: str, parameters: Any, **options: Any
    ) -> tuple[Any, ...]:
        # The statement is its own transaction: before it is sent is before its commit.
        name = boundaries.name(*(("commit",) if _is_step() else ("commit", _asked_by())))
        boundaries.at(name, "before")
        row = await alone(self, statement, parameters, **options)
        boundaries.at(name, "after")
        return row

    Database.run_alone = run_alone  # type: ignore[method-assign]
    Database.run = run  # type: ignore[method-assign]


def _is_step() -> bool:
    return _SCOPE.get().startswith("operation ")


# -- the signer's store ----------------------------------------------------------------------------


def _wrap_signer(boundaries: Boundaries) -> None:
    from customersigner.signer import Signer
    from customersigner.store import Store

    transaction = Store._transaction
    methods = Signer.methods

    @contextmanager
    def watched(self: Store) -> Iterator[Any]:
        name = boundaries.name("commit")
        with transaction(self) as connection:
            yield connection
            boundaries.at(name, "before")
        boundaries.at(name, "after")

    def scoped(self: Signer) -> Any:
        # The store is used in a thread of its own, which does not know whose request it works on.
        return {method: _in_scope(method.name, answer) for method, answer in methods(self).items()}

    Store._transaction = watched  # type: ignore[method-assign]
    Signer.methods = scoped  # type: ignore[method-assign]


def _in_scope(scope: str, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(params: Any) -> Any:
        with _within(scope):
            return answer(params)

    return call


# -- lines to peers --------------------------------------------------------------------------------


class _Head(msgspec.Struct):
    """What a line is about."""

    id: msgspec.Raw = msgspec.Raw()
    method: str | None = None
    error: msgspec.Raw = msgspec.Raw()


def _wrap_peer(boundaries: Boundaries) -> None:
    from zkchannels.jsonrpc.peer import Peer

    asked: weakref.WeakKeyDictionary[Peer, dict[bytes, str]] = weakref.WeakKeyDictionary()
    emit, begin = Peer._emit, Peer._begin

    def watched_begin(self: Peer, request: Any, *more: Any) -> None:
        asked.setdefault(self, {})[msgspec.json.encode(request.id)] = str(request.method)
        begin(self, request, *more)

    def watched_emit(self: Peer, text: bytes) -> None:
        name = boundaries.name(*_line(self, text, asked.get(self, {})))
        boundaries.at(name, "before")
        emit(self, text)
        if boundaries.passes(name, "after"):
            _after_sent(self, boundaries)

    Peer._begin = watched_begin  # type: ignore[method-assign]
    Peer._emit = watched_emit  # type: ignore[method-assign]


def _line(peer: Any, text: bytes, asked: dict[bytes, str]) -> tuple[str, ...]:
    """Name a line: what it is, to whom, and its method."""
    other = peer.name.split(" ")[0] or "peer"
    if text[:1] == b"[":
        return ("answer", other, "batch")
    head = msgspec.json.decode(text, type=_Head)
    if head.method is not None:
        return ("send" if bytes(head.id) else "notify", other, head.method)
    method = asked.pop(bytes(head.id), "unknown")
    return ("answer", other, method, *_refusal(bytes(head.error)))


def _refusal(error: bytes) -> tuple[str, ...]:
    """Name an error by its kind, if the line has one."""
    if not error:
        return ()
    data = msgspec.json.decode(error).get("data")
    return ("error", str(data.get("kind", "unnamed")) if isinstance(data, dict) else "unnamed")


def _after_sent(peer: Any, boundaries: Boundaries) -> None:
    """Act once the system has taken every byte that was written."""
    peer._flush()
    if peer._transport is None or not peer._transport.get_write_buffer_size():
        boundaries.act()
        return
    asyncio.get_running_loop().call_soon(_after_sent, peer, boundaries)


# -- transactions to the node ----------------------------------------------------------------------


def _wrap_chain(boundaries: Boundaries) -> None:
    from zkchannels.chain.client import ChainClient
    from zkchannels.chain.lane import Lane

    send_raw, submit, apply, note = (
        ChainClient.send_raw,
        Lane.submit,
        Lane._apply,
        Lane._note,
    )

    async def watched_send_raw(self: ChainClient, raw: bytes) -> Any:
        name = boundaries.name("send node")
        boundaries.at(name, "before")
        outcome = await send_raw(self, raw)
        boundaries.at(name, "after")
        return outcome

    async def scoped_submit(self: Lane, purpose: str, **parameters: Any) -> Any:
        with _within(f"transaction {_kind_of(purpose)}"):
            return await submit(self, purpose, **parameters)

    async def scoped_apply(self: Lane, row: Any, seen: Any) -> None:
        with _within(f"transaction {_kind_of(row.purpose)}"):
            await apply(self, row, seen)

    async def scoped_note(self: Lane, row: Any, decision: Any) -> Any:
        with _within(f"transaction {_kind_of(row.purpose)} {decision.status.value}"):
            return await note(self, row, decision)

    ChainClient.send_raw = watched_send_raw  # type: ignore[method-assign]
    Lane.submit = scoped_submit  # type: ignore[method-assign]
    Lane._apply = scoped_apply  # type: ignore[method-assign]
    Lane._note = scoped_note  # type: ignore[method-assign]


def _kind_of(purpose: str) -> str:
    """Return the intention in a purpose, without channel and index."""
    found = re.match(r"[a-z]+( nonce|(-[a-z]+)*)", purpose)
    assert found is not None, purpose
    return found[0].replace(" ", "-")


# -- what happens in customerd's and merchantd's own tasks -----------------------------------------


def _wrap_customerd() -> None:
    from customerd.operations.run import Run
    from customerd.operations.runner import Runner
    from customerd.watch.watcher import Watcher

    step, once, act = Run.step, Runner._once, Watcher._act

    def scoped_step(self: Run, name: str) -> None:
        _SCOPE.set(f"operation {self.row.kind} {name}")
        step(self, name)

    async def scoped_once(self: Runner, row: Any, *rest: Any, **options: Any) -> None:
        with _within(f"operation {row.kind} begin"):
            await once(self, row, *rest, **options)

    async def scoped_act(self: Watcher, action: Any, *rest: Any) -> None:
        with _within(f"reconcile {action.value}"):
            await act(self, action, *rest)

    Run.step = scoped_step  # type: ignore[method-assign]
    Runner._once = scoped_once  # type: ignore[method-assign]
    Watcher._act = scoped_act  # type: ignore[method-assign, assignment]


def _wrap_merchantd() -> None:
    from merchantd.watcher import Watcher

    act = Watcher._act

    async def scoped(self: Watcher, action: Any, *rest: Any) -> None:
        with _within(f"watch {action.value}"):
            await act(self, action, *rest)

    Watcher._act = scoped  # type: ignore[method-assign, assignment]


def wrap(program: str, control: Path) -> None:
    """Put the boundaries in place."""
    boundaries = Boundaries(program, control)
    _wrap_peer(boundaries)
    if program == "customersigner":
        _wrap_signer(boundaries)
        return
    _wrap_database(boundaries)
    _wrap_chain(boundaries)
    if program == "customerd":
        _wrap_customerd()
    else:
        _wrap_merchantd()


def main() -> int:
    """Run the program that the arguments name; returns its exit code."""
    control, program, *arguments = sys.argv[1:]
    module = importlib.import_module(f"{program}.__main__")
    wrap(program, Path(control))
    sys.argv = [program, *arguments]
    code: int = module.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
