"""All crash points: recorded from one run of each operation, then each tried, on several networks.

A point is a boundary that a process passed during an operation, and whether the process dies before
its effect or after it. Networks work side by side in processes of their own and share the points.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TypeVar

from tests.fault.control import When, names
from tests.fault.lab import PERIODIC, Lab
from tests.fault.proxy import ACTIONS, Action, Fault, Kind
from tests.fault.scenarios import IN_TOKENS, SCENARIOS, Scenario

WORKERS = max(2, min(4, len(os.sched_getaffinity(0))))
TRIES = 3
"""How often a point is tried when its boundary was not passed, as time decides about a few."""
LINES = 60
_MESSAGE = re.compile(
    r" (?P<kind>send|answer) (?P<other>merchant|signer|customer|daemon) (?P<method>[a-z.]+)$"
)
_WHENS: tuple[When, ...] = ("before", "after")
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
_OF_THE_TEST = re.compile(r" (answer owner (?!establish|pay|refund|close)|notify owner)")
"""Answers to the questions of the test itself."""
_OF_THE_MOMENT = re.compile(r" error (later|too_many_sessions)$")
"""Answers that depend on what else is going on, as a merchant's that has just started."""
_BY_TIME = re.compile(r" (alarm-events|witness) commit ")
"""What time decides about, so that it may not be met in the tries there are."""
_PAYMENTS = ("pay", "refund")
_TWICE = "pay"
"""The operation at whose points a process dies a second time when it resumes."""
_PERIODIC = re.compile("|".join(PERIODIC))
_OF_BLOCKS = re.compile(r"d (follower|watcher|heads|alarm-events) (commit|send)")
"""What is passed with every block, whatever is at work."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process dies."""

    scenario: str
    process: str
    name: str
    when: When
    deaths: int = 1
    """2: it dies there again, if its second run passes there."""

    def __str__(self) -> str:
        twice = " and again" if self.deaths > 1 else ""
        return f"{self.scenario}: {self.process} dies {self.when} “{self.name}”{twice}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A message that something happens to on its way."""

    scenario: str
    link: str
    kind: Kind
    method: str
    action: Action

    def __str__(self) -> str:
        return f"{self.scenario}: {self.action} the {self.kind} {self.method} ({self.link})"


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
        points = [point for _, point in sorted(placed, key=lambda pair: pair[0])]
        if self.scenario == _TWICE:
            points += [replace(point, deaths=2) for point in points]
        return points

    def messages(self) -> Iterator[tuple[str, Kind, str]]:
        """Return link, kind and method of every message that was sent, each once."""
        found: dict[tuple[str, Kind, str], None] = {}
        for process, names_ in self.passed.items():
            for name in names_:
                match = _MESSAGE.search(name)
                if match is None:
                    continue
                kind: Kind = "request" if match["kind"] == "send" else "answer"
                link = "signer"
                if "merchant" in (match["other"], process.partition("-")[0][:8]):
                    link = "bakery" if self.scenario == IN_TOKENS else "coffee"
                found[link, kind, match["method"]] = None
        yield from found

    def cuts(self) -> list[Cut]:
        """Return everything that is done to the messages of the operation."""
        return [
            Cut(self.scenario, *message, action)
            for message in self.messages()
            for action in ACTIONS
            # Who waits for an answer has only that connection, and a signer has only one link:
            # while a line is held there, nothing can go on without it.
            if action != "late" or (message[0] != "signer" and message[1] == "request")
        ]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a point; `trouble` is empty when it was survived.

    There are `logs` when the network cannot be used any more.
    """

    point: Point | Cut
    seconds: float
    trouble: str
    logs: str
    met: bool = True
    """Whether the boundary was passed, so that there was something to survive."""


def record(lab: Lab, scenario: Scenario) -> Recording:
    """Run an operation undisturbed and return what was passed."""
    scenario.prepare(lab)
    lab.calm()
    since = lab.positions()
    scenario.run(lab)
    lab.calm()
    lab.check_books()
    passed = {
        process: _points_of(names(lab.network.controls[process].passages(position)), scenario)
        for process, position in since.items()
    }
    return Recording(scenario.name, passed)


def _without_payments(recordings: Sequence[Recording]) -> list[Recording]:
    """Leave out of every operation the points of the payments that are made in it as a check."""
    paid: dict[str, set[str]] = {}
    for recording in recordings:
        if recording.scenario in _PAYMENTS:
            for process, passed in recording.passed.items():
                paid.setdefault(process.partition("-")[0], set()).update(passed)
    return [
        recording
        if recording.scenario in _PAYMENTS
        else Recording(
            recording.scenario,
            {
                process: [n for n in passed if n not in paid.get(process.partition("-")[0], ())]
                for process, passed in recording.passed.items()
            },
        )
        for recording in recordings
    ]


def _points_of(found: Iterable[str], scenario: Scenario) -> list[str]:
    if scenario.waits:
        return [name for name in found if _PERIODIC.search(name)]
    return [
        name
        for name in found
        if not _OF_THE_TEST.search(name)
        and not _OF_THE_MOMENT.search(name)
        and not _PERIODIC.search(name)
        and (scenario.blocks or not _OF_BLOCKS.search(name))
    ]


def attempt(lab: Lab, point: Point) -> bool:
    """Run the point's operation with its process dying there; return whether it did.

    Raises Stuck, Unfit, or what else shows that it was not survived.
    """
    scenario, control = _BY_NAME[point.scenario], lab.network.controls[point.process]
    scenario.prepare(lab)
    lab.calm()
    position = control.position()
    lab.deaths = point.deaths
    control.arm(point.name, point.when)
    try:
        scenario.run(lab)
        lab.calm()
    finally:
        control.disarm()
    lab.calm()
    lab.check_books()
    return control.fired(position)


def attempt_cut(lab: Lab, cut: Cut) -> bool:
    """Run the cut's operation with that message hit; return whether it came by.

    Raises Stuck, Unfit, or what else shows that it was not survived.
    """
    scenario, proxy = _BY_NAME[cut.scenario], lab.network.proxies[cut.link]
    scenario.prepare(lab)
    lab.calm()
    lab.deaths = 1  # nobody is to die: what happens every few seconds is waited for
    proxy.arm(Fault(cut.kind, cut.method, cut.action))
    try:
        scenario.run(lab)
    finally:
        proxy.release()
    if cut.link == "signer":
        # It would dial again more and more slowly, as its links last for moments only.
        lab.network.signer.kill()
    lab.calm()
    lab.check_books()
    return proxy.struck


def _try(lab: Lab, point: Point | Cut) -> Result:
    began = time.monotonic()
    try:
        for _ in range(TRIES):
            if attempt(lab, point) if isinstance(point, Point) else attempt_cut(lab, point):
                return Result(point, time.monotonic() - began, "", "")
    except Exception:
        trouble, logs = traceback.format_exc(limit=-4), _logs(lab.network.directory)
        return Result(point, time.monotonic() - began, trouble, logs)
    seconds = time.monotonic() - began
    if isinstance(point, Point) and _BY_TIME.search(point.name):
        return Result(point, seconds, "", "", met=False)
    return Result(point, seconds, "the boundary was not passed", "")


def _logs(directory: Path) -> str:
    parts = []
    for path in sorted(directory.rglob("*.log")):
        if path.name != "postgres.log":
            lines = path.read_text(errors="replace").splitlines()[-LINES:]
            parts.append("\n".join([f"--- {path.relative_to(directory)}", *lines]))
    return "\n".join(parts)


# -- networks side by side ---------------------------------------------------------------------


def _work(
    directory: str,
    proxied: bool,
    tasks: Queue[str | Point | Cut | None],
    results: Queue[Recording | Result],
) -> None:
    """Build a network, take tasks until None; a network that a point broke is replaced."""
    number, task = 0, tasks.get()
    while task is not None:
        number += 1
        with Lab(Path(directory) / str(number), proxied=proxied) as lab:
            while task is not None:
                if isinstance(task, str):
                    results.put(record(lab, _BY_NAME[task]))
                else:
                    result = _try(lab, task)
                    results.put(result)
                    if result.logs:
                        task = tasks.get()
                        break
                task = tasks.get()


class Campaign:
    """Workers with a network each; use as a context manager."""

    def __init__(self, directory: Path, *, proxied: bool = False, workers: int = WORKERS) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks: Queue[str | Point | Cut | None] = context.Queue()
        self._results: Queue[Recording | Result] = context.Queue()
        self._workers = [
            context.Process(
                target=_work,
                args=(str(directory / str(number)), proxied, self._tasks, self._results),
            )
            for number in range(workers)
        ]

    def __enter__(self) -> Campaign:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Empty):
            while True:  # what is left when the test was interrupted
                self._tasks.get(timeout=0.1)
        for _worker in self._workers:
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
        return _without_payments([found[name] for name in order])

    def run(self, points: Iterable[Point | Cut]) -> Iterator[Result]:
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
            except queue.Empty:
                if not all(worker.is_alive() for worker in self._workers):
                    raise RuntimeError("a worker of the campaign ended") from None


# -- which points, and what came of them -------------------------------------------------------

SHARE = "FAULT_SHARE"
"""Environment variable: one of how many points is tried, of payments four times more; 1 is all."""
SHOWN = 3
T = TypeVar("T", Point, Cut)


def chosen(points: Sequence[T]) -> list[T]:
    """Return a share of the points that changes by the day, four times as large for payments."""
    share = int(os.environ.get(SHARE, "64"))
    day = datetime.now(UTC).toordinal()
    picked: set[T] = set()
    for of_payments, step in ((True, max(1, share // 4)), (False, share)):
        group = [point for point in points if _often(point) is of_payments]
        picked.update(group[day % step :: step])
    return [point for point in points if point in picked]


def _often(point: Point | Cut) -> bool:
    return point.scenario in _PAYMENTS and getattr(point, "deaths", 1) == 1


def report(results: Sequence[Result]) -> str:
    """Return a plain table of what was not survived, and the first of it with all logs' ends."""
    failed = [result for result in results if result.trouble]
    lines = [f"{len(failed)} of {len(results)} were not survived:"]
    for result in failed:
        why = result.trouble.strip().splitlines()[-1]
        lines.append(f"  {result.point}\n      {why}")
    for result in failed[:SHOWN]:
        lines += ["", f"=== {result.point}", result.trouble, result.logs]
    return "\n".join(lines)


