"""Which of several nodes to ask first: a pure comparison of what each says about the chain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from zkchannels.chain.model import Block

FORK = 16  # blocks below the lowest head at which honest nodes have one chain
BEHIND = 3  # blocks that one node may hear of later than another


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one node says: its newest block, and its block's hash at the number all are asked for.

    `node` is its place in the configuration.
    """

    node: int
    head: Block
    at: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Nodes in the order to ask them, and whether they are on more than one chain.

    `undecided`: there is no majority for any of the chains.
    """

    order: tuple[int, ...]
    disagree: bool = False
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing nodes: who contradicts whom, for people (empty: nobody)."""

    contradiction: str = ""
    undecided: bool = False


def number_to_compare(heads: Sequence[Block]) -> int:
    """Return the number of the block at which honest nodes with these heads agree."""
    return max(min(head.number for head in heads) - FORK, 0)


def judge(opinions: Sequence[Opinion], *, turn: int) -> Verdict:
    """Rank the nodes: those on the chain of most come first, and among them those not behind.

    Where no chain has a majority the sides take turns: an act that one side shows to be due is then
    taken in time, whoever lies. `turn` counts the turns.
    """
    sides: dict[bytes, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        sides[opinion.at].append(opinion)
    by_size = sorted(sides.values(), key=lambda side: (-len(side), side[0].node))
    largest = [side for side in by_size if len(side) == len(by_size[0])]
    first = turn % len(largest)
    ranked = largest[first:] + largest[:first] + by_size[len(largest) :]
    return Verdict(
        order=tuple(opinion.node for side in ranked for opinion in _not_behind_first(side)),
        disagree=len(by_size) > 1,
        undecided=len(largest) > 1,
    )


def _not_behind_first(side: Sequence[Opinion]) -> list[Opinion]:
    best = max(opinion.head.number for opinion in side)

    def rank(opinion: Opinion) -> tuple[int, int]:
        late = best - opinion.head.number
        return (0, opinion.node) if late <= BEHIND else (late, opinion.node)

    return sorted(side, key=rank)
