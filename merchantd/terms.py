"""The one escrow that this merchant serves: its terms as they are recorded at `init`."""

from __future__ import annotations

from dataclasses import dataclass

from zkchannels.amounts import Asset

INSTALLATION_LENGTH = 16
"""Bytes of the number that ties a key file to its one database."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an escrow was, or is to be, deployed with; `delay` in seconds."""

    chain_id: int
    merchant: bytes
    token: bytes
    """Address of the ERC-20 token; 20 zero bytes for the native coin."""
    symbol: str
    decimals: int
    unit: int
    """Smallest denominations of the asset that one unit of a balance is."""
    delay: int

    @property
    def asset(self) -> Asset:
        """How amounts are written for people."""
        return Asset(self.symbol, self.decimals, self.unit)

    @property
    def native(self) -> bool:
        """Whether the escrow holds the chain's own coin."""
        return not any(self.token)


@dataclass(frozen=True, slots=True)
class ServedEscrow:
    """A deployed escrow."""

    terms: Terms
    address: bytes
