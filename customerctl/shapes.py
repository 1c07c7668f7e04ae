"""Shapes of what is passed around; for type checkers alone, never imported when running."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Kind = Literal[
    "text", "words", "integer", "number", "choice", "choices", "list", "switch", "denial"
]
"""`words`: all remaining words, joined; `list`: words joined by commas; `switch`: true when given;
`denial`: false when given."""


class Parameter(TypedDict):
    """One parameter of a command; without `flag` it is given by position. `short`: "-f"."""

    name: str
    flag: str
    metavar: str
    kind: Kind
    required: bool
    help: str
    short: NotRequired[str]
    choices: NotRequired[tuple[str, ...]]
    least: NotRequired[int]
    most: NotRequired[int]
    default: NotRequired[int]


class Command(TypedDict):
    """One command."""

    group: str
    summary: str
    parameters: tuple[Parameter, ...]
    errors: tuple[str, ...]
    examples: tuple[str, ...]
