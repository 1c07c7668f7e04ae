"""What flow tests do with a network: operations that wait for the chain, and looks at all sides."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from customerd.rpc.methods import METHODS
from zkchannels.devnet.network import Network
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelRecord
from zkchannels.jsonrpc.errors import RpcError

ETHER_UNITS = 10**9
_METHODS = {method.name: method for method in METHODS}


class World:
    """A network and the channels of one test."""

    def __init__(self, network: Network, *, prefix: str) -> None:
        self.network = network
        self._labels = (f"{prefix}-{number}" for number in itertools.count(1))

    def everything_runs(self) -> None:
        """Start what an earlier test may have left dead, and wait until the daemon is ready."""
        for merchant in self.network.merchants.values():
            if not merchant.service.running:
                merchant.service.start()
        if not self.network.daemon.running:
            self.network.daemon.start()
        if not self.network.signer.running:
            self.network.signer.start()
        self.network.chain.mine()
        self.network.wait_mode("ready")

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call the daemon and check the answer against the method's declared result."""
        answer = self.network.rpc(method, **params)
        msgspec.convert(answer, _METHODS[method].result, strict=True)
        return answer

    def refused(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Call what must be refused; return the error's data with its message."""
        try:
            self.network.rpc(method, **params)
        except RpcError as error:
            assert isinstance(error.data, dict), error
            assert error.data["kind"] in _METHODS[method].errors, error.data
            return {**error.data, "message": error.message}
        raise AssertionError(f"{method} was not refused")

    def settle(self, operation: str) -> Any:
        """Let blocks come until an operation has its outcome; return it."""
        while True:
            self.network.chain.mine()
            try:
                return self.rpc("wait", operation=operation, timeout=0.2)
            except RpcError as error:
                assert isinstance(error.data, dict)
                assert error.data["kind"] == "timed_out", error

    def establish(self, deposit: str = "1 ETH", *, merchant: str = "coffee", **more: Any) -> str:
        """Open a channel and return its label."""
        label = next(self._labels)
        operation = self.rpc(
            "establish",
            merchant=self.network.merchants[merchant].address,
            deposit=deposit,
            label=label,
            wait=False,
            **more,
        )
        done = self.settle(operation["operation"])
        assert done["status"] == "done", done
        return label

    def pay(self, label: str, amount: str | int, **more: Any) -> Any:
        """Pay and wait for the outcome."""
        done = self.rpc("pay", label=label, amount=amount, **more)
        assert done["status"] == "done"
        return done

    def show(self, label: str) -> Any:
        """Return a channel."""
        return self.rpc("show", label=label)

    def balances(self, label: str) -> tuple[int, int]:
        """Return both balances in units, as the daemon has them."""
        channel = self.show(label)
        return channel["customer_balance"]["units"], channel["merchant_balance"]["units"]

    def on_chain(self, label: str, *, merchant: str = "coffee") -> ChannelRecord:
        """Ask the contract itself about a channel."""
        channel = int(self.show(label)["channel"], 16)
        escrow = self.network.merchants[merchant].escrow
        return calls.decode_channel(self.network.chain.view(escrow, calls.channel(channel)))

    def until(self, label: str, **wanted: str) -> Any:
        """Let blocks come until a channel shows these values."""
        while True:
            channel = self.show(label)
            if all(channel[name] == value for name, value in wanted.items()):
                return channel
            self.network.chain.mine()
