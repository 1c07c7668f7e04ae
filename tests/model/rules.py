"""The rules of the protocol by name, with what shows why each is there.

The numbers are those of docs/model.md, which says in a sentence what happens without the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.model.customer import Customer, Scenario
from tests.model.explorer import Outcome, World, explore
from tests.model.lane import LaneWorld, Size
from tests.model.lease import TwoDaemons
from tests.model.merchant import Ground, Merchant
from tests.model.talk import Line, Talk

Make = Callable[[frozenset[str]], World[Any]]


@dataclass(frozen=True, slots=True)
class Check:
    """One configuration: what it is about, its world, and the least states it must have."""

    about: str
    make: Make
    floor: int


def _customer(about: str, floor: int, **options: Any) -> Check:
    scenario = Scenario(**options)
    return Check(about, lambda dropped: Customer(scenario, dropped).world(), floor)


def _merchant(about: str, floor: int, **options: Any) -> Check:
    ground = Ground(**options)
    return Check(about, lambda dropped: Merchant(ground, dropped).world(), floor)


def _talk(about: str, floor: int, **options: Any) -> Check:
    line = Line(**options)
    return Check(about, lambda dropped: Talk(line, dropped).world(), floor)


def _lane(about: str, floor: int, **options: Any) -> Check:
    size = Size(**options)
    return Check(about, lambda dropped: LaneWorld(size, dropped).world(), floor)


_OLD = {"lost": "daemon", "returns": True}
_THIEF = {"thief": True, "returns": True}

CHECKS = {
    "defence": _customer("malicious merchant, the signer may leave for ever", 20_000),
    "late": _customer("a reorganisation takes the chain into the margin", 20_000, shift=True),
    "dual": _customer("the merchant funds too, or not", 40_000, dual=True, depth=2, shift=True),
    "old": _customer("an old database is restored", 150_000, depth=0, **_OLD),
    "old-once": _customer(
        "the same; the signer answers once only", 80_000, depth=0, once=True, states=2, **_OLD
    ),
    "old-reorg": _customer(
        "an old database and a reorganisation", 200_000, shift=True, states=2, **_OLD
    ),
    "both-old": _customer(
        "daemon and signer restored together",
        25_000,
        lost="both",
        returns=True,
        honest_merchant=True,
        depth=0,
    ),
    "thief": _customer("guard stolen, merchant honest", 20_000, honest_merchant=True, **_THIEF),
    "thief-plain": _customer(
        "the same with a contract that forfeits", 20_000, honest_merchant=True, plain=True, **_THIEF
    ),
    "thief-merchant": _customer("guard stolen by the merchant", 150_000, shift=True, **_THIEF),
    "merchant": _merchant("malicious customer", 20_000),
    "merchant-late": _merchant("the same, pushed into the margin", 20_000, shift=True),
    "merchant-dual": _merchant("the same, both fund", 40_000, dual=True, depth=2, shift=True),
    "resume": _talk("both honest, messages and databases lost", 1_000),
    "recover": _talk("everything but the seed is lost", 1_000, operations=2, lost="all"),
    "lease": Check("two daemons on one database", lambda d: TwoDaemons(d).world(), 30_000),
    "lane": _lane("fees, nonces, a stranger on the account", 9_000),
}
"""What runs in every test run."""

LARGER = {
    "old-reorg-3": _customer("as old-reorg, with a refund", 500_000, shift=True, **_OLD),
    "thief-dual": _customer(
        "guard stolen by the merchant, both fund", 300_000, shift=True, dual=True, depth=2, **_THIEF
    ),
    "tight-late": _customer(
        "within the margin only what was sent gets in", 20_000, shift=True, tight=True
    ),
    "tight-echo": _customer(
        "the same with a thief; a dispute that was seen is sent again",
        150_000,
        shift=True,
        tight=True,
        echo=True,
        **_THIEF,
    ),
    "merchant-3": _merchant("malicious customer, three payments", 70_000, payments=3),
    "merchant-late-3": _merchant(
        "the same, pushed into the margin", 70_000, payments=3, shift=True
    ),
    "resume-5": _talk("both honest, five operations", 3_000, operations=5),
    "recover-4": _talk(
        "everything but the seed is lost, four operations", 5_000, operations=4, lost="all"
    ),
    "lane-2": _lane("two transactions in a row", 300_000, purposes=2, spikes=1),
}
"""What runs behind `make test-model`."""

LIMITS = {
    "both old, merchant malicious": _customer("", 0, lost="both", returns=True),
    "database old, signer never back": _customer("", 0, lost="daemon"),
    "guard stolen by the merchant, contract forfeits": _customer("", 0, plain=True, **_THIEF),
    "first act only after the margin has begun": _customer("", 0, shift=True, tight=True, **_THIEF),
}
"""What no rule prevents; each must show its loss, or the text about it is wrong."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; without `reason` the check must find a counterexample when `dropped` is dropped."""

    number: int
    says: str
    check: str
    dropped: frozenset[str] = field(default_factory=frozenset)
    reason: str = ""


