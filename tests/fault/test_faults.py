"""Nothing is lost, stuck or paid twice, whichever process dies or message is hit, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.campaign import TALLY, Campaign, Recording, chosen, report
from tests.fault.coverage import (
    committing_methods,
    messages_in_code,
    messages_recorded,
    steps_in_code,
    steps_recorded,
)
from tests.fault.launcher import COMMITTING

# Hundreds of attempts, of which each has its own limit.
pytestmark = pytest.mark.timeout(0)


def test_every_step_of_the_code_is_among_the_crash_points(recordings: list[Recording]) -> None:
    """A step that no recorded operation takes cannot be forgotten: it fails this test."""
    assert steps_in_code() - steps_recorded(recordings) == set()


def test_every_way_to_commit_is_a_boundary() -> None:
    """A new method of Database that commits without a boundary fails this test."""
    assert committing_methods() == set(COMMITTING)


def test_every_message_of_the_protocols_is_among_the_cuts(recordings: list[Recording]) -> None:
    """A message that no recorded operation sends cannot be forgotten: it fails this test."""
    assert messages_in_code() - messages_recorded(recordings) == set()


def test_every_crash_point_is_survived(crashes: Campaign, recordings: list[Recording]) -> None:
    """SIGKILL before and after every effect: it settles by itself, all books agree, paying goes on.

    Refused operations have paid nothing and can be repeated; ends pay out what the books say.
    """
    points = [point for recording in recordings for point in recording.points()]
    results = list(crashes.run(chosen(points)))
    TALLY.count("crash points", results)
    if any(result.trouble for result in results):
        pytest.fail(report(results), pytrace=False)


def test_every_cut_is_survived(memory_directory: Path, recordings: list[Recording]) -> None:
    """Each message is lost, torn, doubled, held and late: it settles by itself, all books agree."""
    cuts = [cut for recording in recordings for cut in recording.cuts()]
    with Campaign(memory_directory / "cuts", proxied=True) as campaign:
        results = list(campaign.run(chosen(cuts)))
    TALLY.count("cuts", results)
    if any(result.trouble for result in results):
        pytest.fail(report(results), pytrace=False)
