"""The operations that are interrupted: each runs one of them to its end and checks all books."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fault.lab import Lab, Unfit
from tests.recovery.support import Snapshot
from zkchannels.devnet.child import ChildFailed
from zkchannels.escrow.record import ChannelStatus

IN_TOKENS = "establish in tokens"
DEPOSIT = 1_000_000_000
TOKENS = 1_000_000
AMOUNT = 1009
_MAY_BE_REFUSED = frozenset({"merchant_unreachable"})
"""How an operation may be refused because a process died: nothing was bound, it can be repeated."""


def _done(lab: Lab, ask: Callable[[], Any]) -> None:
    """Have an operation done; while it is refused because a process has died, it is repeated."""

    def repeated() -> bool | None:
        outcome = ask()
        if outcome["status"] == "done":
            return True
        if outcome["status"] != "refused" or outcome["error"]["kind"] not in _MAY_BE_REFUSED:
            raise Unfit(f"not done: {outcome}")
        # Its connections go before it does: until then nobody starts it again.
        lab.wait_for_an_end()
        return None

    lab.drive(repeated)


# -- payments ----------------------------------------------------------------------------------


def _move(lab: Lab, method: str, amount: int) -> None:
    label = lab.purse
    customer, merchant = lab.balances(label)
    _done(lab, lambda: lab.operate(method, label=label, amount=amount))
    moved = amount if method == "pay" else -amount
    expected = (customer - moved, merchant + moved)
    if lab.balances(label) != expected:
        raise Unfit(f"expected {expected}, found {lab.balances(label)}")


def pay(lab: Lab) -> None:
    """Pay on the channel that all payments share."""
    _move(lab, "pay", AMOUNT)


def refund(lab: Lab) -> None:
    """Be paid back on the channel that all payments share."""
    _move(lab, "refund", 1)


# -- establish ---------------------------------------------------------------------------------


def _establish(lab: Lab, merchant: str, *, deposit: int = DEPOSIT, **more: Any) -> None:
    label = lab.new_label()
    address = lab.network.merchants[merchant].address
    _done(
        lab,
        lambda: lab.operate(
            "establish", blocks=True, label=label, merchant=address, deposit=deposit, **more
        ),
    )
    lab.calm()
    lab.check_open(label, merchant)
    _done(lab, lambda: lab.operate("pay", label=label, amount=7))
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
    _establish(lab, "bakery", deposit=TOKENS, merchant_deposit=TOKENS)


def _have_tokens(lab: Lab) -> None:
    """Leave behind what happens once per escrow: its registration, the merchant's approval."""
    lab.open_purse()
    if not lab.token_escrow_used:
        establish_token(lab)
        lab.token_escrow_used = True


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
    _done(lab, lambda: lab.operate("close", blocks=True, label=label))
    _closed(lab, label, balances)


def close_alone(lab: Lab) -> None:
    """Close without the merchant, and claim after the delay."""
    label = lab.spare.pop(0)
    balances = lab.balances(label)
    _done(lab, lambda: lab.operate("close", blocks=True, label=label, force=True))
    lab.drive(lambda: lab.pass_delay(lab.channel(label)), blocks=True)
    _closed(lab, label, balances)


def expire(lab: Lab) -> None:
    """Meet the merchant's expire with the signer attached, and claim after the delay."""
    label = lab.spare.pop(0)
    balances = lab.balances(label)
    lab.expire(lab.channel(label))
    lab.drive(lambda: lab.pass_delay(lab.channel(label)), blocks=True)
    _closed(lab, label, balances)


def defend(lab: Lab) -> None:
    """Meet the merchant's expire with the guard, as no signer is there; claim after the delay."""
    label = lab.spare.pop(0)
    channel, balances = lab.channel(label), lab.balances(label)
    lab.keep_down("customersigner")
    lab.expire(channel)
    lab.drive(lambda: lab.pass_half_of_delay(channel), blocks=True)
    lab.drive(lambda: lab.reached(channel, ChannelStatus.CLOSING), blocks=True)
    lab.bring_back("customersigner")
    lab.drive(lambda: lab.pass_delay(channel), blocks=True)
    _closed(lab, label, balances)


