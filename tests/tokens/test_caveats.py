"""What caveats say, and that they only take away."""

from __future__ import annotations

import pytest

from customerd.rpc.methods import METHODS
from customerd.tokens.grant import Grant, Rates
from zkchannels import caveats
from zkchannels.caveats import CaveatError, Rate, read

ONE, OTHER = bytes(32), b"\1" * 32
ETHER = bytes(20)


def test_caveats_of_a_kind_have_to_hold_together() -> None:
    """Methods and channels are intersected, and the earliest end counts."""
    found = read(
        [
            caveats.methods(["list", "show"]),
            caveats.methods(["show", "pay"]),
            caveats.channels([ONE, OTHER]),
            caveats.channels([OTHER]),
            caveats.before(200),
            caveats.before(100),
            caveats.before(300),
        ]
    )
    assert found.methods == {"show"}
    assert found.channels == {OTHER}
    assert found.expires == 100


@pytest.mark.parametrize(
    "caveat",
    [
        "",
        "unknown",
        "methods",
        "channels ",
        "channels 0x00",
        "channels " + "0x" + "G" * 64,
        "channels *",
        "before",
        "before 1e9",
        "before -1",
        "before 010",
        "before 99999999999",
        "before \u0661",
        "rate 1",
        "rate /1",
        "rate 0/x",
        "spend 1",
        "spend x 0x" + "00" * 20 + " 18 ETH",
        "spend 1 0x00 18 ETH",
        "Methods list",
    ],
)
def test_what_is_not_understood_allows_nothing(caveat: str) -> None:
    """A damaged or unknown caveat makes a token useless, and never wider."""
    try:
        found = read([caveat])
    except CaveatError:
        return
    grant = Grant(bytes(16), found, spends=True)
    assert not any(grant.allows(method.name, method.grant) for method in METHODS)


def test_a_limit_is_of_one_asset() -> None:
    """A holder who adds a limit for another asset may spend neither."""
    ether = caveats.spend(5, ETHER, 18, "ETH")
    both = read([ether, caveats.spend(10**9, b"\2" * 20, 6, "TEST")])
    assert Grant(bytes(16), both, spends=True).limits_for(ETHER) is None
    assert Grant(bytes(16), both, spends=True).limits_for(b"\2" * 20) is None
    assert Grant(bytes(16), read([ether]), spends=False).limits_for(ETHER) is None
    found = Grant(bytes(16), read([ether]), spends=True).limits_for(ETHER)
    assert found is not None
    assert [limit.amount for limit in found] == [5]


def test_without_methods_nothing_is_allowed() -> None:
    """A token whose caveats name no methods allows none, and the owner's are never allowed."""
    nothing = Grant(bytes(16), read([]), spends=True)
    everything = Grant(
        bytes(16), read([caveats.methods(method.name for method in METHODS)]), spends=True
    )
    for method in METHODS:
        assert not nothing.allows(method.name, method.grant)
        assert everything.allows(method.name, method.grant) == bool(method.grant)


def test_only_paying_spends() -> None:
    """Of all methods, `pay` alone is open to tokens and moves money; all others only look."""
    granted = {method.name: method.grant for method in METHODS if method.grant}
    assert [name for name, grant in granted.items() if grant != "read"] == ["pay"]
    acts = {"establish", "refund", "close", "recover", "resume", "backup", "restore", "rename"}
    acts |= {"cancel", "stop", "token-create", "token-list", "token-revoke"}
    assert not acts & set(granted)


def test_rates() -> None:
    """So many calls at once, then one for each share of the time; all limits have to agree."""
    rates = Rates()
    limit = Rate(4, 2, b"a")
    assert [rates.take([limit], 10.0) for _ in range(5)] == [True] * 4 + [False]
    assert not rates.take([limit], 10.4)
    assert rates.take([limit], 10.5)
    assert not rates.take([limit], 10.5)
    assert [rates.take([limit], 100.0) for _ in range(5)] == [True] * 4 + [False]
    strict = Rate(1, 2, b"b")
    assert rates.take([limit, strict], 200.0)
    assert not rates.take([limit, strict], 200.0)
    assert [rates.take([limit], 200.0) for _ in range(4)] == [True] * 3 + [False]


def test_rates_forget_what_is_over() -> None:
    """A holder who makes ever new limits does not fill the daemon's memory."""
    rates = Rates()
    for number in range(3 * Rates.SWEEP):
        assert rates.take([Rate(1, 1, number.to_bytes(4))], float(number))
    assert len(rates._full_at) <= Rates.SWEEP + 1


@pytest.mark.parametrize("text", ["", "10", "10/", "/s", "0/s", "-1/s", "10/y", "1.5/s", "1/0"])
def test_rates_that_cannot_be_read(text: str) -> None:
    """A rate is a number of calls and a time."""
    with pytest.raises(CaveatError):
        caveats.rate(text)


def test_times() -> None:
    """Durations have a number and a unit."""
    assert [caveats.seconds_of(text) for text in ("90s", "15m", "12h", "30d", "4w")] == [
        90,
        900,
        43200,
        2592000,
        2419200,
    ]
    for text in ("", "d", "30", "-1d", "0d", "1y", "\u0661d"):
        with pytest.raises(CaveatError):
            caveats.seconds_of(text)
