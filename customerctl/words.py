"""How times, durations and foreign text are written."""

from __future__ import annotations

import time

STEPS = {
    ("establish", "authorize"): "checking the closing authorization",
    ("establish", "propose"): "proposing the channel to the merchant",
    ("establish", "prove"): "proving the opening state",
    ("establish", "confirm"): "waiting for confirmation at the signer",
    ("establish", "fund"): "waiting until the deposit is final on chain",
    ("establish", "activate"): "waiting for the merchant's first pay token",
    ("establish", "complete"): "checking the pay token",
    ("pay", "propose"): "proposing the payment to the merchant",
    ("pay", "prove"): "proving the payment",
    ("pay", "confirm"): "waiting for confirmation at the signer",
    ("pay", "authorize"): "checking the closing authorization",
    ("pay", "revoke"): "revoking the old state",
    ("pay", "complete"): "checking the pay token",
    ("refund", "propose"): "asking the merchant for the refund",
    ("refund", "prove"): "proving the refund",
    ("refund", "authorize"): "checking the closing authorization",
    ("refund", "revoke"): "revoking the old state",
    ("refund", "complete"): "checking the pay token",
    ("close", "decide"): "deciding which state to close on",
    ("close", "agree"): "asking the merchant to agree",
    ("close", "settle"): "waiting until the close is final on chain",
}
"""What an operation does in a step."""


def clean(text: str) -> str:
    """Return text from elsewhere on one line, without anything that could steer a terminal.

    Spaces of all kinds become a space; what cannot be printed (control characters, also those
    that turn the direction of writing) becomes U+FFFD.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text
    )


def lines_of(text: str) -> list[str]:
    """Return the lines of text from elsewhere, each of them clean."""
    return [clean(line.rstrip("\r")) for line in text.strip().split("\n")]


def duration(seconds: float) -> str:
    """Write a duration with two figures: "38 ms", "12.3 s", "5 min 3 s", "3 h 5 min", "2 d 3 h"."""
    if seconds < 0.9995:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def age(seconds: float) -> str:
    """Write how long ago something was with one figure: "3 s", "12 min", "5 h", "2 d"."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def clock(moment: float) -> str:
    """Write a Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
