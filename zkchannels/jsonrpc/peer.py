"""One connection: client and server at once on any stream, with everything it holds bounded.

A line is begun only while its answer can be sent: when the other side stops reading, or has as many
calls in flight as allowed, its next call waits unread in the backlog, and with a full backlog the
socket is no longer read. Answers to own calls pass, so two busy peers do not block each other.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, TypeVar

from msgspec import UNSET, Raw, Struct
from msgspec.json import decode as decode_json
from msgspec.json import encode as encode_json

from zkchannels.jsonrpc.carried import CarriedCall, CarriedConnection
from zkchannels.jsonrpc.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    STOPPING,
    ConnectionLost,
    ProtocolError,
    RequestTimeout,
    RpcError,
)
from zkchannels.jsonrpc.framing import LineReader
from zkchannels.jsonrpc.handlers import Entry, Handlers
from zkchannels.jsonrpc.message import (
    UNREADABLE,
    ErrorBody,
    Identity,
    Malformed,
    Message,
    encode_failure,
    encode_notification,
    encode_request,
    read_batch,
    read_message,
)
from zkchannels.jsonrpc.method import Method

__all__ = ["Call", "Handlers", "Limits", "Log", "Peer", "PeerOptions", "current_call"]

P = TypeVar("P", bound=Struct)
R = TypeVar("R")

Log = Callable[..., object]
"""Called with an event's name and its fields as keywords, as structlog's loggers are."""

WRITE_HIGH = 256 * 1024
WRITE_LOW = 64 * 1024
READ = 256 * 1024
JOIN = 64 * 1024
"""Bytes of answers that are joined before they are written."""
STRAYS = 16
"""Answers that nobody asked for until a connection is broken off: each is a line in the log."""
SLICE = 64
"""Lines of one connection that are taken before other connections have their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection; sizes in bytes, times in seconds."""

    max_line: int = 1 << 20
    """Longest line that is read, and longest request that is sent."""
    max_outstanding: int = 128
    """Calls in flight, for each direction."""
    max_batch: int = 128
    max_buffer: int = 4 << 20
    """Unsent bytes at which a notification ends the connection instead of adding to them."""
    write_stall: float = 30.0
    """How long the other side may take nothing of what waits for it."""
    idle_timeout: float | None = None
    """How long a connection is kept with nothing in flight: since the last line or answer."""


class PeerOptions(TypedDict, total=False):
    """Keywords that everything that makes a Peer passes on to it."""

    limits: Limits
    name: str
    on_closed: Callable[[Peer], object] | None
    notifications: Literal["refuse", "deliver"]
    on_notification: Callable[[str, Raw, Peer], object] | None
    log: Log | None


class _Shared(threading.local):
    """What a thread's connections share.

    A Protocol without a buffer has asyncio allocate 256 KiB for every read, which costs as much as
    the rest of a call whenever the allocator takes it from the kernel.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ))


_shared = _Shared()


class Listener(Protocol):
    """What accepted a connection: it decides whether to keep it, and hears of its end."""

    def admit(self, peer: Peer) -> RpcError | None:
        """Return None to keep the connection, or the error to refuse it with."""

    def forget(self, peer: Peer) -> None:
        """Hear that the connection has ended."""


class _State(enum.Enum):
    OPEN = enum.auto()
    DRAINING = enum.auto()  # nothing more is read; what is in flight is still answered
    CLOSED = enum.auto()


class _Missing(enum.Enum):
    """Why there is no answer."""

    TIMEOUT = enum.auto()
    LOST = enum.auto()


class _Gather:
    """Collects the answers of one batch."""

    __slots__ = ("answers", "missing")

    def __init__(self, missing: int, answers: list[bytes] | None = None) -> None:
        self.answers = answers or []
        self.missing = missing


