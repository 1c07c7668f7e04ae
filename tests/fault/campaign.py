"""All crash points: recorded from one run of each operation, then each tried, on several networks.

A point is a boundary that a process passed during an operation, and whether the process dies before
its effect or after it. Networks work side by side in processes of their own and share the points.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

from tests.fault.control import When, names
from tests.fault.lab import Lab
from tests.fault.network import PROCESSES
from tests.fault.scenarios import SCENARIOS, Scenario

WORKERS = max(2, min(4, len(os.sched_getaffinity(0))))
TRIES = 3
"""How often a point is tried when its boundary was not passed, as time decides about a few."""
LINES = 25
_WHENS: tuple[When, ...] = ("before", "after")
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
_OF_THE_TEST = re.compile(r" (answer owner (?!establish|pay|refund|close)|notify owner)")
"""Answers to the questions of the test itself."""
_PERIODIC = re.compile(r"signer\\.ping|renew_lease|hold$")


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process dies."""

    scenario: str
    process: str
    name: str
    when: When

    def __str__(self) -> str:
        return f"{self.scenario}: {self.process} dies {self.when} “{self.name}”"


@dataclass(frozen=True, slots=True)
class Recording:
    """The boundaries that each process passed during an operation."""

    scenario: str
    passed: dict[str, list[str]]

    def points(self) -> list[Point]:
        """Return the crash points of the operation, those of each process spread evenly.

        A signer whose daemon dies again and again waits longer and longer before it dials.
        """
        placed: list[tuple[float, Point]] = []
        for process, found in self.passed.items():
            for index, name in enumerate(found):
                for half, when in enumerate(_WHENS):
                    place = (2 * index + half + 0.5) / (2 * len(found))
                    placed.append((place, Point(self.scenario, process, name, when)))
        return [point for _, point in sorted(placed, key=lambda pair: pair[0])]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a point; `trouble` is empty when it was survived."""

    point: Point
    seconds: float
    trouble: str
    logs: str


def record(lab: Lab, scenario: Scenario) -> Recording:
    """Run an operation undisturbed and return what was passed."""
    scenario.prepare(lab)
    lab.calm()
    since = {process: lab.network.controls[process].position() for process in PROCESSES}
    scenario.run(lab)
    lab.calm()
    lab.check_books()
    passed = {
        process: _points_of(names(lab.network.controls[process].passages(position)))
        for process, position in since.items()
    }
    return Recording(scenario.name, passed)


def _points_of(found: Iterable[str]) -> list[str]:
    return [n for n in found if not _OF_THE_TEST.search(n) and not _PERIODIC.search(n)]


def attempt(lab: Lab, point: Point) -> bool:
    """Run the point's operation with its process dying there; return whether it did.

    Raises Stuck, Unfit, or what else shows that it was not survived.
    """
    scenario, control = _BY_NAME[point.scenario], lab.network.controls[point.process]
    scenario.prepare(lab)
    lab.calm()
    position = control.position()
    control.arm(point.name, point.when)
    try:
        scenario.run(lab)
        lab.calm()
    finally:
        control.disarm()
    lab.calm()
    lab.check_books()
    return control.fired(position)


def _try(lab: Lab, point: Point) -> Result:
    began, trouble = time.monotonic(), ""
    try:
        if not any(attempt(lab, point) for _ in range(TRIES)):
            trouble = "the boundary was not passed"
    except Exception:
        trouble = traceback.format_exc(limit=-4)
    logs = _logs(lab.network.directory) if trouble else ""
    return Result(point, time.monotonic() - began, trouble, logs)


def _logs(directory: Path) -> str:
    parts = []
    for path in sorted(directory.rglob("*.log")):
        if path.name != "postgres.log":
            lines = path.read_text(errors="replace").splitlines()[-LINES:]
            parts.append("\n".join([f"--- {path.relative_to(directory)}", *lines]))
    return "\n".join(parts)


# -- networks side by side ---------------------------------------------------------------------


def _work(
    directory: str, tasks: Queue[str | Point | None], results: Queue[Recording | Result]
) -> None:
    """Build a network, take tasks until None; a network that a point broke is replaced."""
    number, task = 0, tasks.get()
    while task is not None:
        number += 1
        with Lab(Path(directory) / str(number)) as lab:
            while task is not None:
                if isinstance(task, str):
                    results.put(record(lab, _BY_NAME[task]))
                else:
                    result = _try(lab, task)
                    results.put(result)
                    if result.trouble:
                        task = tasks.get()
                        break
                task = tasks.get()


class Campaign:
    """Workers with a network each; use as a context manager."""

    def __init__(self, directory: Path, *, workers: int = WORKERS) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks: Queue[str | Point | None] = context.Queue()
        self._results: Queue[Recording | Result] = context.Queue()
        self._workers = [
            context.Process(
                target=_work, args=(str(directory / str(number)), self._tasks, self._results)
            )
            for number in range(workers)
        ]

    def __enter__(self) -> Campaign:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def record(self, scenarios: Iterable[Scenario]) -> list[Recording]:
        """Record every operation, in the order given."""
        order = [scenario.name for scenario in scenarios]
        for name in order:
            self._tasks.put(name)
        found = {}
        for _ in order:
            recording = self._next()
            assert isinstance(recording, Recording)
            found[recording.scenario] = recording
        return [found[name] for name in order]

    def run(self, points: Iterable[Point]) -> Iterator[Result]:
        """Try every point; results come as they are there."""
        given = list(points)
        for point in given:
            self._tasks.put(point)
        for _ in given:
            result = self._next()
            assert isinstance(result, Result)
            yield result

    def _next(self) -> Recording | Result:
        while True:
            try:
                return self._results.get(timeout=5)
            except Exception:  # queue.Empty
                if not all(worker.is_alive() for worker in self._workers):
                    raise RuntimeError("a worker of the campaign ended") from None


def main() -> int:
    """Run a part of the points while working on it: names of scenarios, or nothing for all."""
    chosen = [s for s in SCENARIOS if not sys.argv[1:] or s.name in sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="fault-", dir="/dev/shm") as directory:
        began = time.monotonic()
        with Campaign(Path(directory)) as campaign:
            points = [point for found in campaign.record(chosen) for point in found.points()]
            _say(f"{time.monotonic() - began:.1f} s, {len(points)} points")
            survived = 0
            for result in campaign.run(points):
                survived += not result.trouble
                word = "FAIL" if result.trouble else "ok"
                _say(f"{result.seconds:6.2f} {word:4} {result.point}")
                if result.trouble:
                    _say(f"{result.trouble}\n{result.logs}")
        _say(f"{time.monotonic() - began:.1f} s")
    _say(f"crash points: {survived} of {len(points)} survived")
    return survived != len(points)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
