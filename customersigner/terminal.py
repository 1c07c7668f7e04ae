"""What only a person may see or type: words and passphrases, never in arguments or logs."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Final, TextIO

from customersigner.errors import PassphraseUnavailable, SignerError
from zkchannels.service.secretfile import credential, read_secret

CREDENTIAL: Final = "customersigner.passphrase"


class NoTerminal(SignerError):
    """The new words can be shown on a terminal alone."""


def passphrase(path: Path | None, *, confirm: bool) -> bytes:
    """The passphrase: from the given file, else systemd's credential, else the terminal.

    Raises PassphraseUnavailable when it is empty or
    there is nobody to ask.
    """
    if path is not None:
        found: bytes | None = read_secret(path)
    else:
        found = credential(CREDENTIAL)
    if found is None:
        found = _asked(confirm=confirm)
    if not found:
        raise PassphraseUnavailable("an empty passphrase protects nothing")
    return found


def restored_words(source: TextIO) -> str:
    """The words of an existing seed, typed unseen on a terminal or piped in."""
    if source.isatty():
        return getpass.getpass("Words of the seed (not shown): ")
    return source.readline()


def pairing_line(source: TextIO) -> str:
    """What the daemon shows for pairing: pasted unseen on a terminal or piped in."""
    if source.isatty():
        return getpass.getpass("Pairing line (not shown): ")
    return source.readline()


def require_terminal(output: TextIO) -> None:
    """Refuse to make a seed whose words nobody would see. Raises NoTerminal."""
    if not output.isatty():
        raise NoTerminal(
            "the words of a new seed are shown once, on a terminal: "
            "run init on one, or give existing words with --restore"
        )


def show_words(words: str, output: TextIO) -> None:
    """Show the words of a new seed, numbered, once."""
    lines = [f"{number:4}. {word}" for number, word in enumerate(words.split(), start=1)]
    output.write(
        "These words are the wallet. Write them down now: they are never shown again, and\n"
        "whoever has them has the money.\n\n" + "\n".join(lines) + "\n\n"
    )
    output.flush()


def _asked(*, confirm: bool) -> bytes:
    if not sys.stdin.isatty():
        raise PassphraseUnavailable(
            f"no passphrase: give --passphrase-file, a credential {CREDENTIAL}, or a terminal"
        )
    first = getpass.getpass("Passphrase of the seed: ")
    if confirm and getpass.getpass("The same again: ") != first:
        raise PassphraseUnavailable("the two passphrases differ")
    return first.encode()
