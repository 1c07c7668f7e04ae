"""Figures in OpenMetrics text, answered from memory."""

from __future__ import annotations

import time
from collections import Counter

from customerd.merchants import Merchants
from customerd.operations.runner import Runner
from customerd.signing.gateway import Gateway
from customerd.watch.alarms import Level
from customerd.watch.watcher import Watcher


def render(
    *, watcher: Watcher, gateway: Gateway, merchants: Merchants, runner: Runner, started: float
) -> str:
    """Return the daemon's gauges as OpenMetrics 1.0 text."""
    head = watcher.follower.head
    gauges: list[tuple[str, str, float]] = [
        ("customerd_uptime_seconds", "Seconds since the daemon started.", time.time() - started),
        ("customerd_signer_attached", "Whether a signer is attached.", gateway.ready),
        ("customerd_signer_generation", "Links accepted since the start.", gateway.generation),
        ("customerd_chain_following", "Whether the chain is followed.", watcher.following),
        ("customerd_chain_head", "Number of the newest block read.", watcher.head_number),
        (
            "customerd_chain_head_age_seconds",
            "Age of the newest block read.",
            -1.0 if head is None else time.time() - head.timestamp,
        ),
        ("customerd_channels", "Channels in the database.", watcher.channel_count),
        ("customerd_operations_unfinished", "Operations without outcome.", runner.unfinished),
        ("customerd_merchant_connections", "Open merchant connections.", merchants.connections),
    ]
    lines: list[str] = []
    for name, text, value in gauges:
        lines += [f"# TYPE {name} gauge", f"# HELP {name} {text}", f"{name} {float(value):g}"]
    return "\n".join([*lines, *_alarms(watcher), "# EOF", ""])


def _alarms(watcher: Watcher) -> list[str]:
    """Return how many alarms hold, by level (also those without any) and kind."""
    name = "customerd_alarms"
    found = Counter((alarm.level.value, alarm.kind) for alarm in watcher.alarms)
    quiet = {level.value for level in Level} - {level for level, _ in found}
    return [
        f"# TYPE {name} gauge",
        f"# HELP {name} Things an operator should act on.",
        *(f'{name}{{level="{level}",kind=""}} 0' for level in sorted(quiet)),
        *(
            f'{name}{{level="{level}",kind="{kind}"}} {count}'
            for (level, kind), count in sorted(found.items())
        ),
    ]
