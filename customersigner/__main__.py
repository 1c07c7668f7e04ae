"""Command line of the signer: init, pair, run, show, confirm."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from customersigner import seedfile, terminal
from customersigner.derivation import NEW_ENTROPY_LENGTH, Wallet, entropy_of, words_of
from customersigner.errors import PairingFailed, SeedFileError, SignerError
from customersigner.policyfile import read_policy
from customersigner.record import Channel
from customersigner.settings import SYSTEM_CONFIGURATION, Settings
from customersigner.store import Store
from customersigner.terminal import NoTerminal
from zkchannels.escrow.ethereum import checksum
from zkchannels.service.configuration import ConfigurationError, load
from zkchannels.service.secretfile import SecretFileError
from zkchannels.wire.pairing import AddressLine, InvalidLine, read_line

EXIT_FAILURE = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 misused."""
    options = parser().parse_args(arguments)
    try:
        settings = _settings(options)
        Path(settings.state_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        command = {
            "init": _init,
            "pair": _pair,
            "run": _run,
            "show": _show,
            "confirm": _confirm,
        }[options.command]
        return command(settings, options)
    except ConfigurationError as error:
        _complain(error)
        return EXIT_USAGE
    except (SignerError, SecretFileError, OSError) as error:
        _complain(error)
        return EXIT_FAILURE


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line; the manual page is made from it."""
    parser = argparse.ArgumentParser(
        prog="customersigner", description="Holds the seed of a wallet and signs for customerd."
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="configuration file")
    parser.add_argument(
        "--state-directory", metavar="DIR", help="directory of the seed file and the record"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    secret = argparse.ArgumentParser(add_help=False)
    secret.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="file with the passphrase of the seed, mode 0600; else systemd's credential "
        f"{terminal.CREDENTIAL}, else the terminal is asked",
    )
    init = commands.add_parser("init", parents=[secret], help="make a new seed, or restore one")
    init.add_argument(
        "--restore",
        action="store_true",
        help="read the words of an existing seed from the terminal or standard input",
    )
    pair = commands.add_parser(
        "pair", parents=[secret], help="pair with a daemon, or add one that stands by for it"
    )
    pair.add_argument(
        "line",
        metavar="LINE",
        nargs="?",
        help="what customerctl signer-pair or signer-address shows; read from standard input when "
        "left out, which keeps it from other users of this host",
    )
    run = commands.add_parser("run", parents=[secret], help="dial the daemon and sign for it")
    run.add_argument(
        "--socket",
        metavar="PATH",
        action="append",
        help="the daemon's socket, instead of the paired daemon; given again, the socket of "
        "another daemon on the same database",
    )
    commands.add_parser("show", parents=[secret], help="show addresses and channels, no secrets")
    commands.add_parser("confirm", help="answer the questions of a running signer")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    path = options.config
    if path is None and SYSTEM_CONFIGURATION.exists():
        path = SYSTEM_CONFIGURATION
    settings = load(Settings, path, prefix="CUSTOMERSIGNER")
    given = {
        name: value
        for name in ("socket", "state_directory")
        if (value := getattr(options, name, None)) is not None
    }
    return msgspec.structs.replace(settings, **given)


def _init(settings: Settings, options: argparse.Namespace) -> int:
    if settings.seed_file.exists():  # before anything is typed in vain
        raise SeedFileError(f"{settings.seed_file} exists: a seed is never overwritten")
    if options.restore:
        entropy = entropy_of(terminal.restored_words(sys.stdin))
    else:
        terminal.require_terminal(sys.stdout)
        entropy = os.urandom(NEW_ENTROPY_LENGTH)
    passphrase = terminal.passphrase(options.passphrase_file, confirm=True)
    seedfile.create(settings.seed_file, entropy, passphrase)
    if not options.restore:
        terminal.show_words(words_of(entropy), sys.stdout)
    _print_wallet(Wallet(entropy))
    return 0


def _pair(settings: Settings, options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - slow to load

    from customersigner import pairing  # noqa: PLC0415 - slow to load
    from zkchannels.service.certificate import ensure_pair  # noqa: PLC0415 - slow to load

    try:
        line = read_line(options.line or terminal.pairing_line(sys.stdin))
    except InvalidLine as error:
        raise PairingFailed(str(error)) from None
    known = pairing.read_paired(settings.pairing_file) if isinstance(line, AddressLine) else []
    if isinstance(line, AddressLine) and not known:
        raise PairingFailed("no daemon is paired: begin with a line of customerctl signer-pair")
    identity, own = _unlock(settings, options).identity, settings.certificate_file
    ensure_pair(own, "customersigner", "client")
    if isinstance(line, AddressLine):
        daemon = asyncio.run(pairing.meet(line, identity, own))
        said = f"{daemon.address} is dialled, too"
    else:
        daemon = asyncio.run(pairing.pair(line, identity, own))
        said = f"paired with {daemon.address}: customersigner run dials it"
    pairing.write_paired(settings.pairing_file, pairing.joined(known, daemon))
    print(said)  # noqa: T201
    return 0


def _run(settings: Settings, options: argparse.Namespace) -> int:
    from customersigner.run import run  # noqa: PLC0415 - the event loop is needed here alone

    policy = read_policy(settings.policy_file)
    return run(settings, policy, _unlock(settings, options))


def _show(settings: Settings, options: argparse.Namespace) -> int:
    wallet = _unlock(settings, options)
    _print_wallet(wallet)
    if not settings.store_file.exists():
        return 0
    store = Store.read(settings.store_file, wallet.identity)
    try:
        after = b""
        while page := store.channels(after, 500):
            for channel in page:
                print(_line(channel))  # noqa: T201
            after = page[-1].terms.channel
    finally:
        store.close()
    return 0


def _confirm(settings: Settings, _options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from customersigner import confirm  # noqa: PLC0415 - the event loop is needed here alone

    person = confirm.Terminal.of_process()
    if person is None:
        raise NoTerminal("questions are asked on a terminal: run confirm on one")
    asyncio.run(confirm.attend(settings.confirmation_socket, person))
    return 0


def _unlock(settings: Settings, options: argparse.Namespace) -> Wallet:
    if not settings.seed_file.exists():  # before anything is typed in vain
        raise SeedFileError(
            f"{settings.seed_file} does not exist: run customersigner init first, "
            "or name another --state-directory"
        )
    passphrase = terminal.passphrase(options.passphrase_file, confirm=False)
    return Wallet(seedfile.load(settings.seed_file, passphrase))


def _print_wallet(wallet: Wallet) -> None:
    print(f"account   {checksum(wallet.account.address)}")  # noqa: T201
    print(f"identity  {checksum(wallet.identity)}")  # noqa: T201


def _line(channel: Channel) -> str:
    terms, accepted = channel.terms, channel.accepted
    state = "not authorized"
    if accepted is not None:
        step = accepted.step
        state = f"state {step.index}: {step.customer_balance} / {step.merchant_balance} units"
    if channel.closing is not None:
        state += ", closing"
    return f"channel   0x{terms.channel.hex()} in {checksum(terms.escrow)}, {state}"


def _complain(error: Exception) -> None:
    print(f"customersigner: {error}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
