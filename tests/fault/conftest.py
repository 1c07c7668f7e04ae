"""One campaign for all tests of this folder: recorded, then every crash point and every cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault import campaign as campaigns
from tests.fault.campaign import Campaign, Recording
from tests.fault.scenarios import SCENARIOS


@pytest.fixture(scope="session")
def crashes(memory_directory: Path) -> Iterator[Campaign]:
    """Networks whose programs die."""
    with Campaign(memory_directory / "crashes") as campaign:
        yield campaign


@pytest.fixture(scope="session")
def recordings(crashes: Campaign) -> list[Recording]:
    """What every operation passed, undisturbed."""
    return crashes.record(SCENARIOS)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many points were tried, and how many survived."""
    for line in campaigns.TALLY.lines():
        terminalreporter.write_line(line)
