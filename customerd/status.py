"""How the daemon is, in one line of plain words for `systemctl status`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from customerd.channels.record import PAYABLE, Channel, Escrow
from zkchannels.amounts import Asset


@dataclass(frozen=True, slots=True)
class Facts:
    """What the line is made from; `head` is -1 before the first block, `holdings` what can be paid.

    `missing`: kinds of conditions as the gate names them. `stuck`: loops of the watcher that hang.
    """

    missing: Collection[str]
    channels: int
    holdings: str
    head: int
    operations: int = 0
    alarms: int = 0
    stuck: str = ""


def describe(facts: Facts) -> str:
    """Return the line, the most important first."""
    details = [_count(facts.channels, "channel")]
    if facts.holdings:
        details.append(facts.holdings)
    if facts.operations:
        details.append(f"{_count(facts.operations, 'operation')} at work")
    if facts.head >= 0:
        details.append(f"head {facts.head:,}")
    if facts.alarms:
        details.append(f"{_count(facts.alarms, 'alarm')} (customerctl getinfo)")
    return f"{_condition(facts)}: {', '.join(details)}"


def holdings(rows: Iterable[Channel], escrows: Mapping[bytes, Escrow]) -> str:
    """Return what all channels can pay, by asset: "2.41 ETH, 80 USDC"."""
    sums: dict[tuple[str, int], int] = {}
    for row in rows:
        if row.state in PAYABLE:
            escrow = escrows[row.escrow]
            asset = (escrow.symbol, escrow.decimals)
            sums[asset] = sums.get(asset, 0) + row.customer_balance * escrow.unit
    return ", ".join(
        Asset(symbol, decimals, 1).format(total) for (symbol, decimals), total in sums.items()
    )


def _condition(facts: Facts) -> str:
    if facts.stuck:
        return f"hung ({facts.stuck})"
    if "database_unavailable" in facts.missing:
        return "database away"
    chain = "chain not followed" if "chain_unavailable" in facts.missing else ""
    if "safe_mode" in facts.missing:
        return f"safe mode (no signer{', ' + chain if chain else ''})"
    return chain or "ready"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
