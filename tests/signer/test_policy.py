"""The signer's limits as pure decisions: whatever is asked, no window holds more than allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customersigner.policy import COIN, Fees, Limits, Policy
from customersigner.policyfile import read_policy
from customersigner.usage import DAY, HOUR, Clock, Entry, Kind, Usage
from zkchannels.amounts import Asset
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.configuration import ConfigurationError
from zkchannels.wire.signer import POLICIES

ETHER = Asset("ETH", 18, 1)
TOKEN = b"\x70" * 20


def policy(**limits: int) -> Policy:
    """A policy with limits for the chain's coin alone."""
    return Policy(assets={COIN: Limits(asset=ETHER, **limits)})


class Book:
    """Counts what a policy lets pass, as the signer does, and remembers when it really happened."""

    def __init__(self, rules: Policy) -> None:
        self.rules = rules
        self.usage = Usage()
        self.entries: dict[bytes, Entry] = {}
        self.passed: list[tuple[float, bytes, int]] = []

    def ask(self, subject: bytes, at: float, amount: int, kind: Kind = "payment") -> str:
        """Ask for something; returns the name of the policy that refuses, or nothing."""
        before = self.entries.get(subject)
        if before is not None and amount <= before.amount:
            return ""
        entry = Entry(kind=kind, asset=COIN, subject=subject, at=int(at), amount=amount)
        try:
            self.rules.check(self.usage, entry, before)
        except RpcError as error:
            self.check_wait(error, subject, int(at), amount, kind)
            return str(error.data["policy"])
        self.usage.add(entry, before)
        self.entries[subject] = entry
        self.passed = [one for one in self.passed if one[1] != subject]
        self.passed.append((at, subject, amount))
        return ""

    def check_wait(
        self, error: RpcError, subject: bytes, now: int, amount: int, kind: Kind
    ) -> None:
        """A temporary refusal names the first second at which the same passes."""
        temporary = POLICIES[error.data["policy"]][0] == "temporary"
        assert temporary == ("after" in error.data)
        if not temporary:
            return
        before = self.entries.get(subject)
        for later, passes in ((error.data["after"] - 1, False), (error.data["after"], True)):
            book = Usage(sorted(self.entries.values(), key=lambda entry: entry.at))
            entry = Entry(kind=kind, asset=COIN, subject=subject, at=now + later, amount=amount)
            try:
                self.rules.check(book, entry, before)
            except RpcError:
                assert not passes
            else:
                assert passes

    def most_within(self, length: float) -> int:
        """The most that any stretch of this many seconds holds."""
        starts = [at for at, _, _ in self.passed]
        return max(
            (
                sum(amount for at, _, amount in self.passed if start <= at < start + length)
                for start in starts
            ),
            default=0,
        )


asked = st.lists(
    st.tuples(st.integers(0, 7), st.floats(0, DAY / 3), st.integers(1, 60)), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(asked, st.integers(1, 100), st.integers(1, 200))
def test_no_sequence_of_payments_exceeds_a_window(
    requests: list[tuple[int, float, int]], hour: int, day: int
) -> None:
    """Whatever is paid and tried again when, no hour and no day holds more than its limit."""
    book = Book(policy(hour=hour, day=day, payment=50))
    now = 0.0
    for subject, pause, amount in requests:
        now += pause
        name = book.ask(bytes([subject]), now, amount)
        assert not (name == "" and book.entries[bytes([subject])].amount > min(50, hour, day))
    assert book.most_within(HOUR) <= hour
    assert book.most_within(DAY) <= day


@settings(max_examples=200, deadline=None)
@given(asked, st.integers(1, 100), st.integers(1, 200))
def test_no_sequence_of_transactions_exceeds_the_fees(
    requests: list[tuple[int, float, int]], cap: int, day: int
) -> None:
    """Fees of a day stay within theirs; a dearer transaction takes its predecessor's place."""
    book = Book(Policy(fees=Fees(transaction=cap, day=day)))
    now = 0.0
    for subject, pause, amount in requests:
        now += pause
        name = book.ask(bytes([subject]), now, amount, "fee")
        assert (name == "policy-fee-cap") == (amount > min(cap, day))
    assert book.most_within(DAY) <= day


def test_each_limit_has_its_name_and_kind() -> None:
    """What can never pass is told apart from what may pass later, and from another window."""
    book = Book(policy(payment=10, hour=15, day=20, deposit=100, deposit_day=150))
    assert book.ask(b"a", 0, 11) == "policy-payment-limit"
    assert book.ask(b"a", 0, 10) == ""
    assert book.ask(b"b", 1, 6) == "policy-hour-limit"
    assert book.ask(b"b", 1, 5) == ""
    assert book.ask(b"c", 2 * HOUR, 6) == "policy-day-limit"
    assert book.ask(b"d", 0, 101, "deposit") == "policy-deposit-limit"
    assert book.ask(b"d", 0, 100, "deposit") == ""
    assert book.ask(b"e", 1, 51, "deposit") == "policy-deposit-day-limit"
    assert book.ask(b"f", 1, 50, "deposit") == ""


def test_a_window_opens_at_its_second_and_not_before() -> None:
    """A payment of second s is counted up to and including second s + 3600."""
    book = Book(policy(hour=10))
    assert book.ask(b"a", 100.9, 10) == ""
    assert book.ask(b"b", 100 + HOUR + 0.99, 1) == "policy-hour-limit"
    assert book.ask(b"b", 100 + HOUR + 1, 1) == ""


def test_of_several_attempts_one_counts() -> None:
    """Another attempt to leave the same state counts what it adds, since one alone succeeds."""
    book = Book(policy(day=10))
    assert book.ask(b"a", 0, 6) == ""
    assert book.ask(b"a", 1, 10) == ""
    assert book.ask(b"b", 2, 1) == "policy-day-limit"


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e5)), max_size=30), st.integers(0, 9))
def test_no_jump_of_the_clock_moves_the_signers(
    jumps: list[tuple[float, float]], mark: int
) -> None:
    """Only the steady clock moves time while the signer runs, wherever somebody sets the other."""
    wall, steady = 1000.0, 50.0
    clock = Clock(mark, wall=lambda: wall, steady=lambda: steady)
    for jump, passed in jumps:
        wall, steady = wall + jump, steady + passed
        assert clock.now() == int(1000.0 + steady - 50.0) or abs(clock.now() - 950 - steady) <= 1


