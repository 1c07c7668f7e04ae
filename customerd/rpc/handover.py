"""The owner's connections over a restart: handed to systemd by one daemon, taken up by the next.

The manager keeps the descriptors of the connections and, in a sealed memory file, how to go on with
each: what was read and not begun, which calls have no answer yet, where its subscriptions are. No
call is begun by both daemons: the old one ends its tasks before it writes them down, with what each
had noted about its effect.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Iterable

import msgspec

from customerd.rpc.subscriptions import Subscriptions
from zkchannels.jsonrpc.carried import CarriedCall, CarriedConnection
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import Server
from zkchannels.service.logging import get_logger
from zkchannels.service.notify import Notifier

log = get_logger("customerd.handover")

CONNECTION = "customerd-connection"
STATE = "customerd-state"
"""Names in the manager's store."""
FORMAT = b"customerd connections 1\n"
"""How a state begins. Another number is another format, which is not read."""
MOST_CONNECTIONS = 1000
LARGEST = 32 << 20
"""Bytes of the state of all connections; those beyond are closed."""
SETTLES_WITHIN = 2.0
"""Seconds for calls that do more than wait to be answered by the daemon that began them."""
READS_WITHIN = 1.0
"""Seconds for a client to take what was written to it."""


class _Subscription(msgspec.Struct, frozen=True):
    topics: list[str]
    after: int


class _Connection(msgspec.Struct, frozen=True):
    inode: int
    """Of the socket: it tells the descriptors apart, whatever order they come back in."""
    carried: CarriedConnection
    subscriptions: list[_Subscription]


class State(msgspec.Struct, frozen=True):
    """What one daemon leaves to the next."""

    written: float
    """Unix time."""
    ready: bool
    connections: list[_Connection]


class Unreadable(ValueError):
    """What was stored is no state of this format."""


class Handover:
    """Gives connections away at the end of a daemon, and takes them up at its start."""

    def __init__(self, notifier: Notifier, subscriptions: Subscriptions) -> None:
        self._notifier = notifier
        self._subscriptions = subscriptions
        self._peers: list[Peer] = []
        self._state = State(0.0, False, [])
        self._descriptors: dict[int, int] = {}

    # -- taking up ----------------------------------------------------------------------------

    def receive(self, stored: Iterable[tuple[str, int]]) -> bool:
        """Take what an earlier daemon stored; tell whether that daemon was ready.

        From now on it is this process' alone: nothing is taken up twice, whatever becomes of it.
        """
        states: list[int] = []
        for name, descriptor in stored:
            if name == STATE:
                states.append(descriptor)
            elif name == CONNECTION:
                self._descriptors[os.fstat(descriptor).st_ino] = descriptor
            else:
                os.close(descriptor)
        if not states and not self._descriptors:
            return False
        self._notifier.forget(CONNECTION)
        self._notifier.forget(STATE)
        try:
            self._state = read_state(states)
        except Unreadable as error:
            log.error("connections_dropped", count=len(self._descriptors), reason=str(error))
        finally:
            for descriptor in states:
                os.close(descriptor)
        return self._state.ready

    async def take_up(self, server: Server) -> None:
        """Go on with the connections that were received; what has no state is closed."""
        between = max(0.0, time.time() - self._state.written)
        taken = 0
        for each in self._state.connections:
            descriptor = self._descriptors.pop(each.inode, None)
            if descriptor is None:
                continue  # the client has left meanwhile
            connected = socket.socket(fileno=descriptor)
            connected.setblocking(False)
            peer = await server.adopt(connected, _older(each.carried, between))
            for subscription in each.subscriptions:
                self._subscriptions.go_on(peer, subscription.topics, subscription.after)
            taken += 1
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        if taken or self._descriptors:
            log.info("connections_taken_up", count=taken, closed=len(self._descriptors))
        self._descriptors.clear()

    # -- giving away --------------------------------------------------------------------------

    async def hold(self, server: Server) -> bool:
        """Begin nothing more on any connection, if the manager keeps them; tell whether it does.

        Returns once every call that does more than wait is answered, or had its time.
        """
        if not await self._notifier.keeps():
            return False
        await server.hold()
        self._peers = list(server.connections)[:MOST_CONNECTIONS]
        try:
            async with asyncio.timeout(SETTLES_WITHIN):
                for peer in self._peers:
                    await peer.settled()
        except TimeoutError:
            log.warning("calls_interrupted", message="the next daemon goes on with them")
        return True

    async def give(self, *, ready: bool) -> None:
        """Hand the connections that are held to the manager."""
        cursors = await self._subscriptions.end()
        await asyncio.gather(*(peer.give_up() for peer in self._peers))
        try:
            async with asyncio.timeout(READS_WITHIN):
                await asyncio.gather(*(peer.flushed() for peer in self._peers))
        except TimeoutError:
            pass  # those that did not read are not handed over
        descriptors, connections, size = [], [], 0
        for peer in self._peers:
            handed = peer.hand_over()
            if handed is None:
                peer.abort()
                continue
            descriptor, carried = handed
            subscriptions = [_Subscription(*each) for each in cursors.get(peer, ())]
            each = _Connection(os.fstat(descriptor).st_ino, carried, subscriptions)
            size += len(msgspec.msgpack.encode(each))
            if size > LARGEST:
                os.close(descriptor)
                continue
            descriptors.append(descriptor)
            connections.append(each)
        await self._store(State(time.time(), ready, connections), descriptors)
        lost = len(self._peers) - len(connections)
        log.info("connections_handed_over", count=len(connections), closed=lost)

    async def _store(self, state: State, descriptors: list[int]) -> None:
        """Hand over the state first: a connection without one could only be closed."""
        written = _memory_file(FORMAT + msgspec.msgpack.encode(state))
        try:
            self._notifier.store(STATE, [written])
            self._notifier.store(CONNECTION, descriptors)
            await self._notifier.taken()
        finally:
            for descriptor in (written, *descriptors):
                os.close(descriptor)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create(STATE, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def read_state(states: list[int]) -> State:
    """Read the one state; raises Unreadable."""
    if len(states) != 1:
        raise Unreadable(f"{len(states)} states were stored")
    size = os.fstat(states[0]).st_size
    if size > 2 * LARGEST:
        raise Unreadable(f"the state has {size} bytes")
    try:
        content = os.pread(states[0], size, 0)
    except OSError as error:
        raise Unreadable(f"the state cannot be read: {error.strerror}") from None
    if not content.startswith(FORMAT):
        raise Unreadable("the state is of another version")
    try:
        state = msgspec.msgpack.decode(content[len(FORMAT) :], type=State)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"the state is malformed: {error}") from None
    for each in state.connections:
        if any(call.batch >= len(each.carried.batches) for call in each.carried.calls):
            raise Unreadable("the state is malformed: a call is of no batch")
    return state


def _older(carried: CarriedConnection, seconds: float) -> CarriedConnection:
    """Return the connection with the time that its calls waited for the next daemon."""

    def aged(call: CarriedCall) -> CarriedCall:
        return msgspec.structs.replace(call, age=call.age + seconds)

    return msgspec.structs.replace(carried, calls=[aged(call) for call in carried.calls])
