"""Amounts of an asset: decimal text as people write it, whole units of an escrow as money moves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

_TEXT = re.compile(
    r"^(?P<sign>-?)(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s+(?P<symbol>[A-Za-z][\w.]*)$", re.ASCII
)


class AmountError(ValueError):
    """An amount that cannot be read, or not be expressed in whole units of the escrow."""


@dataclass(frozen=True, slots=True)
class Asset:
    """What an escrow holds: `unit` smallest denominations make one unit of a balance."""

    symbol: str
    decimals: int
    unit: int

    def parse(self, text: str) -> int:
        """Return the units that text such as "0.005 ETH" means.

        Raises AmountError for another asset, too fine a fraction, or text of another form.
        """
        match = _TEXT.match(text.strip())
        if match is None:
            raise AmountError(f'write an amount as "0.005 {self.symbol}"')
        if match["symbol"].upper() != self.symbol.upper():
            raise AmountError(f"this escrow holds {self.symbol}, not {match['symbol']}")
        try:
            smallest = Decimal(match["number"]).scaleb(self.decimals)
        except InvalidOperation:
            raise AmountError("this number has too many digits") from None
        units = smallest / self.unit
        if units != units.to_integral_value() or units * self.unit != smallest:
            raise AmountError(f"the smallest amount here is {self.format(1)}")
        return -int(units) if match["sign"] else int(units)

    def format(self, units: int) -> str:
        """Return decimal text with the symbol, without trailing zeros."""
        digits = str(abs(units) * self.unit).rjust(self.decimals + 1, "0")
        whole = digits[: len(digits) - self.decimals]
        fraction = digits[len(digits) - self.decimals :].rstrip("0")
        number = f"{whole}.{fraction}" if fraction else whole
        return f"{'-' if units < 0 else ''}{number} {self.symbol}"