def _rules(*rows: tuple[int, str, str, str] | tuple[int, str, str, str, str]) -> dict[str, Rule]:
    found = {}
    for number, names, check, says, *reason in rows:
        found[names] = Rule(number, says, check, frozenset(names.split("+")), *reason)
    return found


RULES = _rules(
    (1, "ca0-before-open", "defence", "closing authorization 0 is written before open leaves"),
    (
        2,
        "prove-before-send+adopt",
        "resume",
        "the proof is written before pay.prove, or the signer's taken",
    ),
    (
        2,
        "prove-before-send",
        "resume",
        "the proof is written before pay.prove leaves",
        "the signer's record repairs it (rules 11 to 13); kept, as the signer may be away",
    ),
    (3, "ca-before-secret", "defence", "the authorization is written before the old secret leaves"),
    (4, "close-newest", "defence", "a close is on the newest authorization that was written"),
    (
        4,
        "close-new+secret-before-send",
        "defence",
        "from its authorization on the new state is the only one to close on",
    ),
    (
        5,
        "secret-before-send",
        "defence",
        "that the secret leaves is written before it leaves",
        "needed only without close-new: with that rule the state to close on does not depend on it",
    ),
    (
        4,
        "close-new",
        "defence",
        "the same, where that the secret leaves is a commit of its own",
        "the old state is safe until that commit; it is one more per payment",
    ),
    (6, "decide-before-close", "defence", "the decision to close is written before a close leaves"),
    (
        7,
        "close-stops-pay",
        "defence",
        "a decision to close and a new authorization exclude each other",
    ),
    (8, "open-only", "old-once", "a secret leaves only while the escrow is seen open"),
    (9, "close-final", "resume", "once a mutual close was asked for, the channel pays no more"),
    (10, "done-with-index", "resume", "token, index and outcome are one commit"),
    (11, "compare", "old", "on every attach signer and database are compared"),
    (
        11,
        "adopt-first",
        "old-once",
        "a database that lost closing authorization 0 takes it from the signer",
    ),
    (12, "signer-copy", "old", "the signer keeps the newest closing authorization itself"),
    (
        13,
        "signer-counter",
        "resume",
        "the signer writes attempt and operation before a proof leaves",
    ),
    (13, "adopt", "resume", "a daemon behind its signer takes over the signer's record"),
    (13, "operation-once", "resume", "the signer's record names the operation"),
    (14, "signs", "old", "the signer writes a close down before it signs, and pays no more"),
    (15, "signer-refuses", "old", "the signer closes on no state whose secret it let go"),
    (
        15,
        "verify-ca",
        "defence",
        "the signer verifies the authorization before it lets a secret go",
    ),
    (16, "guard", "defence", "a guard can close without the signer"),
    (16, "guard-expiring", "thief-plain", "the guard can close in EXPIRING only"),
    (17, "permit", "thief-merchant", "the guard needs the customer's permit for exactly its close"),
    (18, "void", "thief-merchant", "a disputed close by the guard is void, not forfeited"),
    (
        19,
        "own-dispute",
        "thief-merchant",
        "the customer disputes a stale close by the guard itself",
    ),
    (
        19,
        "own-close-stands",
        "defence",
        "a close on either state of a payment in flight is not disputed by us",
    ),
    (
        20,
        "wait-half",
        "old-once",
        "a daemon that was not compared lets the guard wait for half of the delay",
    ),
    (
        21,
        "suspect",
        "both-old",
        "a channel restored on both sides is not closed unilaterally while open",
    ),
    (
        21,
        "recover-closes",
        "both-old",
        "a channel restored on both sides pays no more, it is closed once recovered",
    ),
    (
        22,
        "nonce-before-ca",
        "merchant",
        "nonce and commitments are written before the authorization leaves",
    ),
    (22, "written-is-given", "merchant", "a written answer counts as given"),
    (23, "mutual-lock", "merchant", "the lock of a mutual close can not be revoked in a payment"),
    (
        23,
        "mutual-asked",
        "resume",
        "the customer's account key signs that it asks for a mutual close",
    ),
    (24, "chain-lock", "merchant", "the lock of a close on chain can not be revoked in a payment"),
    (25, "lock-before-token", "merchant", "the secret is written before token and service leave"),
    (26, "session-once", "merchant", "an approved session binds one nonce"),
    (27, "refusal-durable", "resume", "a refused proof stays refused"),
    (28, "repeat-ca", "resume", "the same request gets the authorization again, for ever"),
    (28, "repeat-token", "resume", "the same request gets the token again, for ever"),
    (29, "final-before-token", "merchant", "the first token waits until the funding is final"),
    (30, "margin", "late", "acts are final a margin before claim opens"),
    (31, "watch-until-claimed", "merchant-late", "the merchant watches until its claim is final"),
    (32, "record-final", "defence", "an end is recorded when it is final"),
    (33, "fresh-deadline", "merchant-late", "a late close, too, has a whole delay before it"),
    (33, "defend-once", "merchant-late", "a voided guard is struck off for good"),
    (
        34,
        "late-dispute",
        "thief-merchant",
        "a stale close by the guard is disputed until somebody claims",
    ),
    (
        35,
        "fund-terms+fund-final",
        "merchant-dual",
        "fund names both deposits, or only a final open is funded",
    ),
    (
        35,
        "fund-terms",
        "merchant-dual",
        "fund names both deposits",
        "funding only a final open, with id-once, is another cure; the contract's is in force",
    ),
    (35, "fund-terms+id-once", "merchant-dual", "an id is opened once, for ever"),
    (
        35,
        "id-once",
        "merchant-dual",
        "an id is opened once, for ever",
        "as long as fund names both deposits; kept, as the two cures cover for each other",
    ),
    (36, "token-after-fund", "merchant-dual", "no token before the merchant has funded"),
    (36, "close-awaiting", "merchant-dual", "no close before the merchant has funded"),
    (36, "expire-awaiting", "dual", "no expire before the merchant has funded"),
    (36, "reclaim", "dual", "the customer reclaims when the merchant does not fund"),
    (37, "lease-expires", "lease", "a lease ends by itself"),
    (
        37,
        "lease-fence+ended-once",
        "lease",
        "every commit checks the fencing number, and that its operation goes on",
    ),
    (37, "ended-once", "lease", "no commit for an operation that has its outcome"),
    (
        37,
        "lease-fence",
        "lease",
        "every commit checks the fencing number",
        "a second net: every commit also checks the channel's status and the operation's outcome",
    ),
    (
        37,
        "lease-exclusive",
        "lease",
        "a lease is taken only when the other's has run out",
        "saves two daemons from taking turns; what keeps them safe is what a commit checks",
    ),
    (38, "recover-all", "recover", "recovery walks on until the merchant knows nothing"),
    (
        38,
        "recover-pending",
        "recover",
        "a payment that the merchant has bound is finished, not made anew",
    ),
    (38, "bound-recovers", "recover", "a nonce bound to something else makes the channel suspect"),
    (39, "written-before-sent", "lane", "a transaction is written before it is sent"),
    (39, "fee-bump", "lane", "a transaction left out has its fees raised"),
    (39, "same-nonce", "lane", "it keeps its nonce when its fees are raised"),
    (39, "renumber-final", "lane", "it gets another nonce only when its own is used for good"),
)


def outcome(rule: Rule) -> Outcome:
    """Explore the rule's check without the rule."""
    return explore(CHECKS[rule.check].make(rule.dropped))
