"""The story of `make demo`: everything the software is for, on one machine, told as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from zkchannels.devnet.network import Network
from zkchannels.escrow import calls
from zkchannels.escrow.record import ChannelStatus
from zkchannels.jsonrpc.errors import RpcError

DEPOSIT = "1 ETH"
PAYMENTS = ("0.005 ETH", "0.012 ETH", "0.0001 ETH", "0.03 ETH", "0.004 ETH")
REFUND = "0.002 ETH"


class DemoFailed(Exception):
    """Something in the story did not come out as it must."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one step of the story took."""

    step: str
    seconds: float


class Story:
    """Tells and checks; raises DemoFailed where the truth differs from the tale."""

    def __init__(self, network: Network, console: Console) -> None:
        self.network = network
        self.console = console
        self.timings: list[Timing] = []

    def chapter(self, title: str, text: str = "") -> None:
        """Begin a part of the story."""
        self.console.print()
        self.console.rule(f"[bold]{title}", align="left")
        if text:
            self.console.print(text, style="dim")

    def command(self, *words: str) -> None:
        """Show what a person would type for the next step."""
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        self.console.print(f"[cyan]$ {shown}", soft_wrap=True)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Time a step and say how long it took."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.timings.append(Timing(step, seconds))
        self.console.print(f"  [green]✓[/] {step} [dim]({_duration(seconds)})")

    def check(self, holds: bool, text: str) -> None:
        """Say what was checked; the demo fails if it does not hold."""
        if not holds:
            raise DemoFailed(text)
        self.console.print(f"  [green]✓[/] {text}")

    # -- chapters -----------------------------------------------------------------------------

    def establish(self) -> None:
        """Open a channel with the coffee shop."""
        self.chapter(
            "A channel",
            "The customer locks money in the merchant's escrow contract, once. The signer checks "
            "the merchant's closing authorization before a single coin moves.",
        )
        address = self.network.merchants["coffee"].address
        self.command("customerctl", "establish", address, "--deposit", DEPOSIT, "--label", "coffee")
        with self.timed(f"channel open with {DEPOSIT}, first pay token received"):
            self._settling("establish", merchant=address, deposit=DEPOSIT, label="coffee")
        self.list_channels()

    def _settling(self, method: str, **params: Any) -> Any:
        """Request an operation that waits for the chain, and let blocks come until it is done."""
        operation = self.network.rpc(method, wait=False, **params)["operation"]
        while True:
            self.network.chain.mine()
            try:
                done = self.network.rpc("wait", operation=operation, timeout=0.25)
            except RpcError:
                continue
            if done["status"] != "done":
                raise DemoFailed(f"{method}: {done['error']}")
            return done

    def pay(self) -> None:
        """Pay five times and get some back."""
        self.chapter(
            "Payments",
            "Off chain: a zero-knowledge proof each. The merchant learns the amount and that some "
            "funded channel paid it; not which one.",
        )
        for amount in PAYMENTS:
            self.command("customerctl", "pay", "coffee", amount)
            with self.timed(f"paid {amount}"):
                self.network.rpc("pay", label="coffee", amount=amount)
        self.command("customerctl", "refund", "coffee", REFUND)
        with self.timed(f"got {REFUND} back"):
            self.network.rpc("refund", label="coffee", amount=REFUND)
        self.command("customerctl", "pay", "coffee", "5 ETH")
        self._refused("insufficient_balance", "pay", label="coffee", amount="5 ETH")
        self.list_channels()

    def _refused(self, kind: str, method: str, **params: Any) -> None:
        try:
            self.network.rpc(method, **params)
        except RpcError as error:
            data = error.data if isinstance(error.data, dict) else {}
            self.check(data.get("kind") == kind, f"refused at once ({kind}): {error.message}")
            return
        raise DemoFailed(f"{method} should have been refused")

    def safe_mode(self) -> None:
        """Kill the signer, look at safe mode, bring it back."""
        self.chapter(
            "Safe mode",
            "The daemon holds no keys. kill -9 the signer: it goes on watching and answering, "
            "and spends nothing.",
        )
        with self.timed("signer killed, daemon in safe mode"):
            self.network.signer.kill()
            info = self.network.wait_info(lambda info: info["mode"] == "safe")
        self.check(info["chain"]["following"], "the chain is still followed")
        self.check(not info["signer"]["attached"], "no signer is attached")
        self.command("customerctl", "pay", "coffee", "0.001 ETH")
        self._refused("safe_mode", "pay", label="coffee", amount="0.001 ETH")
        with self.timed("signer started again and ready"):
            self.network.signer.start()
            self.network.wait_mode("ready")
        with self.timed("first payment after its return"):
            self.network.rpc("pay", label="coffee", amount="0.001 ETH")

    def mutual_close(self) -> None:
        """Open a second channel in a token and close it by agreement."""
        self.chapter(
            "A second merchant, a token, a close by agreement",
            "The bakery's escrow holds an ERC-20 token. Closing by agreement pays both at once.",
        )
        address = self.network.merchants["bakery"].address
        self.command(
            "customerctl", "establish", address, "--deposit", "50 TEST", "--label", "bakery"
        )
        with self.timed("channel open with 50 TEST"):
            self._settling("establish", merchant=address, deposit="50 TEST", label="bakery")
        with self.timed("paid 12.5 TEST"):
            self.network.rpc("pay", label="bakery", amount="12.5 TEST")
        before = self._tokens(self.network.account)
        self.command("customerctl", "close", "bakery")
        with self.timed("closed by agreement, final on chain"):
            self._settling("close", label="bakery")
        gained = self._tokens(self.network.account) - before
        self.check(gained == 37_500_000, "the token contract paid exactly 37.5 TEST back")

    def defence(self) -> None:
        """The merchant expires the channel while the signer is away; the guard answers."""
        self.chapter(
            "Defence without the signer",
            "The merchant starts a close while the keys are away. Silence would cost everything; "
            "the guard answers with the newest closing authorization and the customer's permit.",
        )
        network = self.network
        channel = network.rpc("show", label="coffee")
        owed = int(channel["customer_balance"]["units"])
        network.signer.kill()
        network.wait_info(lambda info: info["mode"] == "safe")
        self.command("merchantd", "expire", channel["channel"][:14])
        with self.timed("merchant expired the channel; the guard closed it"):
            network.merchantctl("coffee", "expire", "--no-wait", channel["channel"])
            self._until_chain("closing")
        with self.timed("signer back"):
            network.signer.start()
            network.wait_mode("ready")
        customer, merchant = network.account, network.merchants["coffee"].account
        before = network.chain.balance(customer)
        self.console.print(f"  … {network.delay // 60} minutes of chain time pass", style="dim")
        network.chain.increase_time(network.delay + 1)
        network.chain.mine()
        with self.timed("claimed after the delay, final on chain"):
            self._until("closed")
        gained = network.chain.balance(customer) - before
        self.check(
            gained == owed * 10**9, f"the escrow paid the customer {owed / 10**9:.9g} ETH exactly"
        )
        record = calls.decode_channel(
            network.chain.view(
                network.merchants["coffee"].escrow, calls.channel(int(channel["channel"], 16))
            )
        )
        self.check(
            record.status is ChannelStatus.CLOSED
            and record.customer_balance == owed
            and record.merchant_balance == 10**9 - owed,
            "the contract's own record agrees to the unit",
        )
        self.check(network.chain.balance(merchant) > 0, "the merchant has its share")

    def _tokens(self, owner: bytes) -> int:
        assert self.network.token is not None
        return calls.decode_number(
            self.network.chain.view(self.network.token, calls.balance_of(owner))
        )

    def _until_chain(self, status: str) -> None:
        while self.network.rpc("show", label="coffee")["chain_status"] != status:
            self.network.chain.mine()

    def _until(self, status: str) -> None:
        while self.network.rpc("show", label="coffee")["status"] != status:
            self.network.chain.mine()

    def list_channels(self) -> None:
        """Show all channels."""
        self.command("customerctl", "list")
        table = Table(box=None, pad_edge=False)
        for column in ("label", "status", "on chain", "customer", "merchant"):
            table.add_column(column, style="bold" if column == "label" else "")
        for channel in self.network.rpc("list")["channels"]:
            table.add_row(
                channel["label"],
                channel["status"],
                channel["chain_status"],
                channel["customer_balance"]["text"],
                channel["merchant_balance"]["text"],
            )
        self.console.print(table)

    def summary(self) -> None:
        """Show how long everything took."""
        self.chapter("How long it took")
        table = Table(box=None, pad_edge=False)
        table.add_column("step")
        table.add_column("time", justify="right")
        for timing in self.timings:
            table.add_row(timing.step, _duration(timing.seconds))
        self.console.print(table)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def tell(network: Network, console: Console) -> None:
    """Tell the whole story; raises DemoFailed."""
    story = Story(network, console)
    story.establish()
    story.pay()
    story.safe_mode()
    story.mutual_close()
    story.defence()
    story.list_channels()
    story.summary()
