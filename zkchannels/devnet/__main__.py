"""`python -m zkchannels.devnet demo|up`: the narrated demo, or a network to play with."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from zkchannels.devnet.child import ChildFailed
from zkchannels.devnet.demo import DemoFailed, tell
from zkchannels.devnet.network import Network
from zkchannels.jsonrpc.errors import RpcError


def main() -> int:
    """Run the demo or keep a network up; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zkchannels.devnet", description=__doc__)
    parser.add_argument("what", choices=("demo", "up"))
    parser.add_argument("--directory", type=Path, help="where everything is kept (up only)")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        if options.what == "demo":
            return _demo(console)
        return _up(console, options.directory)
    except (DemoFailed, ChildFailed, RpcError) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; all torn down.")
        return 130


def _demo(console: Console) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="devnet-") as directory:
        console.print("[bold]customerd[/]: private payment channels on one machine, for real.")
        console.print("Not audited. Do not use it for money you cannot lose.\n", style="dim")
        with Network(Path(directory)) as network:
            _describe(console, network, time.monotonic() - began)
            tell(network, console)
        console.print(f"\n[bold green]done[/] in {time.monotonic() - began:.0f} s; all torn down.")
    return 0


def _describe(console: Console, network: Network, seconds: float) -> None:
    console.print(f"[green]✓[/] a network of its own, up in {seconds:.1f} s:")
    kind = type(network.chain).__name__.lower()
    console.print(f"  EVM chain      {kind} at {network.chain.url}", soft_wrap=True)
    assets = ("ETH", "TEST")
    for merchant, asset in zip(network.merchants.values(), assets, strict=False):
        console.print(
            f"  merchantd      {merchant.name} ({asset}): {merchant.address}", soft_wrap=True
        )
    console.print(
        f"  customerd      pid {network.daemon.pid}, PostgreSQL behind it", soft_wrap=True
    )
    console.print(
        f"  customersigner pid {network.signer.pid}, dialled in to the daemon", soft_wrap=True
    )


def _up(console: Console, directory: Path | None) -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="devnet-") as temporary:
        with Network(directory or Path(temporary), block_time=1.0) as network:
            _describe(console, network, time.monotonic() - began)
            console.print("\nIn another terminal:\n", style="bold")
            console.print(f"  export CUSTOMERD_SOCKET={network.socket}", soft_wrap=True)
            console.print("  .venv/bin/customerctl getinfo")
            coffee = network.merchants["coffee"].address
            console.print(
                f'  .venv/bin/customerctl establish {coffee} --deposit "1 ETH" --label coffee',
                soft_wrap=True,
            )
            console.print('  .venv/bin/customerctl pay coffee "0.005 ETH"')
            console.print(
                "\nTo try safe mode: stop the signer, and start it again:\n", style="bold"
            )
            console.print(f"  kill {network.signer.pid}", soft_wrap=True)
            console.print("  " + shlex.join(network.signer_command), soft_wrap=True)
            console.print("\nTo attack as the merchant (watch `customerctl list`):\n", style="bold")
            config = network.merchants["coffee"].config
            console.print(
                f"  .venv/bin/merchantd --config {config} close --all --no-wait", soft_wrap=True
            )
            console.print("\nCtrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()
        console.print("all torn down.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
