"""What the escrow's calls cost in gas: upper figures of the measured ones, for estimates."""

from __future__ import annotations

from zkchannels.chain.model import FeeSuggestion

GAS: dict[str, int] = {
    "open": 90_000,
    "open_token": 180_000,
    "close": 300_000,
    "mutual_close": 80_000,
    "claim": 70_000,
    "defend": 330_000,
}
"""Gas per call; a test holds them above the measured figures."""


def defence(channels: int, fees: FeeSuggestion) -> int:
    """Return what defending and claiming so many channels would cost now, in wei."""
    return channels * (GAS["defend"] + GAS["claim"]) * (fees.base_fee + fees.tip)
