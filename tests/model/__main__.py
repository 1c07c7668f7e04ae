"""Explores every configuration, the larger ones too, and prints what was found."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tests.model.explorer import explore
from tests.model.rules import CHECKS, LARGER, LIMITS, RULES, Check, outcome


def main() -> int:
    """Print a line per configuration, rule and limit; return 1 if one is not as it is to be."""
    failures = _configurations({**CHECKS, **LARGER})
    print("\nwithout a rule: steps to the shortest counterexample, and its last one")
    for name, rule in RULES.items():
        found = outcome(rule)
        last = f"{found.trace[-1]}; {found.problem}" if found.trace else f"none: {rule.reason}"
        print(f"{rule.number:>3} {name:32} {len(found.trace) or '-':>3}  {last}")
        failures += (found.problem is None) != bool(rule.reason)
    print("\nwhat no rule prevents")
    for name, check in LIMITS.items():
        found = explore(check.make(frozenset()))
        print(f"    {name}: {found.problem} after {len(found.trace)} steps")
        failures += found.problem is None
    return 1 if failures else 0


def _configurations(checks: Mapping[str, Check]) -> int:
    failures, total = 0, 0
    for name, check in checks.items():
        began = time.process_time()
        found = explore(check.make(frozenset()))
        total += found.states
        verdict = "holds" if found.problem is None else f"FAILS: {found.problem}"
        seconds = time.process_time() - began
        print(f"{name:16} {found.states:>9,} states {seconds:6.1f} s  {verdict}  ({check.about})")
        for step in found.trace:
            print(f"      {step}")
        failures += found.problem is not None or found.states < check.floor
    print(f"{'total':16} {total:>9,} states")
    return failures


if __name__ == "__main__":
    sys.exit(main())