class Tally:
    """How many of what were tried and survived in this run of the tests."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, int]] = {}
        self._missed = 0

    def count(self, what: str, results: Sequence[Result]) -> None:
        """Take note of results."""
        met = [result for result in results if result.met]
        survived = sum(not result.trouble for result in met)
        self._counted[what] = (survived, len(met))
        self._missed += len(results) - len(met)

    def lines(self) -> list[str]:
        """Return one line for each kind, crash points last."""
        missed = [f"not met, as time decides: {self._missed}"] if self._missed else []
        return missed + [
            f"{what}: {survived} of {tried} survived"
            for what, (survived, tried) in sorted(self._counted.items(), reverse=True)
        ]

    @property
    def whole(self) -> bool:
        """Whether something was tried, and everything survived."""
        return bool(self._counted) and all(s == n for s, n in self._counted.values())


TALLY = Tally()


def main() -> int:
    """Run a part of the points while working on it: names of scenarios, or nothing for all."""
    cuts = "cuts" in sys.argv
    names_ = set(sys.argv[1:]) - {"cuts"}
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="fault-", dir="/dev/shm") as directory,
        Campaign(Path(directory), proxied=cuts) as campaign,
    ):
        recordings = campaign.record(s for s in SCENARIOS if not names_ or s.name in names_)
        points: list[Point | Cut] = []
        for recording in recordings:
            points += recording.cuts() if cuts else recording.points()
        _say(f"{time.monotonic() - began:.1f} s, {len(points)} points")
        results = []
        for result in campaign.run(points):
            results.append(result)
            word = "FAIL" if result.trouble else "ok"
            _say(f"{result.seconds:6.2f} {word:4} {result.point}")
            if result.trouble:
                _say(f"{result.trouble}\n{result.logs}")
    TALLY.count("cuts" if cuts else "crash points", results)
    _say(f"{time.monotonic() - began:.1f} s\n" + "\n".join(TALLY.lines()))
    return not TALLY.whole


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
