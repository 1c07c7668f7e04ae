"""The model of the protocol: with all rules in force nothing is lost, without one something is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.explorer import explore
from tests.model.rules import CHECKS, LIMITS, RULES, Rule, outcome

NUMBERS = range(1, 40)
WORLDS = ("customer", "merchant", "talk", "lease", "lane")


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_is_lost_with_all_rules_in_force(name: str) -> None:
    """Every state is visited, and none of them violates a property or has no way to an end."""
    check = CHECKS[name]
    found = explore(check.make(frozenset()))
    assert found.problem is None, "\n".join((found.problem or "", *found.trace))
    assert found.states >= check.floor


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in RULES.items()])
def test_each_rule_is_needed_or_says_why_not(rule: Rule) -> None:
    """Without a rule there is a counterexample; a rule without one has a written reason."""
    found = outcome(rule)
    if rule.reason:
        assert found.problem is None, "the reason is wrong: there is a counterexample"
        assert found.states >= CHECKS[rule.check].floor
    else:
        assert found.problem is not None, "no counterexample"
        assert len(found.trace) >= 1


@pytest.mark.parametrize("name", LIMITS)
def test_what_no_rule_prevents_is_still_so(name: str) -> None:
    """The losses that the documents admit are real; one that is not must leave the documents."""
    assert explore(LIMITS[name].make(frozenset())).problem is not None


def test_no_rule_of_the_list_is_missing() -> None:
    """Every number of the list of rules has a rule in the model."""
    assert {rule.number for rule in RULES.values()} == set(NUMBERS)


def test_every_dropped_name_means_something() -> None:
    """Each name that is dropped is asked for by a world; a misspelt one would drop nothing."""
    folder = Path(__file__).parent
    worlds = "".join((folder / f"{name}.py").read_text() for name in WORLDS)
    for rule in RULES.values():
        for name in rule.dropped:
            assert f'"{name}"' in worlds
