"""Amounts: decimal text and whole units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.amounts import AmountError, Asset

ETHER = Asset("ETH", 18, 10**9)
DOLLAR = Asset("TUSD", 6, 1)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0.005 ETH", 5_000_000),
        ("1 ETH", 10**9),
        ("  1.5 eth ", 1_500_000_000),
        (".1 ETH", 10**8),
        ("-0.5 ETH", -500_000_000),
        ("0.000000001 ETH", 1),
        ("0 ETH", 0),
        ("0.5000000000000000000000000 ETH", 500_000_000),
    ],
)
def test_text_is_read_exactly(text: str, units: int) -> None:
    """Decimal text becomes the exact number of units."""
    assert ETHER.parse(text) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ETH",
        "1",
        "1ETH",
        "1 BTC",
        "1e3 ETH",
        "1,5 ETH",
        "0x10 ETH",
        "1 2 ETH",
        "NaN ETH",
        "\u0661 ETH",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """Text of another form or asset is refused with a typed error."""
    with pytest.raises(AmountError):
        ETHER.parse(text)


def test_what_is_finer_than_a_unit_is_refused() -> None:
    """A fraction that no whole unit expresses is never rounded."""
    with pytest.raises(AmountError, match=r"smallest amount here is 0\.000000001 ETH"):
        ETHER.parse("0.0000000001 ETH")


@given(st.integers(min_value=-(2**63), max_value=2**63))
@pytest.mark.parametrize("asset", [ETHER, DOLLAR, Asset("ODD", 0, 7)])
def test_every_amount_survives_its_text(asset: Asset, units: int) -> None:
    """What is shown is read back as the same number of units."""
    assert asset.parse(asset.format(units)) == units


def test_text_has_no_superfluous_zeros() -> None:
    """Amounts are shown as short as they are exact."""
    assert ETHER.format(1_500_000_000) == "1.5 ETH"
    assert ETHER.format(10**9) == "1 ETH"
    assert DOLLAR.format(-12_500_000) == "-12.5 TUSD"
    assert DOLLAR.format(1) == "0.000001 TUSD"
