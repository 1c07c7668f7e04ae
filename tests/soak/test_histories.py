"""A bounded run of random histories; `make soak` runs them for hours."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fault.lab import Lab
from tests.soak.machine import Tally, run_histories

HISTORIES = 2
STEPS = 10


def test_no_history_loses_money(memory_directory: Path) -> None:
    """Operations, crashes, cuts, reorganisations, losses: the model and all books agree always."""
    seed = random.randrange(2**31)
    tally = Tally()
    with Lab(memory_directory / "soak", proxied=True) as lab:
        run_histories(lab, tally, histories=HISTORIES, steps=STEPS, seed=seed)
    assert tally.operations.total() > HISTORIES, f"nothing was done with seed {seed}"