class Call:
    """One call that a task answers.

    `note` is for its handler: what it writes there before an effect is handed to the process that
    takes the connection over, if one does while the call is not answered; `earlier` is what was
    handed over. A handler that has nothing more to do than to wait says so by `rest`.
    """

    __slots__ = (
        "_began",
        "answered",
        "earlier",
        "entry",
        "gather",
        "identity",
        "moved",
        "note",
        "params",
        "resting",
        "work",
    )

    def __init__(
        self,
        entry: Entry,
        identity: Identity,
        params: Struct,
        work: Awaitable[Any],
        gather: _Gather | None,
        *,
        earlier: CarriedCall | None,
        now: float,
    ) -> None:
        self.entry = entry
        self.identity = identity
        self.params = params
        self.work = work
        self.gather = gather
        self.earlier = earlier
        self.note = b"" if earlier is None else earlier.note
        self.resting = False
        self.moved: asyncio.Event | None = None
        """Set once the call rests, or has ended."""
        self.answered = False
        self._began = now

    def rest(self) -> None:
        """Say that this call only waits from now on."""
        self.resting = True
        if self.moved is not None:
            self.moved.set()

    def age(self, now: float) -> float:
        """Seconds since the call was begun, here or before; `now` is the event loop's time."""
        return now - self._began + (0.0 if self.earlier is None else self.earlier.age)


_call: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """Return the call that the present task answers; None outside of such a task."""
    return _call.get()


