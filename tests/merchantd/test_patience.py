"""Counting what an address makes the merchant remember."""

from __future__ import annotations

from zkchannels.service.patience import Patience


def test_an_address_waits_until_its_strikes_are_an_hour_old() -> None:
    """With as many strikes as allowed within an hour an address waits, until the oldest is over."""
    now = 0.0
    patience = Patience(2, clock=lambda: now)
    patience.strike("a")
    assert not patience.exhausted("a")
    now = 1800.0
    patience.strike("a")
    assert patience.exhausted("a")
    assert not patience.exhausted("b")
    now = 3601.0
    assert not patience.exhausted("a")
    patience.strike("a")
    assert patience.exhausted("a")


def test_quiet_addresses_are_forgotten() -> None:
    """What is remembered is bounded by the strikes of one hour."""
    now = 0.0
    patience = Patience(2, clock=lambda: now)
    for number in range(100):
        patience.strike(f"address {number}")
    patience.strike("address 0")
    assert len(patience) == 100
    now = 3601.0
    patience.strike("another")
    assert len(patience) == 1
