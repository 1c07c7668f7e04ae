"""Random histories of a whole network: operations and faults, against a model of who owns what.

Hypothesis draws the history; every program is the real one. After each step everything has to
settle by itself, all books have to agree with each other and with the model, and what a closed
channel paid out on chain has to be what the model says.
"""

from __future__ import annotations

import functools
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.fault.control import When, names
from tests.fault.lab import Lab
from tests.fault.network import PROCESSES
from tests.fault.proxy import Action, Fault, Kind
from zkchannels.wire import merchant as merchant_wire
from zkchannels.wire import signer as signer_wire

MOST_CHANNELS = 5
DEEPEST_REORGANISATION = 2
"""Blocks: what is deeper than this is final on the development chain."""
LONGEST_JUMP = 300
"""Seconds that the clock may jump: the daemon is given its margin, as the operator is told."""
NOTHING_WAS_BOUND = frozenset({"merchant_unreachable"})
ACTIONS: tuple[Action, ...] = ("cut", "truncate", "duplicate", "delay", "late")
_MERCHANT_MESSAGES = [
    merchant_wire.PAY_PROPOSE.name,
    merchant_wire.PAY_PROVE.name,
    merchant_wire.PAY_REVOKE.name,
    merchant_wire.ESTABLISH_PROPOSE.name,
    merchant_wire.ESTABLISH_PROVE.name,
    merchant_wire.ESTABLISH_ACTIVATE.name,
    merchant_wire.CLOSE_MUTUAL.name,
]
_SIGNER_MESSAGES = [
    signer_wire.PAY_PROVE.name,
    signer_wire.PAY_AUTHORIZE.name,
    signer_wire.PAY_COMPLETE.name,
    signer_wire.ESTABLISH_PROVE.name,
    signer_wire.ESTABLISH_AUTHORIZE.name,
    signer_wire.CLOSE_AUTHORIZE.name,
]

_ANY = st.integers(min_value=0, max_value=2**31)
_WHENS: st.SearchStrategy[When] = st.sampled_from(("before", "after"))
_CRASHES = st.tuples(st.just("crash"), st.sampled_from(PROCESSES), _ANY, _WHENS)
_CUTS = st.tuples(
    st.just("cut"),
    st.sampled_from(("coffee", "bakery", "signer")),
    _ANY,
    st.sampled_from(("request", "answer")),
    st.sampled_from(ACTIONS),
)
FAULTS = st.one_of(st.none(), _CRASHES, _CRASHES, _CUTS)


@dataclass
class Owned:
    """What the model knows of a channel: who owns how many units of it."""

    merchant: str
    customer: int
    paid: int

    @property
    def balances(self) -> tuple[int, int]:
        """The customer's balance and the merchant's."""
        return self.customer, self.paid


@dataclass
class Tally:
    """What a run has done so far."""

    began: float = field(default_factory=time.monotonic)
    histories: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    trouble: str = ""
    paid_out: int = 0
    """Units that closed channels paid to customers and merchants, all as the model says."""

    def line(self) -> str:
        """Return everything in one line."""
        return (
            f"{(time.monotonic() - self.began) / 3600:.2f} h, {self.histories} histories, "
            f"{self.operations.total()} operations ({_counts(self.operations)}; "
            f"{self.refused} refused with nothing bound), "
            f"{self.faults.total()} faults ({_counts(self.faults)}), "
            f"{self.paid_out} units paid out, money lost: none"
        )


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counted.items()))


def told(step: Callable[..., None]) -> Callable[..., None]:
    """Keep what a step was asked, and the first trouble that it ran into.

    After a trouble Hypothesis wants to see it again: the network is not the same any more.
    """

    @functools.wraps(step)
    def telling(self: WholeSystem, **drawn: Any) -> None:
        if self.tally.trouble:
            raise Trouble(self.tally.trouble)
        self.history.append(f"{step.__name__} {drawn or ''}")
        try:
            step(self, **drawn)
        except Exception:
            lines = [*self.history, traceback.format_exc(limit=-6)]
            self.tally.trouble = "\n".join(lines)
            raise

    return telling


class Trouble(AssertionError):
    """A history in which something was lost or did not settle, step by step."""


