"""Two daemons on one database, each able to stall anywhere and to wake up hours later.

Each works on a copy of the row that it read: a step is prepared, then committed if the commit's
conditions hold, then followed by a send from memory. Operation k pays from state k to k+1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.explorer import Move, World

OPERATIONS = 2

_EXPECTED = {"prove": "idle", "authorize": "proved", "complete": "revoking"}


class Row(NamedTuple):
    """The channel's row and its queue; `ended` counts the operations with an outcome."""

    status: str = "idle"
    at: int = 0
    authorized: int = 0
    closing: int = -1
    ended: int = 0


class Lease(NamedTuple):
    """The lease's row: who has it, under which number, and whether it still runs."""

    holder: int = -1
    fence: int = 0
    runs: bool = False


class Daemon(NamedTuple):
    """One process: the fence it took, the runner's step and the watcher's decision in memory."""

    alive: bool = True
    fence: int = -1
    step: str = ""
    at: int = -1
    decides: int = -1


class State(NamedTuple):
    """Both daemons, the database, what the merchant knows and which closes were sent.

    `reached` is the highest state that had its token; `stop` says that the user wants to close.
    """

    daemons: tuple[Daemon, Daemon] = (Daemon(), Daemon())
    row: Row = Row()
    lease: Lease = Lease()
    bound: int = 0
    knows: int = -1
    closes: frozenset[int] = frozenset()
    reached: int = 0


class TwoDaemons:
    """The moves with some rules dropped."""

    def __init__(self, dropped: frozenset[str] = frozenset()) -> None:
        self.dropped = dropped

    def world(self) -> World[State]:
        """The world to explore; the second daemon must reach an end without the first."""
        return World(
            start=State(),
            moves=self.moves,
            wrong=wrong,
            settled=lambda s: s.row.status == "decided" and s.row.closing in s.closes,
            helpful=lambda label: not label.startswith(("0 ", "user", "a daemon")),
        )

    def moves(self, s: State) -> Iterator[Move[State]]:
        """Everything that may happen next."""
        if s.lease.runs and "lease-expires" not in self.dropped:
            yield "the lease runs out", s._replace(lease=s.lease._replace(runs=False))
        for me in (0, 1):
            if not s.daemons[me].alive:
                continue
            yield from self._lease(s, me)
            if s.daemons[me].fence >= 0:
                yield from self._pay(s, me)
                yield from self._close(s, me)
        if s.daemons[0].alive:
            dead = Daemon(alive=False)
            yield "a daemon dies", s._replace(daemons=(dead, s.daemons[1]))

    def _lease(self, s: State, me: int) -> Iterator[Move[State]]:
        mine = s.daemons[me]
        free = not s.lease.runs or s.lease.holder == me
        few = s.lease.fence < 3 or (me == 1 and s.lease.holder == 0)
        if (free or "lease-exclusive" in self.dropped) and few:
            if mine.fence == s.lease.fence and s.lease.runs and s.lease.holder == me:
                return
            fence = s.lease.fence + 1
            taken = s._replace(lease=Lease(me, fence, runs=True))
            yield f"{me} takes the lease", _with(taken, me, mine._replace(fence=fence))
        if s.lease.holder == me and mine.fence == s.lease.fence and not s.lease.runs:
            yield f"{me} renews the lease", s._replace(lease=s.lease._replace(runs=True))

    def _holds(self, s: State, me: int) -> bool:
        if "lease-fence" in self.dropped:
            return True
        return s.daemons[me].fence == s.lease.fence and s.lease.runs

    def _pay(self, s: State, me: int) -> Iterator[Move[State]]:
        mine, row = s.daemons[me], s.row
        if mine.step == "":
            step = {"idle": "prove", "proved": "authorize", "revoking": "secret"}.get(row.status)
            if step == "prove" and row.ended >= OPERATIONS:
                return
            if step is not None and self._holds(s, me):
                read = mine._replace(step=step, at=row.at)
                yield f"{me} reads the row, begins {step} {row.at}", _with(s, me, read)
        elif mine.step == "secret":
            sent = s._replace(knows=max(s.knows, mine.at))
            yield (
                f"{me} sends secret {mine.at}",
                _with(sent, me, mine._replace(step="complete")),
            )
        else:
            yield from self._commit(s, me)

    def _commit(self, s: State, me: int) -> Iterator[Move[State]]:
        """Commit the runner's step, or find that its conditions do not hold and forget it."""
        mine, row = s.daemons[me], s.row
        idle = mine._replace(step="", at=-1)
        ended = row.ended > mine.at and "ended-once" not in self.dropped
        moved = row.status != _EXPECTED[mine.step] and "close-stops-pay" not in self.dropped
        if not self._holds(s, me) or ended or moved:
            yield f"{me} may not commit {mine.step} {mine.at}", _with(s, me, idle)
            return
        label = f"{me} commits {mine.step} {mine.at}"
        match mine.step:
            case "prove":
                proved = s._replace(
                    row=row._replace(status="proved"), bound=max(s.bound, mine.at + 1)
                )
                yield label, _with(proved, me, idle)
            case "authorize":
                status = "decided" if row.status == "decided" else "revoking"
                written = row._replace(status=status, authorized=mine.at + 1)
                yield label, _with(s._replace(row=written), me, mine._replace(step="secret"))
            case _:
                status = "decided" if row.status == "decided" else "idle"
                done = row._replace(status=status, at=mine.at + 1, ended=mine.at + 1)
                paid = s._replace(row=done, reached=max(s.reached, mine.at + 1))
                yield label, _with(paid, me, idle)

    def _close(self, s: State, me: int) -> Iterator[Move[State]]:
        mine, row = s.daemons[me], s.row
        if mine.decides < 0 and row.status != "decided" and self._holds(s, me):
            decides = mine._replace(decides=row.authorized)
            yield f"{me} reads the row, is to close on {row.authorized}", _with(s, me, decides)
        if mine.decides >= 0:
            yield from self._decide(s, me)
        if row.status == "decided" and row.closing not in s.closes and self._holds(s, me):
            yield f"{me} sends close {row.closing}", s._replace(closes=s.closes | {row.closing})

    def _decide(self, s: State, me: int) -> Iterator[Move[State]]:
        mine, row = s.daemons[me], s.row
        idle = mine._replace(decides=-1)
        if not self._holds(s, me) or row.status == "decided":
            yield f"{me} may not commit its decision", _with(s, me, idle)
            return
        # Under the row's lock the state is read again; without, it is the one read before.
        closing = mine.decides if "close-stops-pay" in self.dropped else row.authorized
        decided = s._replace(row=row._replace(status="decided", closing=closing))
        yield f"{me} commits the decision to close on {closing}", _with(decided, me, idle)


def _with(s: State, me: int, daemon: Daemon) -> State:
    first, second = s.daemons
    return s._replace(daemons=(daemon, second) if me == 0 else (first, daemon))


def wrong(s: State) -> str | None:
    """S1 and S4: no close on a revoked state, no way back to a spent one."""
    if any(state <= s.knows for state in s.closes):
        return "S1: a close was sent on a state whose secret has left"
    if s.row.at < s.reached:
        return "S4: the channel is back at a state that was spent"
    return None
