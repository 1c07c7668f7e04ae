"""Visits every state of a small model, breadth first, and tells the shortest way to a bad one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)

Move = tuple[str, State]
"""What happens, in words, and the state after it."""


@dataclass(frozen=True, slots=True)
class World(Generic[State]):
    """A model: where it begins, what may happen, what must never be, and where it may rest.

    `wrong` names the property that a state violates. Where `settled` is given, every state must
    have a way to a settled state by moves whose label `helpful` accepts: what one side can do by
    itself. A way must exist; that it is taken is not part of the check.
    """

    start: State
    moves: Callable[[State], Iterable[Move[State]]]
    wrong: Callable[[State], str | None]
    settled: Callable[[State], bool] | None = None
    helpful: Callable[[str], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many states were visited, and the first problem with its shortest trace."""

    states: int
    problem: str | None
    trace: tuple[str, ...]


def explore(world: World[State]) -> Outcome:  # noqa: C901 - one loop, for speed
    """Visit every state of a world, or stop at the first that violates a property."""
    numbers: dict[State, int] = {world.start: 0}
    states: list[State] = [world.start]
    before, label_before = array("l", [0]), [""]
    edges: tuple[array[int], array[int]] = array("l"), array("l")
    helps: dict[str, bool] = {}
    settled: list[int] = []
    for number, state in enumerate(states):  # grows while it is walked
        problem = world.wrong(state)
        if problem is not None:
            return Outcome(len(states), problem, _trace(before, label_before, number))
        if world.settled is not None and world.settled(state):
            settled.append(number)
        for label, following in world.moves(state):
            target = numbers.setdefault(following, len(states))
            if target == len(states):
                states.append(following)
                before.append(number)
                label_before.append(label)
            if world.settled is None:
                continue
            if label not in helps:
                helps[label] = world.helpful(label)
            if helps[label]:
                edges[0].append(number)
                edges[1].append(target)
    if world.settled is not None:
        stuck = _first_without_way(len(states), edges, settled)
        if stuck is not None:
            trace = _trace(before, label_before, stuck)
            return Outcome(len(states), "stuck: no way to an end from here", trace)
    return Outcome(len(states), None, ())


def _trace(before: array[int], labels: list[str], number: int) -> tuple[str, ...]:
    lines: list[str] = []
    while number:
        lines.append(labels[number])
        number = before[number]
    return tuple(reversed(lines))


def _first_without_way(
    count: int, edges: tuple[array[int], array[int]], settled: list[int]
) -> int | None:
    """Return the first state, in order of discovery, that reaches no settled one."""
    sources: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(*edges, strict=True):
        sources[target].append(source)
    good = bytearray(count)
    for number in settled:
        good[number] = 1
    waiting = list(settled)
    while waiting:
        for number in sources[waiting.pop()]:
            if not good[number]:
                good[number] = 1
                waiting.append(number)
    stuck = good.find(0)
    return None if stuck < 0 else stuck