class WholeSystem(RuleBasedStateMachine):
    """One history on a network that earlier histories have used."""

    def __init__(self, lab: Lab, tally: Tally) -> None:
        super().__init__()
        self.lab = lab
        self.tally = tally
        self.owned: dict[str, Owned] = {}
        self.history: list[str] = []

    @initialize()
    @told
    def begin(self) -> None:
        """Bury what funds the accounts: reorganisations do not reach it."""
        self.lab.network.chain.mine(DEEPEST_REORGANISATION + 1)
        self.tally.histories += 1
        self._settle()

    # -- operations ---------------------------------------------------------------------------

    @rule(
        merchant=st.sampled_from(("coffee", "coffee", "bakery")),
        deposit=st.integers(1_000, 10**9),
        theirs=st.one_of(st.just(0), st.integers(1, 10**8)),
        fault=FAULTS,
    )
    @told
    def establish(self, merchant: str, deposit: int, theirs: int, fault: Any) -> None:
        """Open a channel, unless there are enough."""
        if len(self.owned) >= MOST_CHANNELS:
            return
        self._open(fault, merchant, deposit, theirs)
        self._settle()

    @rule(which=_ANY, share=st.integers(1, 100), fault=FAULTS)
    @told
    def pay(self, which: int, share: int, fault: Any) -> None:
        """Pay a part of what is left, or all of it."""
        label, owned = self._pick(which)
        self._move(fault, "pay", label, owned.customer * share // 100)

    @rule(which=_ANY, share=st.integers(1, 20), fault=FAULTS)
    @told
    def pay_on(self, which: int, share: int, fault: Any) -> None:
        """Pay again: it is what channels are for."""
        label, owned = self._pick(which)
        self._move(fault, "pay", label, owned.customer * share // 100)

    @rule(which=_ANY, share=st.integers(1, 100), fault=FAULTS)
    @told
    def refund(self, which: int, share: int, fault: Any) -> None:
        """Be paid back a part of what was paid, or all of it."""
        label, owned = self._pick(which)
        self._move(fault, "refund", label, owned.paid * share // 100)

    @rule(
        which=_ANY,
        how=st.sampled_from(("agreement", "force", "expire", "expire without the signer")),
        fault=FAULTS,
    )
    @told
    def end(self, which: int, how: str, fault: Any) -> None:
        """End a channel: by agreement, without the merchant, or as the merchant's wish."""
        label, owned = self._pick(which)
        if how.startswith("expire") and owned.merchant == "coffee":
            self._expire(label, away=how != "expire")
        else:
            done = self._operate(fault, "close", label=label, force=how == "force")
            assert done, "a close is not refused"
        self._end(label)

    # -- faults between operations ------------------------------------------------------------

    @rule(
        what=st.sampled_from(("kill", "reorganise", "jump", "database", "node")),
        process=st.sampled_from(PROCESSES),
        depth=st.integers(1, DEEPEST_REORGANISATION),
        seconds=st.integers(1, LONGEST_JUMP),
        order=st.sampled_from((signal.SIGKILL, signal.SIGINT, signal.SIGQUIT)),
    )
    @told
    def disturb(
        self, what: str, process: str, depth: int, seconds: int, order: signal.Signals
    ) -> None:
        """Hit what has nothing to do: a process, the chain, the clock, PostgreSQL, the node."""
        network = self.lab.network
        match what:
            case "kill":
                network.service(process).kill()
            case "reorganise":
                # What the newest blocks held is dropped, and has to be sent again.
                network.chain.reorg(depth)
            case "jump":
                network.chain.increase_time(seconds)
            case "database":
                network.cluster.restart(order)
                self.lab.forget_connections()
            case "node":
                network.chain.stop()
                network.chain.restart()
                # It knows no states of the blocks it has loaded: none of them is reorganised.
                network.chain.mine(DEEPEST_REORGANISATION + 1)
        self.tally.faults[what] += 1
        self._settle()

    # -- shared -------------------------------------------------------------------------------

    def _pick(self, which: int) -> tuple[str, Owned]:
        # Whether there is one is not for a precondition to say: what is drawn must not depend on
        # how the real processes fared.
        if not self.owned:
            assert self._open(None, "coffee", 10**9, 0)
        labels = sorted(self.owned)
        label = labels[which % len(labels)]
        return label, self.owned[label]

    def _open(self, fault: Any, merchant: str, deposit: int, theirs: int) -> bool:
        label = self.lab.new_label()
        done = self._operate(
            fault,
            "establish",
            label=label,
            merchant=self.lab.network.merchants[merchant].address,
            deposit=deposit,
            merchant_deposit=theirs,
        )
        if done:
            self.owned[label] = Owned(merchant, deposit, theirs)
        return done

    def _move(self, fault: Any, method: str, label: str, amount: int) -> None:
        if amount == 0:
            return
        if self._operate(fault, method, label=label, amount=amount):
            owned, moved = self.owned[label], amount if method == "pay" else -amount
            owned.customer -= moved
            owned.paid += moved
        self._settle()

    def _operate(self, fault: Any, method: str, **params: Any) -> bool:
        """Run an operation under a fault; return whether it was done."""
        undo = self._arm(fault)
        try:
            outcome = self.lab.operate(method, blocks=True, **params)
        finally:
            undo()
        self.tally.operations[method] += 1
        if outcome["status"] == "done":
            return True
        assert outcome["status"] == "refused", outcome
        assert outcome["error"]["kind"] in NOTHING_WAS_BOUND, outcome
        self.tally.refused += 1
        return False

    def _arm(self, fault: Any) -> Callable[[], None]:
        """Arm a fault; return what takes it back."""
        match fault:
            case ("crash", process, index, when):
                return self._arm_crash(process, index, when)
            case ("cut", link, index, kind, action):
                return self._arm_cut(link, index, kind, action)
            case _:
                return lambda: None

    def _arm_crash(self, process: str, index: int, when: When) -> Callable[[], None]:
        control = self.lab.network.controls[process]
        passed = names(control.passages())
        if not passed:
            return lambda: None
        position = control.position()
        control.arm(passed[index % len(passed)], when)

        def undo() -> None:
            control.disarm()
            if control.fired(position):
                self.tally.faults["crash at a boundary"] += 1

        return undo

    def _arm_cut(self, link: str, index: int, kind: Kind, action: Action) -> Callable[[], None]:
        messages = _SIGNER_MESSAGES if link == "signer" else _MERCHANT_MESSAGES
        if link == "signer" and action == "late":
            # A signer has one link: while a line of it is held nothing can go on without it.
            action = "cut"
        if kind == "answer" and action == "late":
            action = "delay"
        proxy = self.lab.network.proxies[link]
        proxy.arm(Fault(kind, messages[index % len(messages)], action))

        def undo() -> None:
            proxy.release()
            if proxy.struck:
                self.tally.faults[f"message: {action}"] += 1

        return undo

    def _expire(self, label: str, *, away: bool) -> None:
        """Have the merchant end the channel, perhaps while the signer is away."""
        if away:
            self.lab.keep_down("customersigner")
            self.tally.faults["signer away while the merchant expires"] += 1
        self.tally.operations["expire"] += 1
        self.lab.expire(self.lab.channel(label))
        self.lab.drive(lambda: self._is_answered(label), blocks=True)
        if away:
            self.lab.bring_back("customersigner")

    def _is_answered(self, label: str) -> bool | None:
        """Tell whether the expire was answered by a close, by whomever."""
        return True if self.lab.world.show(label)["chain_status"] in _ENDING else None

    def _end(self, label: str) -> None:
        """See a channel to its end, and what it paid out."""
        owned = self.owned.pop(label)

        def ended() -> bool | None:
            if self.lab.world.show(label)["chain_status"] == "closing":
                self.lab.network.chain.increase_time(self.lab.network.delay + 1)
            return self.lab.is_closed(label)

        self.lab.drive(ended, blocks=True)
        self.lab.calm()
        self.lab.check_closed(label, owned.balances, owned.merchant)
        self.tally.paid_out += sum(owned.balances)
        self._settle()

    def _settle(self) -> None:
        """Wait until all is calm; then books, chain and model have to agree."""
        self.lab.calm()
        self.lab.check_books()
        for label, owned in self.owned.items():
            self.lab.check_open(label, owned.merchant)
            found = self.lab.balances(label)
            assert found == owned.balances, f"{label}: {found}, the model says {owned.balances}"

    @told
    def teardown(self) -> None:
        """Close what is open, so that every history ends on chain."""
        if self.tally.trouble:
            return
        for label in sorted(self.owned):
            assert self._operate(None, "close", label=label, force=False)
            self._end(label)


_ENDING = frozenset({"closing", "closed"})


def run_histories(lab: Lab, tally: Tally, *, histories: int, steps: int, seed: int) -> None:
    """Run random histories on one network; raises what shows that money or peace was lost.

    The same seed draws the same histories; what happens inside a step is up to the machine.
    """

    def machine() -> WholeSystem:
        return WholeSystem(lab, tally)

    run = functools.partial(
        run_state_machine_as_test,
        hypothesis.seed(seed)(machine),  # type: ignore[arg-type]
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=False,
            # Real processes: a history is not repeated in exactly the same way, so not shrunk.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    try:
        run()
    except Exception:
        if tally.trouble:
            raise Trouble(tally.trouble) from None
        raise
