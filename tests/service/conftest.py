"""Daemons under a manager."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.customerd.conftest import Alone
from tests.service.manager import Managed

_NUMBERS = itertools.count(1)


class Supervised(Alone):
    """A daemon without chain and signer, under a manager."""

    service: Managed

    def __init__(
        self,
        directory: Path,
        dsn: str,
        *,
        chain: str = "",
        module: tuple[str, ...] = ("customerd",),
        store: int = 64,
        watchdog: float | None = None,
    ) -> None:
        super().__init__(directory, dsn, chain=chain)
        self.service = Managed(
            "customerd",
            [sys.executable, "-m", *module, "--config", str(self.config)],
            log=directory / "customerd.log",
            sockets={"customerd.socket": self.socket},
            store=store,
            watchdog=watchdog,
        )


@pytest.fixture
def supervised(memory_directory: Path, database_dsn: str) -> Iterator[Callable[..., Supervised]]:
    """Makes daemons that are not started yet."""
    with ExitStack() as stack:

        def make(**options: object) -> Supervised:
            place = memory_directory / f"service{next(_NUMBERS)}"
            made = Supervised(place, database_dsn, **options)  # type: ignore[arg-type]
            stack.callback(made.service.close)
            return made

        yield make