class Peer(asyncio.BufferedProtocol):
    """One connection; make it with `serve`, `connect_unix` or `connect_tls`.

    When the other side closes its direction, what is in flight is still answered; over TLS, which
    asyncio cannot close by halves, the connection ends.

    `notifications`: "refuse" never executes one and ends the connection, as no answer could tell
    what became of it; "deliver" hands each to `on_notification(name, params, peer)`.
    `on_closed(peer)` is called once, when the connection has ended. `log` is called with what an
    operator should know: the event's name and fields.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_backlog_size",
        "_calls",
        "_congested",
        "_earlier",
        "_ended",
        "_given_up",
        "_handlers",
        "_heard",
        "_held",
        "_idle",
        "_joined",
        "_joined_size",
        "_last_identity",
        "_listener",
        "_log",
        "_loop",
        "_on_closed",
        "_on_notification",
        "_outstanding",
        "_pending",
        "_reader",
        "_reading",
        "_reason",
        "_scheduled",
        "_slots",
        "_stall",
        "_state",
        "_strays",
        "_transport",
        "_writable",
        "_written",
        "limits",
        "name",
    )

    def __init__(
        self,
        handlers: Handlers | None = None,
        *,
        limits: Limits = Limits(),
        name: str = "",
        on_closed: Callable[[Peer], object] | None = None,
        notifications: Literal["refuse", "deliver"] = "refuse",
        on_notification: Callable[[str, Raw, Peer], object] | None = None,
        log: Log | None = None,
    ) -> None:
        if (notifications == "deliver") != (on_notification is not None):
            raise ValueError('on_notification goes together with notifications="deliver"')
        self.limits = limits
        self.name = name
        self._handlers = handlers
        self._on_closed = on_closed
        self._on_notification = on_notification
        self._log: Log = log or _log
        self._listener: Listener | None = None
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = _State.OPEN
        self._reason = "not connected"
        self._reader = LineReader(limits.max_line)
        self._reading = True
        self._backlog: deque[bytes | None] | None = None
        self._backlog_size = 0
        self._scheduled = False
        self._joined: list[bytes] | None = None
        self._joined_size = 0
        self._written = 0
        self._congested = False
        self._writable: asyncio.Event | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._strays = 0
        self._idle: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._outstanding = 0
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._held = False
        self._given_up: list[Call] | None = None
        self._earlier: CarriedConnection | None = None
        self._pending: dict[int, asyncio.Future[Message | _Missing]] = {}
        self._last_identity = 0
        self._slots: asyncio.Semaphore | None = None
        self._ended: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.name or 'unnamed'} {self._state.name.lower()}>"

    # -- what users call ---------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether no further call can be made, or is accepted, on this connection."""
        return self._state is not _State.OPEN

    @property
    def busy(self) -> bool:
        """Whether a call, in either direction, has no answer yet."""
        return bool(self._outstanding or self._pending or self._backlog)

    @property
    def transport(self) -> asyncio.Transport:
        """The stream under this connection; raises ConnectionLost before it is connected."""
        if self._transport is None:
            raise ConnectionLost(self._reason)
        return self._transport

    async def request(self, method: Method[P, R], params: P, *, timeout: float | None = None) -> R:
        """Call `method` on the other side and return its result.

        Raises RpcError (the other side's error), RequestTimeout, ConnectionLost; ProtocolError (a
        ConnectionLost) when the result is not of the method's type; ValueError when the request is
        longer than `max_line`. A handler that calls back over its own connection holds one of the
        calls allowed in each direction; if both sides did so at their limits, both would wait.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        answer = await self._exchange(loop, method.name, params, deadline)
        if answer is _Missing.TIMEOUT:
            raise RequestTimeout(f"{method.name}: no answer in {timeout} s")
        if answer is _Missing.LOST:
            raise self._lost()
        try:
            if isinstance(answer.error, ErrorBody):
                raise _received_error(answer.error)
            assert isinstance(answer.result, Raw)
            return method.decode_result(answer.result)
        except UNREADABLE as error:
            self._break_off("result_malformed", method=method.name, reason=str(error))
            raise ProtocolError(f"{method.name}: the answer cannot be read") from None

    def notify(self, name: str, params: Any) -> None:
        """Send a notification; raises ConnectionLost when the connection has ended.

        Never waits: see `drain`. A connection that has `max_buffer` bytes unsent is ended.
        """
        transport = self._require_open()
        if transport.get_write_buffer_size() > self.limits.max_buffer:
            self._break_off("reader_too_slow", unsent=transport.get_write_buffer_size())
            raise ConnectionLost(self._reason)
        self._emit(encode_notification(name, params))

    async def drain(self) -> None:
        """Return once little is left unsent; raises ConnectionLost."""
        await self._uncongested()
        self._require_open()

    def close(self) -> None:
        """End the connection once what was written is sent; pending calls fail."""
        if self._transport is None or self._state is _State.CLOSED:
            return
        self._flush()
        self._end("closed on this side")
        self._close_transport()

    def abort(self) -> None:
        """End the connection now; pending calls fail, what is unsent is lost."""
        if self._transport is None:
            return
        self._end("aborted on this side")
        self._transport.abort()

    # -- to another process, and from one ----------------------------------------------------------

    def hold(self) -> None:
        """Read nothing more and begin no further call; those in flight go on."""
        self._held = True
        if self._transport is not None:
            self._regulate()

    async def settled(self) -> None:
        """Return once no call in flight does more than wait."""
        while at_work := [call for call in self._calls if not call.resting]:
            moved = asyncio.Event()
            for call in at_work:
                call.moved = moved
            await moved.wait()

    async def give_up(self) -> None:
        """Cancel the calls in flight of a connection that is held, and do not answer them."""
        self._given_up = []
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def flushed(self) -> None:
        """Return once the system has taken every byte, or the connection has ended."""
        if self._state is not _State.CLOSED:
            self.transport.set_write_buffer_limits(0)
            await self._uncongested()

    def hand_over(self) -> tuple[int, CarriedConnection] | None:
        """End this object, not its connection: a descriptor of that, and how to go on with it.

        The connection was held and given up. None when it has ended, or has bytes unsent.
        """
        if self._state is _State.CLOSED or self.transport.get_write_buffer_size():
            return None
        assert self._loop is not None
        now, gathers = self._loop.time(), dict[_Gather, int]()
        calls = []
        for call in self._given_up or ():
            batch = -1 if call.gather is None else gathers.setdefault(call.gather, len(gathers))
            calls.append(
                CarriedCall(
                    call.identity,
                    call.entry.method.name,
                    encode_json(call.params),
                    call.note,
                    call.resting,
                    call.age(now),
                    batch,
                )
            )
        partial, skipping = self._reader.unfinished
        carried = CarriedConnection(
            partial,
            skipping,
            list(self._backlog or ()),
            calls,
            [gather.answers for gather in gathers],
            self._reason if self._state is _State.DRAINING else "",
        )
        descriptor = os.dup(self.transport.get_extra_info("socket").fileno())
        self._end("handed over")
        self.transport.abort()
        return descriptor, carried

    def go_on(self, earlier: CarriedConnection) -> None:
        """Go on, as soon as it is connected, where another process ended."""
        self._earlier = earlier

    def _take_up(self, earlier: CarriedConnection) -> None:
        self._reader.go_on(earlier.partial, skipping=earlier.skipping)
        gathers = [_Gather(0, answers) for answers in earlier.batches]
        for call in earlier.calls:
            if call.batch >= 0:
                gathers[call.batch].missing += 1
        for call in earlier.calls:
            request = Message("2.0", call.identity, call.method, Raw(call.params))
            self._begin(request, gathers[call.batch] if call.batch >= 0 else None, call)
        if earlier.backlog:
            self._backlog = deque(earlier.backlog)
            self._backlog_size = sum(map(_size, earlier.backlog))
            self._schedule()
            self._regulate()
        if earlier.ending:
            self._stop_reading(earlier.ending)

    async def wait_closed(self) -> None:
        """Return when the connection has ended and its socket is closed."""
        if self._ended is None:
            self._ended = asyncio.Event()
        await self._ended.wait()

    # -- asyncio.BufferedProtocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        refusal = None if self._listener is None else self._listener.admit(self)
        if refusal is not None:
            self._log("connection_refused", peer=self.name, reason=refusal.message)
            self._emit(encode_failure(None, refusal.code, refusal.message, refusal.data))
            self.close()
            return
        if self.limits.idle_timeout is not None:
            self._heard = self._loop.time()
            self._idle = self._loop.call_later(self.limits.idle_timeout, self._check_idle)
        if self._earlier is not None:
            self._take_up(self._earlier)
            self._earlier = None
        if self._held:
            self._regulate()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - given by asyncio
        """Lend the buffer that all connections of a thread are read into, one after the other."""
        return _shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in bytes; called by the event loop."""
        if self._state is not _State.OPEN:
            return
        lines = self._reader.feed(bytes(_shared.buffer[:nbytes]))
        if not lines:
            return
        if self._idle is not None and self._loop is not None:
            self._heard = self._loop.time()
        if len(lines) == 1 and not self._backlog and self._take(lines[0]):
            return
        if self._state is not _State.OPEN:
            return
        if self._backlog is None:
            self._backlog = deque()
        idle = not self._backlog
        self._backlog.extend(lines)
        self._backlog_size += sum(map(_size, lines))
        if idle:
            self._work()
        else:
            self._regulate()

    def eof_received(self) -> bool:
        """Answer what is in flight before closing, where the stream can be half closed."""
        transport = self.transport
        if self._state is _State.OPEN:
            if transport.get_extra_info("sslcontext") is not None or _hung_up(transport):
                self._end("the other side closed")
            else:
                self._stop_reading("the other side closed")
        return self._state is _State.DRAINING

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everyone who waits; called by the event loop."""
        self._end("connection lost" if error is None else f"connection lost: {error}")
        for timer in (self._stall, self._idle):
            if timer is not None:
                timer.cancel()
        for call, task in self._calls.items():
            if call.entry.cancel_on_disconnect:
                task.cancel()
        if self._ended is None:
            self._ended = asyncio.Event()
        self._ended.set()
        if self._listener is not None:
            self._listener.forget(self)
        if self._on_closed is not None:
            self._on_closed(self)

    def pause_writing(self) -> None:
        """Stop beginning calls; called by the event loop."""
        self._congested = True
        self._watch_stall()

    def resume_writing(self) -> None:
        """Begin waiting calls; called by the event loop."""
        self._congested = False
        if self._stall is not None and self._state is not _State.CLOSED:
            self._stall.cancel()
            self._stall = None
        if self._writable is not None:
            self._writable.set()
        self._schedule()

    # -- reading -----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take lines from the backlog, in order, until one has to wait or the turn is over."""
        self._scheduled = False
        backlog = self._backlog
        if not backlog or self._held or self._state is _State.CLOSED:
            return
        self._joined = []
        try:
            for _ in range(SLICE):
                if not self._take(backlog[0]):
                    break
                if not backlog:
                    break
                self._backlog_size -= _size(backlog.popleft())
                if not backlog:
                    break
            else:
                self._schedule()
        finally:
            self._flush()
            self._joined = None
        self._regulate()
        self._finish_if_drained()

    def _schedule(self) -> None:
        if self._backlog and not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._work)

    def _regulate(self) -> None:
        """Read the socket unless the backlog is full."""
        reading = self._backlog_size <= self.limits.max_line and not self._held
        if reading is self._reading or self._state is not _State.OPEN:
            return
        self._reading = reading
        if reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _take(self, line: bytes | None) -> bool:
        """Process one line; return False when it has to wait."""
        if line is None:
            text = f"a line has at most {self.limits.max_line} bytes"
            return self._take_message(Malformed(INVALID_REQUEST, text, is_answer=None))
        line = line.strip(b" \t\r")
        if not line:
            return True
        if line[0] != ord("["):
            return self._take_message(read_message(line))
        batch = read_batch(line, max_batch=self.limits.max_batch)
        if isinstance(batch, Malformed):
            return self._take_message(batch)
        return self._take_batch(batch)

    def _take_message(self, message: Message | Malformed) -> bool:
        if self._blocked() and _needs_answer(message) and not self._ends_connection(message):
            return False
        self._dispatch(message, None)
        return True

    def _take_batch(self, batch: list[Message | Malformed]) -> bool:
        for message in batch:
            if self._ends_connection(message):  # found before anything of the batch is executed
                self._dispatch(message, None)
                return True
        gather = _Gather(sum(map(_needs_answer, batch)))
        if gather.missing and self._blocked():
            return False
        for message in batch:
            self._dispatch(message, gather)
        return True

    def _dispatch(self, message: Message | Malformed, gather: _Gather | None) -> None:
        if isinstance(message, Malformed):
            if self._ends_connection(message):
                self._break_off("answer_malformed", reason=message.text)
            else:
                self._answer(encode_failure(message.id, message.code, message.text), gather)
        elif message.method is UNSET:
            self._take_answer(message)
        elif message.id is UNSET:
            self._take_notification(message)
        else:
            self._begin(message, gather)

    def _blocked(self) -> bool:
        return self._congested or self._outstanding >= self.limits.max_outstanding

    def _ends_connection(self, message: Message | Malformed) -> bool:
        if isinstance(message, Malformed):
            # What may be an answer is one when calls are pending: nobody is to wait in vain.
            return bool(self._pending) if message.is_answer is None else message.is_answer
        is_notification = message.method is not UNSET and message.id is UNSET
        return is_notification and self._on_notification is None

    def _take_answer(self, answer: Message) -> None:
        identity = answer.id
        if isinstance(identity, int):
            future = self._pending.get(identity)
            if future is not None:
                if not future.done():
                    future.set_result(answer)
                return
            if 0 < identity <= self._last_identity:
                return  # late: its caller has given up
        self._strays += 1
        if self._strays > STRAYS:
            self._break_off("peer_babbles", unasked=self._strays)
            return
        error = answer.error.message[:200] if isinstance(answer.error, ErrorBody) else None
        self._log("answer_unknown", peer=self.name, id=str(identity)[:40], error=error)

    def _take_notification(self, message: Message) -> None:
        method, params = str(message.method), message.params
        if self._on_notification is None:
            self._log("notification_refused", peer=self.name, method=method[:100])
            self._backlog_size = 0
            if self._backlog:
                self._backlog.clear()
            self._stop_reading("a notification was refused")
            return
        try:
            self._on_notification(method, params if isinstance(params, Raw) else _NOTHING, self)
        except Exception as error:
            self._log("notification_failed", peer=self.name, method=method[:100], exc_info=error)

    # -- answering ---------------------------------------------------------------------------------

    def _begin(
        self, request: Message, gather: _Gather | None, earlier: CarriedCall | None = None
    ) -> None:
        """Answer a request, now or by a task; `earlier`: what another process left of it."""
        name, identity = str(request.method), request.id
        assert identity is not UNSET
        handlers = self._handlers
        entry = None if handlers is None else handlers.find(name)
        if handlers is None or entry is None:
            text = f"method not found: {name[:100]}"
            self._answer(encode_failure(identity, METHOD_NOT_FOUND, text), gather)
            return
        try:
            params = entry.method.decode_params(request.params)
        except UNREADABLE as error:
            text = f"invalid params: {error}"
            self._answer(encode_failure(identity, INVALID_PARAMS, text), gather)
            return
        try:
            result = entry.handler(params, self)
            if isinstance(result, Awaitable):
                assert self._loop is not None
                now = self._loop.time()
                call = Call(entry, identity, params, result, gather, earlier=earlier, now=now)
                self._start(handlers, call)
                return
            answer = handlers.encode(entry, identity, result)
        except Exception as error:
            answer = self._failure(entry, identity, error)
        self._answer(answer, gather)

    def _start(self, handlers: Handlers, call: Call) -> None:
        if handlers.task_group is None:
            raise TypeError("a handler that returns an awaitable needs a task group")
        attending = self._attend(handlers, call)
        try:
            task = handlers.task_group.create_task(attending, name=call.entry.method.name)
        except RuntimeError:  # the group is ending
            attending.close()
            _discard(call.work)
            raise RpcError(STOPPING, "stopping") from None
        self._outstanding += 1
        self._calls[call] = task
        task.add_done_callback(lambda _: self._done(call))

    async def _attend(self, handlers: Handlers, call: Call) -> None:
        _call.set(call)
        try:
            result = await call.work
            await self._uncongested()
            answer = handlers.encode(call.entry, call.identity, result)
        except Exception as error:
            answer = self._failure(call.entry, call.identity, error)
        call.answered = True
        self._answer(answer, call.gather)

    def _done(self, call: Call) -> None:
        self._outstanding -= 1
        if self._idle is not None and self._loop is not None:
            self._heard = self._loop.time()
        del self._calls[call]
        if call.moved is not None:
            call.moved.set()
        if not call.answered:
            _discard(call.work)
            if self._given_up is not None:
                self._given_up.append(call)
                return
            self._answer(encode_failure(call.identity, STOPPING, "cancelled"), call.gather)
        self._schedule()
        self._finish_if_drained()

    def _failure(self, entry: Entry, identity: Identity, error: Exception) -> bytes:
        if isinstance(error, RpcError):
            try:
                return encode_failure(identity, error.code, error.message, error.data)
            except (TypeError, ValueError) as unfit:
                error = unfit
        self._log("handler_failed", peer=self.name, method=entry.method.name, exc_info=error)
        return encode_failure(identity, INTERNAL_ERROR, type(error).__name__)

    def _answer(self, answer: bytes, gather: _Gather | None) -> None:
        if gather is None:
            self._emit(answer)
            return
        gather.answers.append(answer)
        gather.missing -= 1
        if not gather.missing:
            self._emit(b"[" + b",".join(gather.answers) + b"]")

    # -- calling -----------------------------------------------------------------------------------

    async def _exchange(
        self, loop: asyncio.AbstractEventLoop, name: str, params: Any, deadline: float | None
    ) -> Message | _Missing:
        self._require_open()
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.limits.max_outstanding)
        slots = self._slots
        if not slots.locked():
            await slots.acquire()
        elif not await _in_time(slots.acquire(), deadline):
            return _Missing.TIMEOUT
        try:
            if self._congested and not await _in_time(self._uncongested(), deadline):
                return _Missing.TIMEOUT
            return await self._send(loop, name, params, deadline)
        finally:
            slots.release()

    async def _send(
        self, loop: asyncio.AbstractEventLoop, name: str, params: Any, deadline: float | None
    ) -> Message | _Missing:
        self._require_open()
        identity = self._last_identity + 1
        request = encode_request(identity, name, params)
        if len(request) > self.limits.max_line:
            raise ValueError(f"{name}: a request has at most {self.limits.max_line} bytes")
        self._last_identity = identity
        future: asyncio.Future[Message | _Missing] = loop.create_future()
        # One timer costs half of what asyncio.timeout does, which is a tenth of a call.
        timer = None if deadline is None else loop.call_at(deadline, _expire, future)
        self._pending[identity] = future
        try:
            self._emit(request)
            return await future
        finally:
            del self._pending[identity]
            if timer is not None:
                timer.cancel()

    def _require_open(self) -> asyncio.Transport:
        if self._transport is None or self._state is not _State.OPEN:
            raise self._lost()
        return self._transport

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"{self.name}: {self._reason}" if self.name else self._reason)

    # -- writing -----------------------------------------------------------------------------------

    def _emit(self, text: bytes) -> None:
        """Write one line, joined with others while the backlog is worked on."""
        if self._state is _State.CLOSED or self._transport is None:
            return
        if self._joined is None:
            self._written += len(text) + 1
            self._transport.write(text + b"\n")
            return
        self._joined.append(text)
        self._joined_size += len(text) + 1
        if self._joined_size >= JOIN:
            self._flush()

    def _flush(self) -> None:
        if not self._joined or self._transport is None or self._state is _State.CLOSED:
            return
        lines, self._joined = self._joined, []
        lines.append(b"")
        self._written += self._joined_size
        self._joined_size = 0
        self._transport.write(b"\n".join(lines))

    async def _uncongested(self) -> None:
        while self._congested:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def _taken(self) -> int:
        """Return how many bytes the system has taken for the other side."""
        return self._written - self.transport.get_write_buffer_size()

    def _watch_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        assert self._loop is not None
        self._stall = self._loop.call_later(
            self.limits.write_stall, self._check_stall, self._taken()
        )

    def _check_stall(self, taken_before: int) -> None:
        if self._taken() > taken_before:
            self._watch_stall()
            return
        self._log("peer_stalled", peer=self.name, unsent=self.transport.get_write_buffer_size())
        self._end("the other side does not read")
        self.transport.abort()

    # -- ending ------------------------------------------------------------------------------------

    def _stop_reading(self, reason: str) -> None:
        """Accept nothing more; answer what is in flight, then close."""
        self._reason = reason
        self._state = _State.DRAINING
        self.transport.pause_reading()
        self._finish_if_drained()

    def _finish_if_drained(self) -> None:
        if self._state is not _State.DRAINING or self._backlog or self._given_up:
            return
        self._fail_pending()
        if not self._outstanding:
            self._flush()
            self._end(self._reason)
            self._close_transport()

    def _close_transport(self) -> None:
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_stall()

    def _break_off(self, event: str, **fields: object) -> None:
        """End the connection with a peer that breaks the rules."""
        self._log(event, peer=self.name, **fields)
        self._end(event.replace("_", " "))
        self.transport.abort()

    def _end(self, reason: str) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._reason = reason
        self._backlog_size = 0
        if self._backlog:
            self._backlog.clear()
        self._fail_pending()
        self._congested = False
        if self._writable is not None:
            self._writable.set()

    def _fail_pending(self) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_result(_Missing.LOST)

    def _check_idle(self) -> None:
        assert self._loop is not None
        assert self.limits.idle_timeout is not None
        left = self._heard + self.limits.idle_timeout - self._loop.time()
        if self.busy:
            left = self.limits.idle_timeout
        if left > 0:
            self._idle = self._loop.call_later(left, self._check_idle)
            return
        self.close()


