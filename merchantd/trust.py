"""Whether the merchant's records are all there: with older ones it must not sign anything new.

A database restored from an old backup has forgotten nonces and locks, and old states could be spent
again. Two things betray it: the witness, a small file beside the key that says how far the records
were; and the chain, when it shows something that cannot be there without a record of it. Repeats
are still answered and channels defended; nothing new is approved, bound or agreed to.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from merchantd.errors import KeyMismatch
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError, read_secret, write_secret
from zkchannels.store.database import DatabaseUnavailable

if TYPE_CHECKING:
    from merchantd.store.records import Records

_log = get_logger("merchantd.trust")
_EVERY = 1.0
"""Seconds between two looks at how far the records are: what the witness may be behind."""


class Trust:
    """Tells why nothing new may be signed; empty as long as nothing speaks against it."""

    def __init__(self) -> None:
        self.reason = ""

    def lose(self, reason: str) -> None:
        """Stop for good: only a start on complete records ends this."""
        if not self.reason:
            self.reason = reason
            _log.critical(
                "records_went_back",
                reason=reason,
                message="nothing new is signed until all later records are restored",
            )


class Witness:
    """The file that remembers how far the records were."""

    def __init__(self, path: Path, installation: bytes) -> None:
        self._path = path
        self._installation = installation.hex()
        self._written: tuple[int, int] | None = None

    def check(self, reached: tuple[int, int], trust: Trust) -> None:
        """Compare the records with the file at the start; raises KeyMismatch for another's file."""
        if not self._path.exists():
            return
        try:
            name, verdicts, locks = read_secret(self._path).decode("ascii").split()
            remembered = int(verdicts), int(locks)
        except ValueError:
            raise KeyMismatch(f"{self._path} is damaged") from None
        if name != self._installation:
            raise KeyMismatch(f"{self._path} belongs to another database")
        self._written = remembered
        self.compare(reached, trust)

    def compare(self, reached: tuple[int, int], trust: Trust) -> None:
        """Lose the trust in records that are behind what was remembered."""
        remembered = self._written
        if remembered is None:
            return
        if any(ours < theirs for ours, theirs in zip(reached, remembered, strict=True)):
            trust.lose(
                f"{remembered[0]} verdicts and {remembered[1]} locks were recorded once, now there "
                f"are {reached[0]} and {reached[1]}"
            )

    def write(self, reached: tuple[int, int]) -> None:
        """Remember; raises SecretFileError."""
        if reached != self._written:
            write_secret(self._path, f"{self._installation} {reached[0]} {reached[1]}".encode())
            self._written = reached


async def keep_witness(records: Records, witness: Witness, trust: Trust) -> None:
    """Write down how far the records are, again and again, until cancelled.

    They may go back under a merchant at work, too: by a failover that drops the last commits.
    """
    troubled = False
    while True:
        try:
            reached = await records.reached()
            witness.compare(reached, trust)
            if trust.reason:
                return
            await asyncio.to_thread(witness.write, reached)
            troubled = False
        except (DatabaseUnavailable, SecretFileError) as error:
            if not troubled:
                _log.warning("witness_not_written", reason=str(error))
            troubled = True
        await asyncio.sleep(_EVERY)