def test_a_clock_set_back_before_a_start_is_not_believed() -> None:
    """A restart goes on at the newest count when the wall clock is behind it."""
    clock = Clock(5000, wall=lambda: 10.0, steady=lambda: 3.0)
    assert clock.now() == 5000
    assert Clock(5, wall=lambda: 10.0, steady=lambda: 3.0).now() == 10


def test_counts_of_assets_and_kinds_are_apart() -> None:
    """A token's payments use nothing up of the coin's limit, nor do deposits of payments'."""
    usage = Usage()
    for kind, asset in (("payment", TOKEN), ("deposit", COIN)):
        usage.add(Entry(kind=kind, asset=asset, subject=b"x", at=0, amount=7))  # type: ignore[arg-type]
    assert usage.total("payment", COIN, DAY, 0) == 0
    assert usage.total("payment", TOKEN, DAY, 0) == 7


# -- the file -------------------------------------------------------------------------------------

WHOLE = f"""
confirm_within = "90s"
[fees]
transaction = "0.1 ETH"
day = "0.5 ETH"
defence = "2 ETH"
defence_day = "3 ETH"
[escrows]
coffee = "0x{"e5" * 20}"
[merchants]
"Coffee Ltd" = "0x{"33" * 20}"
[assets.ETH]
payment = "0.05 ETH"
hour = "0.2 ETH"
day = "1 ETH"
deposit = "2 ETH"
deposit_day = "3 ETH"
confirm_above = "0.01 ETH"
[assets.TEST]
token = "0x{TOKEN.hex()}"
decimals = 6
payment = "2.5 TEST"
"""


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a policy file."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Amounts are read in each asset's own decimals, addresses with the owner's names."""
    rules = read_policy(write(tmp_path / "policy.toml", WHOLE))
    assert rules.assets is not None
    assert rules.assets[COIN].payment == 5 * 10**16
    assert rules.assets[TOKEN].payment == 2_500_000
    assert rules.fees == Fees(
        transaction=10**17, day=5 * 10**17, defence=2 * 10**18, defence_day=3 * 10**18
    )
    assert rules.escrows == {b"\xe5" * 20: "coffee"}
    assert rules.merchants == {b"\x33" * 20: "Coffee Ltd"}
    assert rules.patience == 90
    names = set(rules.names)
    assert names == set(POLICIES) - {"policy-confirmation-declined"}


def test_no_file_is_the_default(tmp_path: Path) -> None:
    """Without a file fees are capped, and nothing else."""
    assert read_policy(tmp_path / "policy.toml") == Policy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[assets.ETH]\npaymnet = '1 ETH'", "did you mean payment?"),
        ("[fee]\nday = '1 ETH'", "did you mean fees?"),
        ("[assets.ETH]\npayment = '1 TEST'", "assets.ETH.payment: this escrow holds ETH"),
        ("[assets.ETH]\npayment = '-1 ETH'", "not negative"),
        ("[assets.ETH]\npayment = 5", "assets"),
        ("[assets.DAI]\npayment = '1 DAI'", "the chain's coin, which is ETH"),
        ("[assets.DAI]\ntoken = '0x12'\n", "assets.DAI.token"),
        (f"[assets.DAI]\ntoken = '0x{'00' * 20}'\n", "no token's address"),
        (f"[assets.DAI]\ntoken = '0x{'70' * 20}'\ndecimals = 99", "decimals"),
        ("[escrows]\ncoffee = 'here'", "escrows.coffee"),
        ("[merchants]\ncoffee = 5", "merchants"),
        ("confirm_within = 'long'", "confirm_within"),
        ("this is no TOML", "policy.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """What cannot be meant is refused with its place, an unknown key with the nearest known one."""
    with pytest.raises(ConfigurationError, match=r"policy\.toml") as caught:
        read_policy(write(tmp_path / "policy.toml", text))
    assert message in str(caught.value)


def test_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """What others could have written or read is no policy."""
    with pytest.raises(ConfigurationError, match="open to others"):
        read_policy(write(tmp_path / "policy.toml", "", 0o644))


def spent(entries: Iterable[tuple[int, int]], **limits: Any) -> list[tuple[str, str | None]]:
    """What is shown as used after some payments."""
    usage = Usage()
    for at, amount in entries:
        subject = at.to_bytes(8)
        usage.add(Entry(kind="payment", asset=COIN, subject=subject, at=at, amount=amount))
    states = policy(**limits).states(usage, HOUR + 10)
    return [(state.name, state.used) for state in states if "limit" in state.name]


def test_usage_is_shown_per_window() -> None:
    """The list names each limit with what its own window holds."""
    shown = spent([(0, 10**17), (20, 10**18)], hour=10**19, day=10**19)
    assert ("policy-hour-limit", "1 ETH") in shown
    assert ("policy-day-limit", "1.1 ETH") in shown
