"""What an operator has to know of: when an alarm is due, raised once, cleared when it is over.

Everything here is a pure function of what the watcher sees and of the time, but for `AlarmBook`,
which remembers what was raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Level(Enum):
    """How much it matters; the names are those of the log's levels."""

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something an operator should act on, about one channel (`label`) or about all.

    `subject` tells alarms of one kind and channel apart. `deadline`: chain time (seconds) by which
    the act has to be on the chain. `private`: the message may have words of a merchant, or an
    amount, which do not go into the log.
    """

    kind: str
    message: str
    label: str | None = None
    level: Level = Level.ERROR
    channel: bytes | None = None
    subject: str = ""
    deadline: int | None = None
    private: bool = False

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What makes it the same alarm, whatever its words."""
        return self.kind, self.label, self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An act that the contract gives time for: from when, and until when it has to be final."""

    begin: int
    before: int
    what: str
    label: str
    channel: bytes

    def left(self, now: int) -> float:
        """Return the share of the time that is left, at most 1; negative when it is over."""
        return min((self.before - now) / max(self.before - self.begin, 1), 1.0)


HALF = 0.5
TENTH = 0.1


def deadline_alarms(due: Iterable[Due], *, now: int) -> list[Alarm]:
    """Return an alarm for each act with half of its time gone, and one more with a tenth left."""
    found = []
    for act in due:
        left = act.left(now)
        for share, kind, level in (
            (HALF, "deadline_half", Level.ERROR),
            (TENTH, "deadline_tenth", Level.CRITICAL),
        ):
            if left <= share:
                seconds = act.before - now
                when = f"{seconds} s are left" if seconds > 0 else "the time for it is over"
                found.append(
                    Alarm(
                        kind,
                        f"{act.what}: {when}",
                        act.label,
                        level,
                        channel=act.channel,
                        subject=str(act.before),
                        deadline=act.before,
                    )
                )
    return found


def blind_alarms(*, unseen: float, patience: float, allowed: int | None, why: str) -> list[Alarm]:
    """Return the alarms of a chain that is not followed, for `unseen` seconds by now.

    `allowed` is for how long nothing can be missed: an expire right after the last look may be
    answered as late as that. None when no channel is open.
    """
    if unseen <= patience:
        return []
    reason = f"the chain is not followed: {why}" if why else "the chain is not followed"
    found = [Alarm("chain_not_followed", reason)]
    if allowed is None:
        return found
    left = (allowed - unseen) / max(allowed, 1)
    message = "an expire may be running unseen: the chain was last seen {} s ago".format
    if left <= HALF:
        found.append(Alarm("blind_half", message(int(unseen))))
    if left <= TENTH:
        found.append(Alarm("blind_tenth", message(int(unseen)), level=Level.CRITICAL))
    return found


def chain_time(*, seen: int | None, ago: float, followed: bool, clock: float) -> int:
    """Return the chain's time: its newest block's (`seen`) while it is followed.

    Otherwise time goes on by the local clock: from that block, which was looked at `ago` seconds
    before, or what the clock shows, whichever is later.
    """
    if seen is None:
        return int(clock)
    return seen if followed else int(max(seen + ago, clock))


@dataclass(slots=True)
class AlarmBook:
    """The alarms that hold, each with the time it was raised; seconds of the local clock."""

    raised: dict[tuple[str, str | None, str], tuple[Alarm, float]] = field(default_factory=dict)

    def turn(self, now: Iterable[Alarm], *, clock: float) -> tuple[list[Alarm], list[Alarm]]:
        """Take note of the alarms that hold now; return those that are new, and those over."""
        current = {alarm.key: alarm for alarm in now}
        new = [alarm for key, alarm in current.items() if key not in self.raised]
        over = [alarm for key, (alarm, _) in self.raised.items() if key not in current]
        self.raised = {
            key: (alarm, self.raised[key][1] if key in self.raised else clock)
            for key, alarm in current.items()
        }
        return new, over

    def since(self, alarm: Alarm) -> float | None:
        """Return when an alarm was raised; None before that."""
        found = self.raised.get(alarm.key)
        return None if found is None else found[1]
