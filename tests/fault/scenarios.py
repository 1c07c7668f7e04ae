"""The operations that are interrupted: each runs one of them to its end and checks all books."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fault.lab import Lab, Unfit
from zkchannels.devnet.child import ChildFailed

DEPOSIT = 1_000_000_000
_MAY_BE_REFUSED = frozenset({"merchant_unreachable"})
"""How an operation may be refused because a process died: nothing was bound, it can be repeated."""


def _done(ask: Callable[[], Any]) -> None:
    """Have an operation done; when it was refused, a repeat has to work."""
    outcome = ask()
    if outcome["status"] == "done":
        return
    if outcome["status"] != "refused" or outcome["error"]["kind"] not in _MAY_BE_REFUSED:
        raise Unfit(f"not done: {outcome}")
    outcome = ask()
    if outcome["status"] != "done":
        raise Unfit(f"the repeat was not done: {outcome}")


# -- payments ----------------------------------------------------------------------------------


def _move(lab: Lab, method: str, amount: int) -> None:
    label = lab.purse
    customer, merchant = lab.balances(label)
    _done(lambda: lab.operate(method, label=label, amount=amount))
    moved = amount if method == "pay" else -amount
    expected = (customer - moved, merchant + moved)
    if lab.balances(label) != expected:
        raise Unfit(f"expected {expected}, found {lab.balances(label)}")


def pay(lab: Lab) -> None:
    """Pay on the channel that all payments share."""
    _move(lab, "pay", 1009)


def refund(lab: Lab) -> None:
    """Be paid back on the channel that all payments share."""
    _move(lab, "refund", 1)


# -- establish ---------------------------------------------------------------------------------


def _establish(lab: Lab, merchant: str, **more: Any) -> None:
    label = lab.new_label()
    address = lab.network.merchants[merchant].address
    _done(
        lambda: lab.operate(
            "establish", blocks=True, label=label, merchant=address, deposit=DEPOSIT, **more
        )
    )
    lab.calm()
    lab.check_open(label, merchant)
    _done(lambda: lab.operate("pay", label=label, amount=7))
    if merchant == "coffee":
        lab.spare.append(label)


def establish(lab: Lab) -> None:
    """Open a channel that the customer funds alone, and pay on it."""
    _establish(lab, "coffee")


def establish_dual(lab: Lab) -> None:
    """Open a channel that both fund, and pay on it."""
    _establish(lab, "coffee", merchant_deposit=5_000_000)


def establish_token(lab: Lab) -> None:
    """Open a channel in tokens that both fund, and pay on it."""
    _establish(lab, "bakery", merchant_deposit=5_000_000)


# -- close -------------------------------------------------------------------------------------


def _closed(lab: Lab, label: str, balances: tuple[int, int]) -> None:
    """Let the end of a channel become final everywhere, then compare the payout."""
    lab.drive(lambda: lab.is_closed(label), blocks=True)
    lab.calm()
    lab.check_closed(label, balances)


def close(lab: Lab) -> None:
    """Close by agreement."""
    label = lab.spare.pop(0)
    balances = lab.balances(label)
    _done(lambda: lab.operate("close", blocks=True, label=label))
    _closed(lab, label, balances)


def close_alone(lab: Lab) -> None:
    """Close without the merchant, and claim after the delay."""
    label = lab.spare.pop(0)
    balances = lab.balances(label)
    _done(lambda: lab.operate("close", blocks=True, label=label, force=True))
    lab.drive(lambda: lab.pass_delay(label), blocks=True)
    _closed(lab, label, balances)


def expire(lab: Lab) -> None:
    """Meet the merchant's expire with the signer attached, and claim after the delay."""
    label = lab.spare.pop(0)
    balances = lab.balances(label)
    lab.expire(label)
    lab.drive(lambda: lab.pass_delay(label), blocks=True)
    _closed(lab, label, balances)


# -- starts ------------------------------------------------------------------------------------


def _restart(lab: Lab, process: str) -> None:
    service = lab.network.service(process)
    service.kill()
    try:
        service.start()
    except ChildFailed:
        lab.revive()
    lab.calm()
    pay(lab)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One operation under its name, and what has to be there before it."""

    name: str
    run: Callable[[Lab], None]
    prepare: Callable[[Lab], None] = Lab.open_purse


SCENARIOS = (
    Scenario("pay", pay),
    Scenario("refund", refund),
    Scenario("establish", establish),
    Scenario("establish with the merchant's deposit", establish_dual),
    Scenario("establish in tokens", establish_token),
    Scenario("close by agreement", close, Lab.have_spare),
    Scenario("close alone", close_alone, Lab.have_spare),
    Scenario("expire", expire, Lab.have_spare),
    Scenario("start of customerd", lambda lab: _restart(lab, "customerd")),
    Scenario("start of customersigner", lambda lab: _restart(lab, "customersigner")),
    Scenario("start of merchantd", lambda lab: _restart(lab, "merchantd-coffee")),
)