def dispute(lab: Lab) -> None:
    """Undo what the guard did with an older database: the signer comes back and disputes it."""
    label = lab.spare.pop(0)
    snapshot = Snapshot(lab.network.dsn("customerd"))
    _done(lab, lambda: lab.operate("pay", label=label, amount=11))
    channel, balances = lab.channel(label), lab.balances(label)
    lab.keep_down("customersigner")
    lab.keep_down("customerd")
    snapshot.restore()
    lab.expire(channel)
    lab.let_expire(channel)
    lab.keep_down("merchantd-coffee")
    lab.bring_back("customerd")
    lab.drive(lambda: lab.pass_half_of_delay(channel), blocks=True)
    lab.drive(lambda: lab.reached(channel, ChannelStatus.CLOSING), blocks=True)
    lab.bring_back("customersigner")
    lab.drive(lambda: lab.is_undone(channel), blocks=True)
    lab.bring_back("merchantd-coffee")
    lab.drive(lambda: lab.pass_delay(channel), blocks=True)
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


def signer_went_back(lab: Lab) -> None:
    """Give the signer an older record of its own; the daemon catches it up, and payments go on."""
    copy = lab.copy_signer()
    pay(lab)
    lab.keep_down("customersigner")
    lab.put_back_signer(copy)
    lab.bring_back("customersigner")
    lab.calm()
    pay(lab)


def _went_back(lab: Lab, *, signer: bool) -> None:
    """Pay twice, then set the customer's records back to before that."""
    customer, merchant = lab.balances(lab.purse)
    snapshot, copy = Snapshot(lab.network.dsn("customerd")), lab.copy_signer()
    pay(lab)
    pay(lab)
    lab.keep_down("customerd")
    snapshot.restore()
    if signer:
        lab.keep_down("customersigner")
        lab.put_back_signer(copy)
        lab.bring_back("customersigner")
    lab.bring_back("customerd")
    lab.drive(lambda: lab.is_idle(lab.purse), blocks=True)
    _done(lab, lambda: lab.operate("pay", label=lab.purse, amount=3))
    moved = 2 * AMOUNT + 3
    if lab.balances(lab.purse) != (customer - moved, merchant + moved):
        raise Unfit(f"{lab.balances(lab.purse)} after {moved} from {customer}, {merchant}")


def database_went_back(lab: Lab) -> None:
    """Give the daemon an older database; it is caught up from signer and merchant."""
    _went_back(lab, signer=False)


def both_went_back(lab: Lab) -> None:
    """Give daemon and signer older records; they are caught up from the merchant."""
    _went_back(lab, signer=True)


def rest(lab: Lab) -> None:
    """Do nothing until all that happens every few seconds has happened, or ended a process."""
    since = lab.positions()
    lab.drive(lambda: lab.has_rested(since))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One operation under its name, and what has to be there before it."""

    name: str
    run: Callable[[Lab], None]
    prepare: Callable[[Lab], None] = Lab.open_purse
    blocks: bool = False
    """Whether it takes blocks, so that what happens with every block belongs to it."""
    waits: bool = False
    """Whether it is about what happens every few seconds."""


SCENARIOS = (
    Scenario("pay", pay),
    Scenario("refund", refund),
    Scenario("establish", establish, blocks=True),
    Scenario("establish with the merchant's deposit", establish_dual, blocks=True),
    Scenario(IN_TOKENS, establish_token, _have_tokens, blocks=True),
    Scenario("close by agreement", close, Lab.have_spare, blocks=True),
    Scenario("close alone", close_alone, Lab.have_spare, blocks=True),
    Scenario("expire", expire, Lab.have_spare, blocks=True),
    Scenario("defend by the guard", defend, Lab.have_spare, blocks=True),
    Scenario("dispute of the guard's close", dispute, Lab.have_spare, blocks=True),
    Scenario("start of customerd", lambda lab: _restart(lab, "customerd")),
    Scenario("start of customersigner", lambda lab: _restart(lab, "customersigner")),
    Scenario("start of merchantd", lambda lab: _restart(lab, "merchantd-coffee")),
    Scenario("rest", rest, waits=True),
    Scenario("a signer that went back", signer_went_back),
    Scenario("a database that went back", database_went_back),
    Scenario("both went back", both_went_back),
)
