"""What a changed configuration changes: at once, or with the next start."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from customerd.config import Settings

LIVE = frozenset(
    {
        "log_level",
        "chain.poll",
        "chain.stale_after",
        "chain.stuck_after",
        "chain.margin",
        "chain.fee_cap",
        "chain.tip_floor",
        "chain.history_patience",
        "merchant.certificates",
        "merchant.connect_timeout",
        "merchant.message_timeout",
        "merchant.approval_timeout",
        "merchant.patience",
        "merchant.warm",
        "merchant.mutual_patience",
        "signer.request_timeout",
        "guard.enabled",
    }
)
"""Settings that a running daemon changes; all others are about what it has opened at its start."""


def changed(old: Settings, new: Settings) -> list[str]:
    """Name the settings that differ, as "section.key"; their values may be secrets."""
    return [name for name, before, after in _pairs(old, new, "") if before != after]


def merged(old: Settings, new: Settings) -> Settings:
    """Return the settings that a running daemon has after it read the new ones."""
    settings: Settings = _merged(old, new, "")
    return settings


def _pairs(old: Struct, new: Struct, prefix: str) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, Struct):
            found += _pairs(before, after, f"{prefix}{field.name}.")
        else:
            found.append((prefix + field.name, before, after))
    return found


def _merged(old: Any, new: Any, prefix: str) -> Any:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, Struct):
            values[field.name] = _merged(before, after, f"{prefix}{field.name}.")
        elif prefix + field.name in LIVE:
            values[field.name] = after
    return msgspec.structs.replace(old, **values)
