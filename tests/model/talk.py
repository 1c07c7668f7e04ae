"""Customer and merchant, both honest, over a network that loses, repeats and reorders everything.

Each message that was sent stays: it may arrive never, late, often. Processes crash between any two
steps, the daemon's database goes back in time, or all of the customer's records are lost and the
seed alone is left; then `pay.recover` walks the channel forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import Move, World

Name = tuple[int, int, int]
"""What commitments are derived from: state, attempt, operation (which stands for the amount)."""

Message = tuple[object, ...]

PROVED, ACCEPTED = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`operations` are queued; `lost`: "daemon" (an old database) or "all" (the seed is left)."""

    operations: int = 3
    lost: str = "daemon"


class State(NamedTuple):
    """The daemon's record, the signer's, what is in the network, and the merchant's records.

    `task` is the operation at work, `operation` the next in the queue; `results` are those of the
    operations before it: "past" is one that was finished or begun before a loss of records.
    """

    status: str = "idle"
    at: int = 0
    attempt: int = 0
    task: int = -1
    operation: int = 0
    results: tuple[str, ...] = ()
    memory: str = ""
    asked: bool = False
    closed: bool = False
    signer: tuple[int, int, int, int] = (0, 0, 0, -1)
    wire: frozenset[Message] = frozenset()
    bound: frozenset[Name] = frozenset()
    refused: frozenset[Name] = frozenset()
    revoked: frozenset[int] = frozenset()
    burned: frozenset[int] = frozenset()
    served: tuple[int, ...] = ()
    lost: bool = False


