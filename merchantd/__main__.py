"""The command line of merchantd."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from merchantd.commands import (
    LIST_COLUMNS,
    expire_channels,
    list_channels,
    open_office,
    show_channel,
)
from merchantd.config import DEFAULT_PATH, Settings, read_settings
from merchantd.errors import MerchantError
from merchantd.output import show_json, show_record, show_table
from zkchannels.chain.errors import ChainFailure
from zkchannels.escrow.ethereum import ZERO_ADDRESS, InvalidAddress, checksum, parse_address
from zkchannels.service import logging
from zkchannels.service.configuration import ConfigurationError, duration
from zkchannels.service.process import to_the_end
from zkchannels.service.secretfile import SecretFileError
from zkchannels.store.errors import StoreError

_TROUBLE = (
    MerchantError,
    ChainFailure,
    StoreError,
    SecretFileError,
    OSError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0: done, 1: it failed, 2: wrong usage or configuration."""
    options = parser().parse_args(arguments)
    try:
        settings = read_settings(options.config)
    except ConfigurationError as error:
        return _complain(error, status=2)
    # On standard error: what a command prints is its result alone.
    logging.configure(
        "merchantd", level=settings.log_level if options.command == "run" else "warning"
    )
    try:
        return asyncio.run(to_the_end(_COMMANDS[options.command](settings, options)))
    except TimeoutError:
        return _complain("the chain did not show it in time; the daemon goes on trying")
    except _TROUBLE as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130


def _complain(reason: object, *, status: int = 1) -> int:
    sys.stderr.write(f"merchantd: {reason}\n")
    return status


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line; the manual page is made from it."""
    parser = argparse.ArgumentParser(prog="merchantd", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="configuration file"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_init(commands.add_parser("init", help="make keys and certificate, deploy the escrow"))
    commands.add_parser("run", help="serve customers and watch the chain")
    listing = commands.add_parser("list", help="list all channels")
    show = commands.add_parser("show", help="show one channel")
    show.add_argument("channel", metavar="CHANNEL", help="beginning of its id")
    expire = commands.add_parser("expire", help="demand that a channel be closed")
    expire.add_argument("channels", nargs="+", metavar="CHANNEL", help="beginning of its id")
    close = commands.add_parser(
        "close", help="the same, for one channel or all; the daemon claims after the deadline"
    )
    which = close.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "channels", nargs="*", default=[], metavar="CHANNEL", help="beginning of its id"
    )
    which.add_argument("--all", action="store_true", help="every open channel")
    for command in (listing, show, expire, close):
        command.add_argument("--json", action="store_true", help="one JSON document")
    for command in (expire, close):
        command.add_argument("--no-wait", action="store_true", help="only write the request")
        command.add_argument(
            "--timeout",
            type=_duration,
            default=600.0,
            metavar="TIME",
            help="how long to wait (10m)",
        )
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token",
        type=_address,
        default=ZERO_ADDRESS,
        metavar="ADDRESS",
        help="contract of the asset; absent for the chain's coin",
    )
    parser.add_argument("--symbol", help="how the asset is called (ETH)")
    parser.add_argument("--decimals", type=int, help="decimals of the asset (18)")
    parser.add_argument("--unit", type=int, help="smallest denominations in one unit (10^9)")
    parser.add_argument(
        "--delay",
        type=_duration,
        default=172_800.0,
        metavar="TIME",
        help="how long a close may be disputed (48h)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def _address(text: str) -> bytes:
    try:
        return parse_address(text)
    except InvalidAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _init(settings: Settings, options: argparse.Namespace) -> int:
    from merchantd.initialise import Asset, initialise  # noqa: PLC0415  (brings the cryptography)

    if options.token != ZERO_ADDRESS and None in (options.symbol, options.decimals, options.unit):
        raise MerchantError("for a token give --symbol, --decimals and --unit")
    asset = Asset(
        token=options.token,
        symbol="ETH" if options.symbol is None else options.symbol,
        decimals=18 if options.decimals is None else options.decimals,
        unit=10**9 if options.unit is None else options.unit,
        delay=int(options.delay),
    )
    done = await initialise(settings, asset)
    address = checksum(done.escrow.address)
    row = {
        "address": f"zkchannel://{settings.listen.names[0]}:{settings.listen.port}/{address}",
        "escrow": address,
        "account": checksum(done.escrow.terms.merchant),
        "certificate": done.fingerprint,
    }
    if options.json:
        show_json(row)
    else:
        show_record(row)
    return 0


async def _run(settings: Settings, _options: argparse.Namespace) -> int:
    from merchantd.app import run  # noqa: PLC0415  (brings the cryptography)

    await run(settings)
    return 0


async def _list(settings: Settings, options: argparse.Namespace) -> int:
    async with open_office(settings) as office:
        rows = await list_channels(office)
    if options.json:
        show_json({"channels": rows})
    else:
        show_table(rows, LIST_COLUMNS)
    return 0


async def _show(settings: Settings, options: argparse.Namespace) -> int:
    async with open_office(settings) as office:
        row = await show_channel(office, options.channel)
    if options.json:
        show_json(row)
    else:
        show_record(row)
    return 0


async def _expire(settings: Settings, options: argparse.Namespace) -> int:
    everything = getattr(options, "all", False)
    async with open_office(settings) as office:
        rows = await expire_channels(
            office,
            None if everything else options.channels,
            timeout=None if options.no_wait else options.timeout,
        )
    if options.json:
        show_json({"channels": rows})
    else:
        show_table(rows, LIST_COLUMNS)
    return 0


_COMMANDS = {
    "init": _init,
    "run": _run,
    "list": _list,
    "show": _show,
    "expire": _expire,
    "close": _expire,
}

if __name__ == "__main__":
    sys.exit(main())
