"""One network under test: operations driven to their end over crashes, and all books compared."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg

from tests.fault.network import PROCESSES, FaultNetwork
from tests.flow.world import World
from zkchannels.devnet.child import ChildFailed, readable
from zkchannels.devnet.network import ETHER
from zkchannels.devnet.postgres import RESTARTABLE
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.jsonrpc.client import ConnectError
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which what has not settled counts as stuck, on a busy machine."""
LOOK = 0.1
PERIODIC = (" lease commit", "send signer signer.ping", "answer daemon signer.ping")
"""What names of boundaries contain that are passed every few seconds, whatever is at work."""
_AGAIN = frozenset(
    {
        "timed_out",
        "not_ready",
        "safe_mode",
        "database_unavailable",
        "chain_unavailable",
        "merchant_unreachable",
    }
)
"""Refusals of a call that say: nothing happened, ask again."""


class Stuck(AssertionError):
    """Something did not settle by itself."""


class Unfit(AssertionError):
    """The books do not agree, or an outcome is not what it may be."""


class Lab:
    """A network, what is known of its channels, and the checks; a context manager."""

    def __init__(self, directory: Path, *, proxied: bool = False) -> None:
        self.network = FaultNetwork(directory, proxied=proxied, postgres=RESTARTABLE)
        self.world = World(self.network, prefix="lab")
        self._keys = (f"key-{number}" for number in itertools.count(1))
        self._labels = (f"channel-{number}" for number in itertools.count(1))
        self._connections: dict[str, psycopg.Connection[tuple[Any, ...]]] = {}
        self.token_escrow_used = False
        self.deaths = 1
        """How often a process is to die at what is armed."""
        self.away: set[str] = set()
        """Processes that are down because the test wants them to be."""
        self.purse = ""
        """The channel that all payments share."""
        self.spare: list[str] = []
        """Open channels at the first merchant that have paid and wait to be closed."""

    def __enter__(self) -> Self:
        self.network.__enter__()
        # One network serves hundreds of points, and many of them open a channel.
        self.network.chain.faucet(self.network.account, 1000 * ETHER)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.close()
        self.network.__exit__()

    def new_label(self) -> str:
        """Return a label that no channel has had."""
        return next(self._labels)

    def open_purse(self) -> None:
        """Open the channel of all payments, once."""
        if not self.purse:
            self.purse = self.world.establish("1 ETH")
            self.world.pay(self.purse, 1_000_000)

    def have_spare(self) -> None:
        """Make sure that there is an open channel to close."""
        if not self.spare:
            label = self.world.establish("1 ETH")
            self.world.pay(label, 7)
            self.spare.append(label)

    def balances(self, label: str) -> tuple[int, int]:
        """Return both balances in units, once everything runs."""
        return self.drive(lambda: self.world.balances(label))

    def channel(self, label: str) -> bytes:
        """Return a channel's id."""
        return self.drive(
            lambda: bytes.fromhex(self.world.show(label)["channel"].removeprefix("0x"))
        )

    def expire(self, channel: bytes) -> None:
        """Have the merchant ask for the end of a channel."""
        self.network.merchantctl("coffee", "expire", "--no-wait", "0x" + channel.hex())

    def on_chain(self, channel: bytes) -> ChannelRecord:
        """Ask the first merchant's escrow itself about a channel."""
        view = calls.channel(int.from_bytes(channel))
        escrow = self.network.merchants["coffee"].escrow
        return calls.decode_channel(self.network.chain.view(escrow, view))

    def reached(self, channel: bytes, status: ChannelStatus) -> bool | None:
        """Return whether a channel has this status on chain."""
        return True if self.on_chain(channel).status is status else None

    def is_undone(self, channel: bytes) -> bool | None:
        """Return whether the guard's close was disputed and replaced by the customer's."""
        record = self.on_chain(channel)
        own = record.status is ChannelStatus.CLOSING and not record.closed_by_guard
        return True if own and record.guard_struck_off else None

    def let_expire(self, channel: bytes) -> None:
        """Let blocks come until the merchant's expire is on chain; the daemon is down."""
        deadline = time.monotonic() + PATIENCE
        while not self.reached(channel, ChannelStatus.EXPIRING):
            if time.monotonic() > deadline:
                raise Stuck("the merchant does not expire the channel")
            self.revive()
            self.network.chain.mine()

    def pass_half_of_delay(self, channel: bytes) -> bool | None:
        """Move the clock behind half of a running expire; None while there is none.

        A daemon that has compared its signer once need not wait for that to close.
        """
        if self.reached(channel, ChannelStatus.CLOSING):
            return True
        if not self.reached(channel, ChannelStatus.EXPIRING):
            return None
        self.network.chain.increase_time(self.network.delay // 2 + 1)
        return True

    def pass_delay(self, channel: bytes) -> bool | None:
        """Move the clock behind the delay of a posted close; None while there is none."""
        if not self.reached(channel, ChannelStatus.CLOSING):
            return None
        self.network.chain.increase_time(self.network.delay + 1)
        return True

    def is_idle(self, label: str) -> bool | None:
        """Return whether a channel can pay, after all comparisons."""
        if self.world.rpc("getinfo")["missing"]:
            return None
        return True if self.world.show(label)["status"] == "idle" else None

    def is_closed(self, label: str) -> bool | None:
        """Return whether daemon and merchant have both recorded the end."""
        if self.world.show(label)["status"] != "closed":
            return None
        open_ = "select count(*) from channel where channel = %s and outcome is null"
        return None if self.merchant(open_, self.channel(label)) else True

    def positions(self) -> dict[str, int]:
        """Return where the recordings of all processes end now."""
        return {process: self.network.controls[process].position() for process in PROCESSES}

    def has_rested(self, since: Mapping[str, int]) -> bool | None:
        """Return whether everything periodic was passed, or a process has died of it."""
        passed = [
            passage.name
            for process, position in since.items()
            for passage in self.network.controls[process].passages(position)
        ]
        rested = all(any(part in name for name in passed) for part in PERIODIC)
        if rested or self.deaths < 1:
            return True
        self.wait_for_an_end()
        return None

    # -- driving ------------------------------------------------------------------------------

    def revive(self) -> None:
        """Start every program that ended; what ended it is disarmed after as many deaths."""
        for process in PROCESSES:
            service = self.network.service(process)
            if service.running or process in self.away:
                continue
            self.deaths -= 1
            if self.deaths <= 0:
                self.network.controls[process].disarm()
            try:
                service.start()
            except ChildFailed:
                if self.deaths <= 0:
                    raise  # else it died where it was to die again

    def keep_down(self, process: str) -> None:
        """End a process for the time being."""
        self.away.add(process)
        self.network.service(process).kill()

    def bring_back(self, process: str) -> None:
        """Start a process that was kept down; what it is armed for, its start may meet."""
        self.away.discard(process)
        try:
            self.network.service(process).start()
        except ChildFailed:
            if not self.network.controls[process].fired():
                raise

    def drive(self, goal: Callable[[], T | None], *, blocks: bool = False) -> T:
        """Ask for the goal until it is there, restarting what ends, with blocks if they are needed.

        Raises Stuck when it does not come by itself.
        """
        deadline = time.monotonic() + PATIENCE
        trouble: object = "nothing"
        while time.monotonic() < deadline:
            self.revive()
            try:
                if blocks:
                    self._next_block(self.world.rpc("getinfo"))
                found = goal()
            except (ConnectError, ConnectionLost, RequestTimeout, OSError) as error:
                trouble = error
                self.wait_for_an_end()
                continue
            except RpcError as error:
                trouble = error
                if not isinstance(error.data, dict) or error.data.get("kind") not in _AGAIN:
                    raise
                continue
            if found is not None:
                return found
        raise Stuck(f"not settled after {PATIENCE:.0f} s, last: {trouble}")

    def wait_for_an_end(self) -> None:
        """Give a program that is ending the moment to do so."""
        ends = []
        for process in PROCESSES:
            with contextlib.suppress(ProcessLookupError):
                ends.append(os.pidfd_open(self.network.service(process).pid))
        try:
            readable(*ends, seconds=LOOK)
        finally:
            for end in ends:
                os.close(end)

    def operate(self, method: str, /, *, blocks: bool = False, **params: Any) -> Any:
        """Request an operation as a careful client does, and return its outcome.

        The request is repeated with its idempotency key until the daemon has answered it.
        """
        key, operation = next(self._keys), ""

        def outcome() -> Any:
            nonlocal operation
            if not operation:
                asked = self.world.rpc(method, idempotency_key=key, wait=False, **params)
                operation = asked["operation"]
            return self.world.rpc("wait", operation=operation, timeout=LOOK)

        return self.drive(outcome, blocks=blocks)

    def calm(self) -> None:
        """Return once everything runs, nothing is at work and no transaction is open."""
        self.drive(self._is_calm)

    def _is_calm(self) -> bool | None:
        info = self.world.rpc("getinfo")
        if info["mode"] != "ready" or info["missing"]:
            return None
        if info["operations"] or self._open_transactions():
            self._next_block(info)
            return None
        return True

    def _next_block(self, info: Any) -> None:
        """Let another block come, unless the daemon has not seen the last one yet."""
        head = info["chain"]["head"]
        if head is not None and head >= self.network.chain.head():
            self.network.chain.mine()

    def _open_transactions(self) -> int:
        question = "select count(*) from chain_tx where status in ('pending', 'included')"
        return int(self.customer(question)[0][0]) + self.merchant(question)

    def _ask(self, name: str, question: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database of customerd, or of a merchant by its name."""
        if name not in self._connections:
            self._connections[name] = psycopg.connect(self.network.dsn(name), autocommit=True)
        found = self._connections[name].execute(question, values or None)
        return found.fetchall()

    def forget_connections(self) -> None:
        """Ask on new connections: PostgreSQL was started again."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    # -- books --------------------------------------------------------------------------------

    def customer(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the daemon's database."""
        return self._ask("customerd", question, *values)

    def merchant(self, question: str, *values: object) -> int:
        """Ask both merchants' databases for a number; return the sum."""
        return sum(
            int(self._ask(name, question, *values)[0][0] or 0) for name in self.network.merchants
        )

    def check_books(self) -> None:
        """Compare what customer, signer and merchant have written about all channels.

        Raises Unfit. A merchant does not know the balance of a channel, only what it was paid.
        """
        paid = self.customer("select sum(merchant_balance - merchant_deposit) from channel")
        received = self.merchant("select sum(amount) from payment where revoked is not null")
        if int(paid[0][0] or 0) != received:
            raise Unfit(f"paid {paid[0][0]}, the merchants have received {received}")
        ours = {
            row[0]: row[1:]
            for row in self.customer(
                "select channel, authorized, customer_balance, merchant_balance from channel"
                " where authorized is not null"
            )
        }
        theirs = self._signer_records()
        if ours != theirs:
            differing = {k: (v, theirs.get(k)) for k, v in ours.items() if theirs.get(k) != v}
            raise Unfit(f"customerd and signer differ: {differing or theirs.keys() - ours.keys()}")
        try:
            self.drive(self._is_without_alarm)
        except Stuck as stuck:
            raise Unfit(f"alarms remain: {self.world.rpc('getinfo')['alarms']}") from stuck

    def _is_without_alarm(self) -> bool | None:
        """Tell whether the daemon has taken back what it raised meanwhile."""
        return None if self.world.rpc("getinfo")["alarms"] else True

    @property
    def _signer_store(self) -> Path:
        return self.network.signer_directory / "signer.sqlite"

    def copy_signer(self) -> bytes:
        """Return the signer's record as it is now."""
        with (
            contextlib.closing(sqlite3.connect(self._signer_store)) as store,
            contextlib.closing(sqlite3.connect(":memory:")) as copy,
        ):
            store.backup(copy)
            return copy.serialize()

    def put_back_signer(self, copy: bytes) -> None:
        """Set the signer's record back to a copy; it must not be running."""
        for rest in self._signer_store.parent.glob(f"{self._signer_store.name}-*"):
            rest.unlink()
        self._signer_store.write_bytes(copy)

    def _signer_records(self) -> dict[bytes, tuple[int, int, int]]:
        with contextlib.closing(sqlite3.connect(self._signer_store)) as connection:
            rows = connection.execute(
                "SELECT channel, state_index, customer_balance, merchant_balance FROM channel"
                " WHERE state_index IS NOT NULL"
            ).fetchall()
        return {row[0]: tuple(row[1:]) for row in rows}

    def check_open(self, label: str, merchant: str = "coffee") -> None:
        """Compare a channel that is open with the chain; raises Unfit."""
        channel, record = self.drive(
            lambda: (self.world.show(label), self.world.on_chain(label, merchant=merchant))
        )
        if (channel["status"], record.status.name) != ("idle", "OPEN"):
            raise Unfit(f"{label} is {channel['status']}, {record.status.name} on chain")
        held = sum(self.balances(label))
        if record.customer_deposit + record.merchant_deposit != held:
            raise Unfit(f"{label} holds {held}, the chain {record}")

    def check_closed(self, label: str, balances: tuple[int, int], merchant: str = "coffee") -> None:
        """Compare a closed channel: all three sides say that this was paid out; raises Unfit."""
        # What the daemon is to die of may come late.
        record = self.drive(lambda: self.world.on_chain(label, merchant=merchant))
        channel = self.channel(label)
        booked = self._ask(
            merchant,
            "select final_customer_balance, final_merchant_balance from channel where channel = %s",
            channel,
        )
        found = (record.customer_balance, record.merchant_balance)
        if record.status.name != "CLOSED" or not found == balances == booked[0]:
            raise Unfit(f"{label}: expected {balances}, chain {record}, merchant {booked}")