class Talk:
    """The moves over one line with some rules dropped."""

    def __init__(self, line: Line, dropped: frozenset[str] = frozenset()) -> None:
        self.line = line
        self.dropped = dropped

    def world(self) -> World[State]:
        """The world to explore."""
        return World(start=State(), moves=self.moves, wrong=wrong, settled=self.settled)

    def moves(self, s: State) -> Iterator[Move[State]]:
        """Everything that may happen next."""
        if s.closed:
            return
        yield from self._customer(s)
        yield from self._closes(s)
        yield from self._mishaps(s)
        if "mutual-asked" in self.dropped:
            label = f"somebody with a copy of the database asks for close.mutual {s.at}"
            yield label, _send(s, "mutual", s.at)
        for message in s.wire:
            yield from self._arrives(s, message)
        if {"repeat-ca", "repeat-token"} & self.dropped:
            for message in s.wire:
                if message[0] in ("authorization", "token"):
                    yield f"{message} is lost", s._replace(wire=s.wire - {message})

    # -- the customer -------------------------------------------------------------------------

    def _customer(self, s: State) -> Iterator[Move[State]]:
        behind = s.signer[:3] > _mark(s) and s.status != "suspect"
        if s.memory == "token":
            yield "daemon writes the operation done", _finish(s._replace(memory=""), "done")
        elif s.memory == "proof":
            yield "daemon writes the proof", s._replace(memory="", status="proved")
            if "prove-before-send" in self.dropped:
                sent = _send(s, "prove", *_here(s))
                yield f"daemon sends pay.prove {_here(s)} before it writes", sent
        elif behind and "adopt" not in self.dropped:
            yield "signer attaches: daemon takes over its newer record", self._adopted(s)
        elif s.status == "idle" and s.operation < self.line.operations and self._may_pay(s):
            yield from self._prepare(s, afresh=behind)
        queued = s.status == "idle" and not s.memory and s.operation < self.line.operations
        if queued and (not behind or "adopt" in self.dropped):
            yield (
                f"user cancels operation {s.operation}",
                s._replace(operation=s.operation + 1, results=(*s.results, "cancelled")),
            )
        if s.status == "proved" and not s.memory:
            yield f"daemon sends pay.prove {_here(s)}", _send(s, "prove", *_here(s))
        if s.status == "revoking":
            yield f"daemon sends pay.revoke {_here(s)}", _send(s, "revoke", *_here(s))
        if s.status == "suspect":
            yield f"daemon sends pay.recover {s.at}", _send(s, "recover", s.at)

    def _may_pay(self, s: State) -> bool:
        return not s.asked or "close-final" in self.dropped

    def _prepare(self, s: State, *, afresh: bool) -> Iterator[Move[State]]:
        begun = s._replace(task=s.operation)
        if afresh:
            yield "daemon begins afresh", begun._replace(status="proved")
            return
        signer = (s.at, s.attempt, PROVED, s.operation)
        if "signer-counter" in self.dropped:
            signer = s.signer
        yield f"signer proves {_here(begun)}", begun._replace(memory="proof", signer=signer)

    def _adopted(self, s: State) -> State:
        at, attempt, stage, operation = s.signer
        results = s.results[:operation]
        results += ("past",) * (operation - len(results))
        taken = s._replace(
            status="proved" if stage == PROVED else "revoking",
            at=at,
            attempt=attempt,
            task=operation,
            operation=operation,
            results=results,
        )
        if "operation-once" in self.dropped:
            return taken._replace(task=s.operation, operation=s.operation, results=s.results)
        return taken

    def _closes(self, s: State) -> Iterator[Move[State]]:
        if s.status == "idle" and not s.memory and s.signer[:3] <= _mark(s):
            yield (
                f"daemon writes and sends close.mutual {s.at}",
                _send(s._replace(asked=True), "mutual", s.at),
            )

    def _mishaps(self, s: State) -> Iterator[Move[State]]:
        if s.memory:
            task = -1 if s.memory == "proof" else s.task
            yield "daemon crashes", s._replace(memory="", task=task)
        if s.lost or s.asked:
            return
        if self.line.lost == "daemon" and (s.at, s.attempt, s.status) != (0, 0, "idle"):
            yield (
                "an old database is restored",
                s._replace(
                    status="idle",
                    at=0,
                    attempt=0,
                    task=-1,
                    operation=0,
                    results=(),
                    memory="",
                    lost=True,
                ),
            )
        if self.line.lost == "all":
            begun = s.operation + (s.task >= 0)
            yield (
                "all records are lost; the seed is restored",
                s._replace(
                    status="idle" if "suspect" in self.dropped else "suspect",
                    at=0,
                    attempt=0,
                    task=-1,
                    operation=begun,
                    results=("past",) * begun,
                    memory="",
                    signer=(0, 0, 0, -1),
                    lost=True,
                ),
            )

    # -- messages -----------------------------------------------------------------------------

    def _arrives(self, s: State, message: Message) -> Iterator[Move[State]]:
        match message:
            case ("prove", int(at), int(attempt), int(operation)):
                yield from self._merchant_proves(s, (at, attempt, operation))
            case ("revoke", int(at), int(attempt), int(operation)):
                yield from self._merchant_revokes(s, (at, attempt, operation))
            case ("mutual", int(at)) if at not in s.revoked:
                burned = s._replace(burned=s.burned | {at})
                label = f"merchant writes lock {at}, signs the close"
                yield label, _send(burned, "agreement", at)
            case ("recover", int(at)):
                yield self._merchant_recovers(s, at)
            case ("record" | "unknown", *_) if s.status == "suspect" and message[1] == s.at:
                yield self._recovers(s, message)
            case ("authorization" | "refusal" | "other", *_) if s.status == "proved":
                yield from self._proof_answered(s, message)
            case ("token", *_) if s.status == "revoking" and message[1:] == _here(s):
                yield from self._token(s)
            case ("agreement", int(at)) if s.asked and at == s.at and not s.memory:
                if s.status == "idle":
                    yield "daemon closes by agreement", s._replace(closed=True)

    def _proof_answered(self, s: State, message: Message) -> Iterator[Move[State]]:
        """An answer to pay.prove arrives; those to other proofs are ignored."""
        kind, mine = message[0], message[1:] == _here(s)
        if kind == "authorization" and mine:
            signer = max(s.signer, (s.at, s.attempt, ACCEPTED, s.task))
            written = s._replace(status="revoking", signer=signer)
            yield f"daemon writes authorization and secret {_here(s)}", written
        if kind == "refusal" and mine and not s.memory:
            idle = s._replace(status="idle", attempt=s.attempt + 1)
            yield f"daemon writes operation {s.task} refused", _finish(idle, "refused")
        if kind == "other" and mine and "bound-recovers" not in self.dropped:
            suspect = s._replace(status="suspect")
            yield "daemon writes suspect: the nonce is bound to something else", suspect

    def _token(self, s: State) -> Iterator[Move[State]]:
        if s.memory:
            return
        moved = s._replace(status="idle", at=s.at + 1, attempt=0)
        if "done-with-index" in self.dropped and s.task == len(s.results):
            yield f"daemon writes the token of {_here(s)}", moved._replace(memory="token")
            return
        yield f"daemon writes the token of {_here(s)}, and done", _finish(moved, "done")

    def _merchant_proves(self, s: State, name: Name) -> Iterator[Move[State]]:
        known = next((bound for bound in s.bound if bound[0] == name[0]), None)
        if known == name:
            if "repeat-ca" not in self.dropped:
                yield f"merchant repeats the authorization {name}", _send(s, "authorization", *name)
        elif known is not None:
            yield f"merchant has bound {known}, not {name}", _send(s, "other", *name)
        elif name in s.refused:
            yield f"merchant repeats the refusal {name}", _send(s, "refusal", *name)
        else:
            bound = s._replace(bound=s.bound | {name})
            yield f"merchant writes and authorizes {name}", _send(bound, "authorization", *name)
            refused = s.refused | {name} if "refusal-durable" not in self.dropped else s.refused
            yield f"merchant refuses {name}", _send(s._replace(refused=refused), "refusal", *name)

    def _merchant_revokes(self, s: State, name: Name) -> Iterator[Move[State]]:
        at, _, operation = name
        if name not in s.bound or at in s.burned:
            return
        if at in s.revoked:
            if "repeat-token" not in self.dropped:
                yield f"merchant repeats the token {name}", _send(s, "token", *name)
            return
        paid = s._replace(revoked=s.revoked | {at}, served=(*s.served, operation))
        yield (
            f"merchant writes the secret, serves, gives the token {name}",
            _send(paid, "token", *name),
        )

    # -- recovery -----------------------------------------------------------------------------

    def _merchant_recovers(self, s: State, at: int) -> Move[State]:
        known = next((bound for bound in s.bound if bound[0] == at), None)
        if known is None:
            return f"merchant knows nothing of state {at}", _send(s, "unknown", at)
        token = at in s.revoked
        return f"merchant gives its record {known}", _send(s, "record", *known, token)

    def _recovers(self, s: State, message: Message) -> Move[State]:
        match message:
            case ("record", int(at), int(attempt), int(operation), bool(token)):
                if token and "recover-all" not in self.dropped:
                    return f"daemon walks on from state {at}", s._replace(at=at + 1)
                signer = (at, attempt, ACCEPTED, operation)
                if "recover-pending" in self.dropped:
                    return "daemon takes the state for unspent", s._replace(status="idle")
                return f"daemon takes up the payment {(at, attempt, operation)}", s._replace(
                    status="revoking", attempt=attempt, task=operation, signer=signer
                )
            case _:
                return f"daemon is at state {s.at}", s._replace(
                    status="idle", attempt=0, task=-1, signer=(s.at, 0, 0, -1)
                )

    # -- properties ---------------------------------------------------------------------------

    def settled(self, s: State) -> bool:
        """Whether every operation has its result and nothing is under way."""
        idle = s.status == "idle" and not s.memory and not s.asked
        return s.closed or (idle and s.operation == self.line.operations)


def _here(s: State) -> Name:
    return s.at, s.attempt, s.task


def _mark(s: State) -> tuple[int, int, int]:
    return s.at, s.attempt, {"idle": 0, "proved": PROVED, "revoking": ACCEPTED}.get(s.status, 0)


def _send(s: State, *message: object) -> State:
    return s._replace(wire=s.wire | {message})


def _finish(s: State, result: str) -> State:
    """Note the outcome of the operation at work, unless it is one from before a loss."""
    if s.task < len(s.results):
        return s._replace(task=-1)
    return s._replace(task=-1, operation=s.operation + 1, results=(*s.results, result))


def wrong(s: State) -> str | None:
    """S4: nothing is paid twice, and what is said about an operation is true."""
    if len(set(s.served)) != len(s.served):
        return "S4: an operation was paid twice"
    for number, result in enumerate(s.results):
        if result == "done" and number not in s.served:
            return f"S4: operation {number} is said to be done and was not paid"
        if result in ("refused", "cancelled") and number in s.served:
            return f"S4: operation {number} is said to be {result} and was paid"
    return None
