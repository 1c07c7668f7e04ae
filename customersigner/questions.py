"""What a person has to agree to: questions, whom to ask, and answers that are good once.

The signer's thread asks for permission; the event loop asks people. Whoever can answer is an
`Asker`: the terminal that the signer runs on, or `customersigner confirm` on its socket.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from customersigner.policy import CONFIRMATION_REQUIRED, refused
from zkchannels.wire.signer import ERRORS

Answer = Literal["yes", "no", "unanswered"]

MOST_OFFERED: Final = 256
"""Questions that are remembered while the daemon has not asked for their answer."""
LONGEST_TEXT: Final = 300


class AskerGone(Exception):
    """Whoever was asked went away without an answer."""


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One payment or deposit to agree to.

    amount, to: text of the signer's own making; note: what the daemon says, as it says it;
    about: exactly what is agreed to
    """

    kind: Literal["payment", "deposit"]
    amount: str
    to: str
    note: str
    about: bytes

    @property
    def lines(self) -> list[str]:
        """The question in plain words, safe to show on a terminal."""
        what = (
            f"Pay {plain(self.amount)} to {plain(self.to)}?"
            if self.kind == "payment"
            else f"Deposit {plain(self.amount)} into a channel with {plain(self.to)}?"
        )
        if not self.note:
            return [what]
        return [what, f'The daemon says what it is for, unverified: "{plain(self.note)}"']


class Asker(Protocol):
    """Somebody to ask."""

    async def ask(self, question: Question) -> bool:
        """Return whether the person agrees; raises AskerGone. Cancelled: the question is void."""
        ...


@dataclass(slots=True)
class _Offer:
    question: Question
    patience: float


class Questions:
    """The questions of one signer."""

    def __init__(self) -> None:
        self._askers: list[Asker] = []
        self._offers: dict[str, _Offer] = {}
        self._agreed: dict[bytes, float] = {}
        self._turn = asyncio.Lock()
        self._asked: dict[str, asyncio.Timeout] = {}

    # -- the signer's thread ----------------------------------------------------------------------

    def require(self, question: Question, *, patience: float) -> None:
        """Return if a person agreed to exactly this; the answer is used up by it.

        Raises `confirmation_pending` when there is somebody to ask, else `policy_refused`.
        """
        if self._agreed.pop(question.about, 0.0) > time.monotonic():
            return
        if not self._askers:
            raise refused(
                CONFIRMATION_REQUIRED,
                "somebody has to confirm this, and nobody is there to be asked: "
                "run `customersigner confirm` where the signer runs",
            )
        known = (name for name, offer in list(self._offers.items()) if offer.question == question)
        name = next(known, None) or secrets.token_hex(16)
        while len(self._offers) >= MOST_OFFERED:
            self._offers.pop(next(iter(self._offers)))
        self._offers[name] = _Offer(question, patience)
        raise ERRORS.error(
            "confirmation_pending",
            "waiting for the person at the signer",
            question=name,
            patience=patience,
        )

    # -- the event loop ---------------------------------------------------------------------------

    @contextmanager
    def asking(self, asker: Asker) -> Iterator[None]:
        """Ask somebody for as long as the body runs; the one who came last is asked first."""
        self._askers.append(asker)
        try:
            yield
        finally:
            self._askers.remove(asker)

    async def answer(self, name: str) -> Answer:
        """Ask the question of this name, after those before it; a yes is good for one request.

        Raises `out_of_order` for a question that nothing asked for. Cancelled: it is withdrawn.
        """
        offer = self._offers.get(name)
        if offer is None:
            raise ERRORS.error("out_of_order", "this question is no longer open")
        try:
            async with asyncio.timeout(offer.patience) as ends:
                self._asked[name] = ends
                async with self._turn:
                    agreed = await self._ask(offer.question)
        except TimeoutError:
            return "unanswered"
        finally:
            self._offers.pop(name, None)
            self._asked.pop(name, None)
        if agreed is None:
            return "unanswered"
        if not agreed:
            return "no"
        self._agreed[offer.question.about] = time.monotonic() + offer.patience
        return "yes"

    def withdraw(self, name: str) -> None:
        """Take the question of this name back, whether it is being asked or waits its turn."""
        self._offers.pop(name, None)
        ends = self._asked.pop(name, None)
        if ends is not None:
            ends.reschedule(asyncio.get_running_loop().time())

    async def _ask(self, question: Question) -> bool | None:
        """Ask one after the other of those who are there; None: all of them went away."""
        asked: list[Asker] = []
        while left := [asker for asker in self._askers if asker not in asked]:
            asked.append(left[-1])
            try:
                return await left[-1].ask(question)
            except AskerGone:
                continue
        return None


def plain(text: str) -> str:
    """Text from elsewhere on one line, shortened, without anything that could steer a terminal."""
    shown = "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text[: LONGEST_TEXT + 1]
    )
    return shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]}…"
