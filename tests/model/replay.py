"""Steps of a trace, carried out with real processes on a real chain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fault.control import When
from tests.fault.lab import PATIENCE, Lab
from zkchannels.devnet.child import readable
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.escrow.record import ChannelRecord, ChannelStatus

DEPOSIT = 1_000_000_000
AMOUNT = 100


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a replay; what is asked while the daemon is away needs no daemon."""

    lab: Lab
    label: str
    identity: int

    @classmethod
    def opened(cls, lab: Lab) -> Channel:
        """Establish a channel."""
        label = lab.world.establish("1 ETH")
        return cls(lab, label, int(lab.world.show(label)["channel"], 16))

    @property
    def escrow(self) -> bytes:
        """The escrow contract."""
        return self.lab.network.merchants["coffee"].escrow

    def on_chain(self) -> ChannelRecord:
        """What the contract says."""
        answer = self.lab.network.chain.view(self.escrow, calls.channel(self.identity))
        return calls.decode_channel(answer)

    def until_closing(self, *, by_guard: bool, customer: int) -> None:
        """Let blocks come until a close with this balance is posted by this side."""

        def posted() -> bool | None:
            record = self.on_chain()
            if record.status is not ChannelStatus.CLOSING or record.closed_by_guard != by_guard:
                return None
            return True if record.customer_balance == customer else None

        self.lab.drive(posted, blocks=True)

    def end(self, balances: tuple[int, int]) -> None:
        """Let the delay pass, and check what is paid out on all sides."""
        for process in tuple(self.lab.away):
            self.lab.bring_back(process)
        self.lab.network.wait_mode("ready")
        self.lab.network.chain.increase_time(self.lab.network.delay + 1)
        self.lab.drive(lambda: self.lab.is_closed(self.label), blocks=True)
        self.lab.check_closed(self.label, balances)

    def die_while(self, process: str, boundary: str, when: When, method: str, **params: Any) -> str:
        """Request an operation and have a process die at a boundary; return the operation.

        It stays dead until it is brought back.
        """
        with dying(self.lab, process, boundary, when):
            asked = self.lab.world.rpc(method, label=self.label, wait=False, **params)
        return str(asked["operation"])

    def expire(self) -> None:
        """Have the merchant expire the channel, and leave it at that: the merchant is silent."""
        identity = self.identity.to_bytes(32).hex()
        self.lab.network.merchantctl("coffee", "expire", "--no-wait", f"0x{identity}")
        while self.on_chain().status is ChannelStatus.OPEN:
            self.lab.network.chain.mine()
        self.lab.keep_down("merchantd-coffee")

    def outcome(self, operation: str) -> Any:
        """How an operation ended."""
        return self.lab.drive(
            lambda: self.lab.world.rpc("wait", operation=operation, timeout=1.0), blocks=True
        )

    def stolen_defence(self, state: int) -> bytes:
        """What a thief of the daemon's database sends to close on a state by the guard."""
        row = self.lab.customer(
            "select lock, customer_balance, merchant_balance, signature, permit from state"
            " where channel = %s and index = %s",
            self.identity.to_bytes(32),
            state,
        )[0]
        lock, customer, merchant, signature, permit = row
        return calls.defend(
            self.identity, int.from_bytes(lock), customer, merchant, signature, permit
        )


@contextmanager
def dying(lab: Lab, process: str, boundary: str, when: When) -> Iterator[None]:
    """Have a process die at a boundary, and stay dead, in consequence of what is done inside."""
    lab.away.add(process)
    lab.network.controls[process].arm(boundary, when)
    ended = os.pidfd_open(lab.network.service(process).pid)
    try:
        yield
        assert readable(ended, seconds=PATIENCE), f"{boundary} was not passed"
    finally:
        os.close(ended)
        lab.network.controls[process].disarm()


def guard_key(lab: Lab) -> PrivateKey:
    """The guard's key, as whoever reads the daemon's files has it."""
    text = Path(lab.network.directory / "guard.key").read_text()
    return PrivateKey(bytes.fromhex(text.strip()))