_NOTHING = Raw(b"{}")
_logger = logging.getLogger("zkchannels.jsonrpc")


def _log(event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
    told = {"event": event, "fields": fields}
    _logger.warning("%s %s", event, fields, exc_info=exc_info, extra=told)


async def _in_time(waiting: Awaitable[object], deadline: float | None) -> bool:
    try:
        async with asyncio.timeout_at(deadline):
            await waiting
    except TimeoutError:
        return False
    return True


def _expire(future: asyncio.Future[Message | _Missing]) -> None:
    if not future.done():
        future.set_result(_Missing.TIMEOUT)


def _size(line: bytes | None) -> int:
    return 1 if line is None else len(line) + 1


def _needs_answer(message: Message | Malformed) -> bool:
    if isinstance(message, Malformed):
        return not message.is_answer
    return message.method is not UNSET and message.id is not UNSET


def _discard(work: Awaitable[Any]) -> None:
    """Close a coroutine that was never begun; one that ended does not mind."""
    if isinstance(work, Coroutine):
        work.close()


def _received_error(body: ErrorBody) -> RpcError:
    data = decode_json(body.data) if isinstance(body.data, Raw) else None
    return RpcError(body.code, body.message, data)


def _hung_up(transport: asyncio.Transport) -> bool:
    """Return whether the other side closed altogether, not only its direction.

    The system knows for Unix sockets; over TCP both look the same until something is written.
    """
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return any(flags & select.POLLHUP for _, flags in poll.poll(0))
