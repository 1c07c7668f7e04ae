"""A whole network with two fault proxies between the daemon and the chain, and what tests ask."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.chainfaults.proxy import HONEST, Fault, FaultProxy
from tests.flow.world import World
from tests.nursery import ForkedNetwork
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.network import ETHER
from zkchannels.devnet.postgres import Cluster
from zkchannels.escrow.ethereum import checksum
from zkchannels.escrow.record import ChannelStatus

FINALITY = 10
GWEI = 10**9
MOMENT = 2.0
PATIENCE = 120.0  # seconds; far more than anything here takes


class FaultyNetwork(ForkedNetwork):
    """One merchant, a chain that is final ten blocks deep, two nodes in front of it.

    The merchant and the tests ask the chain itself.
    """

    def __init__(self, directory: Path, *, postgres: Mapping[str, str], cluster: Cluster) -> None:
        super().__init__(
            directory,
            postgres=postgres,
            cluster=cluster,
            merchants=("coffee",),
            finality=FINALITY,
        )
        self.proxies: list[FaultProxy] = []

    @property
    def anvil(self) -> Anvil:
        """The chain, with all that anvil can do."""
        assert isinstance(self.chain, Anvil)
        return self.chain

    def start_chain(self) -> None:
        """Start the chain and the two nodes in front of it."""
        super().start_chain()
        self.anvil.mine(2 * FINALITY)
        self.proxies = [self._stack.enter_context(FaultProxy(self.chain)) for _ in range(2)]

    def _wait(self, method: str, params: dict[str, Any], holds: Callable[[Any], object]) -> Any:
        """As everywhere, but not without end."""
        until = time.monotonic() + PATIENCE

        def in_time(found: Any) -> object:
            held = holds(found)
            assert held or time.monotonic() < until, found
            return held

        return super()._wait(method, params, in_time)

    def nodes(self) -> list[str]:
        """The two nodes that may misbehave."""
        return [proxy.url for proxy in self.proxies]

    def faults(self, first: Fault, second: Fault = HONEST) -> None:
        """Let the nodes misbehave from now on; they stop pushing heads through open WebSockets."""
        for proxy, fault in zip(self.proxies, (first, second), strict=True):
            proxy.fault = fault
            if fault is not HONEST:
                proxy.cut_sockets()

    def mend(self) -> None:
        """Make both nodes honest and the chain cheap and quick again."""
        self.faults(HONEST, HONEST)
        self.anvil.set_automine(True)


class FaultyWorld(World):
    """A faulty network and the channels of one test."""

    network: FaultyNetwork

    @property
    def anvil(self) -> Anvil:
        """The chain."""
        return self.network.anvil

    def until(self, label: str, **wanted: str) -> Any:
        """Let blocks come until a channel shows these values, but not without end."""
        until = time.monotonic() + PATIENCE
        while True:
            channel = self.show(label)
            if all(channel[name] == value for name, value in wanted.items()):
                return channel
            assert time.monotonic() < until, (channel, self.on_chain(label))
            self.block()

    def block(self) -> None:
        """Mine a block and give the daemon a moment to read it: chains have seconds for that."""
        self.anvil.mine()
        head, until = self.anvil.head(), time.monotonic() + MOMENT
        while (self.rpc("getinfo")["chain"]["head"] or 0) < head and time.monotonic() < until:
            continue

    def alarms(self, label: str | None = None) -> set[str]:
        """Return the kinds of the alarms that hold, of one channel or of all."""
        found = self.rpc("getinfo")["alarms"]
        return {alarm["kind"] for alarm in found if label in (None, alarm["label"])}

    def until_alarm(self, kind: str, label: str | None = None) -> dict[str, Any]:
        """Wait for an alarm, and return it."""

        def mine(info: Any) -> list[dict[str, Any]]:
            return [
                alarm
                for alarm in info["alarms"]
                if alarm["kind"] == kind and alarm["label"] == label
            ]

        return mine(self.network.wait_info(mine))[0]

    def until_no_alarm(self, *kinds: str) -> None:
        """Wait until none of the alarms holds."""
        self.network.wait_info(
            lambda info: not {alarm["kind"] for alarm in info["alarms"]} & set(kinds)
        )

    def alarm_events(self, label: str | None, kinds: Iterable[str]) -> list[tuple[str, str]]:
        """Return (raised or cleared, kind) of the events about a channel, oldest first."""
        events = self.rpc("history", limit=1000)["events"]
        return [
            (event["kind"], event["details"]["alarm"])
            for event in reversed(events)
            if event["topic"] == "alarm"
            and event["label"] == label
            and event["details"]["alarm"] in kinds
        ]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of the daemon's log about an event with these fields."""
        found = []
        for line in (self.network.directory / "customerd.log").read_text().splitlines():
            if not line.startswith("{"):
                continue
            entry = json.loads(line)
            if entry.get("event") == event and fields.items() <= entry.items():
                found.append(entry)
        return found

    def sent(self, account: bytes) -> int:
        """Return how many transactions of an account are on the chain."""
        return int(self.anvil.call("eth_getTransactionCount", checksum(account), "latest"), 16)

    def expire(self, label: str) -> None:
        """Have the merchant demand a close."""
        self.network.merchantctl("coffee", "expire", "--no-wait", self.show(label)["channel"])

    def until_on_chain(self, label: str, *statuses: str) -> None:
        """Let blocks come until the contract itself shows one of the statuses."""
        until = time.monotonic() + PATIENCE
        while (record := self.on_chain(label)).status.name.lower() not in statuses:
            assert time.monotonic() < until, record
            self.block()

    def until_ended(self, label: str) -> None:
        """Let blocks and the delays of posted closes pass until the daemon has recorded the end."""
        until = time.monotonic() + PATIENCE
        while self.show(label)["status"] != "closed":
            record = self.on_chain(label)
            assert time.monotonic() < until, (self.show(label), record)
            if record.status is ChannelStatus.CLOSING and self.anvil.time() <= record.deadline:
                self.pass_time(record.deadline + 1 - self.anvil.time())
            self.block()

    def pass_time(self, seconds: int) -> None:
        """Let the chain's time pass, and show it in a block."""
        self.anvil.increase_time(seconds)

    def reorganise(self, depth: int, how: str) -> None:
        """Replace the newest blocks: their transactions are dropped, mixed up, or taken again."""
        head = self.anvil.head()
        raws = [
            self.anvil.call("eth_getRawTransactionByHash", hash_)
            for number in range(head - depth + 1, head + 1)
            for hash_ in self.anvil.call("eth_getBlockByNumber", hex(number), False)["transactions"]
        ]
        match how:
            case "drop":
                again: list[tuple[str, int]] = []
            case "late":  # in the newest of the new blocks
                again = [(raw, depth - 1) for raw in raws]
            case _:  # in the oldest of them, the last first
                again = [(raw, 0) for raw in reversed(raws)]
        self.anvil.reorg(depth, again)
        self.anvil.mine()

    def poor_guard(self) -> None:
        """Take all coin from the guard."""
        self.anvil.set_balance(self.network.guard, 0)

    def rich_guard(self) -> None:
        """Give it back."""
        self.anvil.set_balance(self.network.guard, 100 * ETHER)
