"""What adversary tests do: give the merchant orders, count who was paid what, look for harm."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.contract.world import bytecode
from tests.flow.world import World
from tests.nursery import ForkedNetwork
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.service import Service
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.jsonrpc.errors import RpcError

ROOT = Path(__file__).parents[2]
WITHIN = 60.0
"""Seconds after which a wait of a test has failed; a busy machine takes a few."""


class ArenaNetwork(ForkedNetwork):
    """A devnet whose first merchant misbehaves on order; the second one is honest."""

    def new_service(self, name: str, command: list[str], *, log: Path) -> Service:
        """The first merchant is the adversary, and the daemon less patient than an owner is."""
        environment = {}
        if name == f"merchantd/{self._merchant_names[0]}":
            adversary = ["-m", "tests.adversary.merchant", "--orders", self.orders]
            command = [sys.executable, *adversary, *command[3:]]
            environment = {"PYTHONPATH": str(ROOT)}
        elif name == "customerd":
            for what, seconds in (("MESSAGE_TIMEOUT", 2), ("APPROVAL_TIMEOUT", 3), ("PATIENCE", 2)):
                environment[f"CUSTOMERD_MERCHANT_{what}"] = f"{seconds}s"
        return Service(name, command, log=log, environment=environment)

    def start_chain(self) -> None:
        """Start a chain whose test token knows no permits, and answers nothing, like old ones."""
        super().start_chain()
        self.token = self.chain.deploy(DEV_KEYS[0], bytecode("SilentToken"))

    @property
    def asset(self) -> str:
        """What the daemon calls a token that has no name."""
        assert self.token is not None
        return "T" + self.token.hex()[:8].upper()

    @property
    def orders(self) -> str:
        """Where the adversary takes its orders."""
        return str(self.directory / "orders.sock")


class Arena(World):
    """The shared world of adversary tests."""

    network: ArenaNetwork

    def __init__(self, network: ArenaNetwork, *, prefix: str) -> None:
        super().__init__(network, prefix=prefix)
        self._other: str | None = None

    def order(self, **by_method: Any) -> None:
        """Replace the adversary's orders; `pay_prove` stands for the method `pay.prove`."""
        named = {name.replace("_", ".", 1): order for name, order in by_method.items()}
        self._tell({"orders": named})

    def reached(self, method: str, count: int = 1) -> None:
        """Return once the adversary was asked this so often since its orders."""
        self._tell({"reached": method, "count": count})

    def _tell(self, message: dict[str, Any]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(WITHIN)
            link.connect(self.network.orders)
            link.sendall(json.dumps(message).encode() + b"\n")
            assert link.makefile("rb").readline() == b"{}\n", "the adversary is gone"

    def channels(self, count: int, deposit: str = "1 ETH") -> list[str]:
        """Open channels with the adversary side by side; return their labels."""
        labels = [next(self._labels) for _ in range(count)]
        address = self.network.merchants["coffee"].address
        begun = [
            self.begin("establish", merchant=address, deposit=deposit, label=label)
            for label in labels
        ]
        for operation in begun:
            assert self.outcome(operation)["status"] == "done"
        return labels

    def begin(self, method: str, **params: Any) -> str:
        """Queue an operation; return its number."""
        return str(self.rpc(method, wait=False, **params)["operation"])

    def outcome(self, operation: str, *, within: float = WITHIN) -> Any:
        """Let blocks come until an operation has its outcome."""
        deadline = time.monotonic() + within
        while True:
            found = self.settle_once(operation)
            if found is not None:
                return found
            assert time.monotonic() < deadline, self.rpc("operation", operation=operation)

    def settle_once(self, operation: str) -> Any:
        """Let one block come; return the outcome if there is one."""
        self.network.chain.mine()
        found = self.rpc("operation", operation=operation)
        if found["status"] in ("done", "refused", "cancelled"):
            return found
        self.rpc_or_timeout(operation)
        return None

    def rpc_or_timeout(self, operation: str) -> None:
        """Wait for an operation a moment."""
        try:
            self.network.rpc("wait", operation=operation, timeout=0.2)
        except RpcError as error:
            assert isinstance(error.data, dict)
            assert error.data["kind"] == "timed_out", error

    def warned(self, kind: str, label: str | None = None) -> Any:
        """Return the daemon's warning of a kind, about a channel, once it is there."""

        deadline = time.monotonic() + WITHIN

        def found(info: Any) -> list[Any]:
            assert time.monotonic() < deadline, (kind, info["alarms"])
            return [
                warning
                for warning in info["alarms"]
                if warning["kind"] == kind and label in (None, warning["label"])
            ]

        return found(self.network.wait_info(found))[0]

    def on_chain_status(self, numbers: list[int], status: ChannelStatus) -> None:
        """Let blocks come until the contract shows all channels in a status, daemon or not."""
        escrow = self.network.merchants["coffee"].escrow
        deadline = time.monotonic() + WITHIN
        while {
            calls.decode_channel(self.network.chain.view(escrow, calls.channel(number))).status
            for number in numbers
        } != {status}:
            assert time.monotonic() < deadline
            self.network.chain.mine()

    def closed(self, label: str, *, merchant: str = "coffee") -> ChannelRecord:
        """Let the delay pass until a channel has ended; return who was paid what."""
        self.until(label, chain_status="closing")
        self.network.chain.increase_time(self.network.delay + 1)
        self.until(label, status="closed")
        record = self.on_chain(label, merchant=merchant)
        assert record.status is ChannelStatus.CLOSED
        return record

    def forced(self, label: str) -> ChannelRecord:
        """Close by force, and return who was paid what in the end."""
        operation = self.begin("close", label=label, force=True)
        assert self.outcome(operation)["status"] == "done"
        return self.closed(label)

    def others_pay(self) -> None:
        """A channel with the honest merchant pays as before."""
        if self._other is None:
            self._other = self.establish(f"10 {self.network.asset}", merchant="bakery")
        before = self.balances(self._other)
        self.pay(self._other, 1)
        assert self.balances(self._other) == (before[0] - 1, before[1] + 1)

    def unhurt(self) -> None:
        """The owner RPC answers, the signer is attached, the chain is followed."""
        info = self.rpc("getinfo")
        assert info["mode"] == "ready", info
        assert info["chain"]["following"], info


def plain(value: Any) -> str:
    """Return everything that a result says as text."""
    return msgspec.json.encode(value).decode()
