"""What `help`, `--help` and usage errors say: one text each, made from the commands."""

from __future__ import annotations

from customerctl._commands import COMMANDS
from customerctl.endpoint import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from customerctl.shapes import Parameter

WIDTH = 80

OPTIONS = (
    ("--json", "print the result, or the error, as JSON"),
    ("--socket PATH", f"where the daemon listens (or set {VARIABLE})"),
    ("--wallet NAME", "the system's daemon of this wallet: customerd@NAME.service"),
    ("--token FILE", "use the monitor socket, with the token in this file"),
    ("--help", "explain the command"),
    ("--version", "print the version of this program"),
)
EXIT_CODES = (
    ("0", "done"),
    ("1", "refused or failed"),
    ("2", "the command line was not understood"),
    ("3", "no daemon answers"),
    ("130", "interrupted; an operation goes on in the daemon"),
)


def overview() -> str:
    """Return all commands by group."""
    lines = [
        "customerctl: private payments through the customer daemon",
        "",
        "usage: customerctl COMMAND [ARGUMENTS] [--json] [--socket PATH]",
    ]
    group = ""
    for name, command in COMMANDS.items():
        if command["group"] != group:
            group = command["group"]
            lines += ["", f"{group}:"]
        lines.append(f"  {name:<14} {_lower(command['summary'])}")
    lines += ["", "Options of every command:", *_two_columns(OPTIONS)]
    lines += [
        "",
        "Examples:",
        "  customerctl getinfo",
        '  customerctl pay coffee "0.005 ETH" --note "one espresso"',
        "  customerctl help pay",
        "",
        "Exit codes:",
        *_two_columns(EXIT_CODES),
    ]
    return "\n".join(lines)


def usage(name: str) -> str:
    """Return how a command is written."""
    words = [_word(parameter) for parameter in COMMANDS[name]["parameters"]]
    lines, line = [], f"usage: customerctl {name}"
    for word in words:
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = " " * 7 + word
        else:
            line += f" {word}"
    return "\n".join([*lines, line])


def explanation(name: str) -> str:
    """Return everything about a command."""
    command = COMMANDS[name]
    lines = [usage(name), "", command["summary"]]
    by_position = [p for p in command["parameters"] if not p["flag"]]
    options = [p for p in command["parameters"] if p["flag"]]
    if by_position:
        lines += ["", "Arguments:", *_two_columns([(p["metavar"], about(p)) for p in by_position])]
    lines += ["", "Options:"]
    lines += _two_columns([*((option(p), about(p)) for p in options), *OPTIONS[:3]])
    lines += ["", "Examples:", *(f"  {example}" for example in command["examples"])]
    if command["errors"]:
        lines += ["", "Kinds of errors:", *_wrapped(", ".join(command["errors"]), 2)]
    return "\n".join(lines)


def _word(parameter: Parameter) -> str:
    if parameter["flag"]:
        word = option(parameter)
    else:
        word = parameter["metavar"] + ("..." if parameter["kind"] == "choices" else "")
    return word if parameter["required"] else f"[{word}]"


def option(parameter: Parameter) -> str:
    """Return how an option is written."""
    flag = parameter["flag"]
    if "short" in parameter:
        flag = f"{parameter['short']}, {flag}"
    return flag if parameter["kind"] in ("switch", "denial") else f"{flag} {parameter['metavar']}"


def about(parameter: Parameter) -> str:
    """Return what a parameter is, with what it may be."""
    words = _lower(parameter["help"].removesuffix("."))
    if "choices" in parameter:
        words += f": {', '.join(parameter['choices'])}"
    if "least" in parameter and "most" in parameter:
        words += f", {parameter['least']} to {parameter['most']}"
    if "default" in parameter:
        words += f" (default {parameter['default']})"
    return words


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def _two_columns(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    margin = max(len(left) for left, _ in rows) + 4
    lines = []
    for left, right in rows:
        first, *others = _wrapped(right, margin)
        lines.append(f"  {left}".ljust(margin) + first.lstrip())
        lines += others
    return lines


def _wrapped(text: str, margin: int) -> list[str]:
    lines, line = [], " " * margin
    for word in text.split(" "):
        if len(line) + len(word) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * margin
        line += f"{word} "
    return [*lines, line.rstrip()]
