"""Which blocks are read next, where a reorganisation begins, what does not fit together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.chain.model import Block, Log
from zkchannels.chain.ring import (
    KEEP,
    LONGEST_RING,
    MovedError,
    Range,
    branch_hashes,
    check_headers,
    check_logs,
    common_ancestor,
    final_number,
    next_range,
    oldest_to_keep,
)


def block(number: int, *, fork: int = 0, parent_fork: int | None = None) -> Block:
    """A block whose hash tells number and fork."""
    before = fork if parent_fork is None else parent_fork
    return Block(number, _hash(number, fork), _hash(number - 1, before), 1000 + number, 7)


def _hash(number: int, fork: int) -> bytes:
    return bytes([fork]) + max(number, 0).to_bytes(31)


def log(number: int, fork: int = 0) -> Log:
    """A log in such a block."""
    return Log(bytes(20), (), b"", number, _hash(number, fork), bytes(32), 0)


@given(st.integers(-1, 5000), st.integers(0, 5000), st.integers(20, 5000))
def test_ranges_cover_everything_once(known: int, head: int, largest: int) -> None:
    """Following the ranges from any block leads to the head, without gap or repetition."""
    expected = known + 1
    newest: list[int] = []
    while (part := next_range(known, head, largest=largest)) is not None:
        assert part.first == expected
        assert part.first <= part.last <= head
        newest += part.headers
        known, expected = part.last, part.last + 1
    assert known >= head
    recent = [number for number in newest if number > head - KEEP]
    assert recent == list(range(recent[0], head + 1)) if recent else True


def test_common_ancestor() -> None:
    """The newest block that both branches share."""
    ours = [block(number) for number in range(5, 10)]
    theirs = {number: _hash(number, 0 if number < 8 else 1) for number in range(12)}
    found = common_ancestor(ours, theirs)
    assert found is not None
    assert found.number == 7
    assert common_ancestor(ours, {}) is None


def test_only_one_branch_is_another_branch() -> None:
    """Missing or mixed-up blocks are no reorganisation."""
    good = [block(3), block(5), block(6, fork=1, parent_fork=0)]
    assert branch_hashes([3, 5, 6], good) == {3: _hash(3, 0), 5: _hash(5, 0), 6: _hash(6, 1)}
    for bad in ([block(3), None, block(6)], [block(3), block(5), block(6, fork=1)], good[::-1]):
        with pytest.raises(MovedError):
            branch_hashes([3, 5, 6], bad)


def test_headers_must_follow_each_other() -> None:
    """A missing block, a wrong number or another branch in between: look again."""
    wanted = Range(6, 8, contiguous=True)
    good = [block(6), block(7), block(8)]
    assert check_headers(block(5), wanted, good) == good
    for bad in (
        [block(6), None, block(8)],
        [block(6), block(8), block(8)],
        [block(6), block(7, fork=1), block(8)],
        [block(6, fork=1), block(7, fork=1), block(8, fork=1)],
    ):
        with pytest.raises(MovedError):
            check_headers(block(5), wanted, bad)


def test_headers_of_a_large_range() -> None:
    """Of a large range only the last header is wanted, and nothing links it to the one before."""
    wanted = Range(6, 900, contiguous=False)
    assert check_headers(block(5), wanted, [block(900, fork=1)]) == [block(900, fork=1)]


def test_logs_must_be_of_the_known_branch() -> None:
    """A log outside the range, or in a block of another hash: look again."""
    hashes = {7: _hash(7, 0)}
    check_logs(6, 8, hashes, [log(6), log(7), log(8, fork=1)])
    for bad in (log(9), log(5), log(7, fork=1)):
        with pytest.raises(MovedError):
            check_logs(6, 8, hashes, [bad])


def test_finality() -> None:
    """By tag or by depth, never above the head, never backwards."""
    assert final_number(100, 1, None, -1) == 100
    assert final_number(100, 12, None, -1) == 89
    assert final_number(5, 12, None, -1) == -1
    assert final_number(100, "finalized", 64, -1) == 64
    assert final_number(100, "finalized", 6400, -1) == 100
    assert final_number(100, "finalized", 60, 64) == 64
    assert final_number(100, "finalized", None, 64) == 64


def test_what_is_kept() -> None:
    """All that is not final is kept, with the block it stands on, within a bound."""
    blocks = [block(number) for number in range(1000)]
    assert oldest_to_keep(blocks, 900) == 999 - KEEP
    assert oldest_to_keep(blocks, 100) == 100
    assert oldest_to_keep(blocks, -1) == 0
    sparse = [block(10), block(500), *blocks[600:]]
    assert oldest_to_keep(sparse, 550) == 500
    high = [replace(block(number), number=number + LONGEST_RING) for number in range(1000)]
    assert oldest_to_keep([block(0), *high], -1) == 0
    assert oldest_to_keep([block(0), block(300), *high], -1) == 300
