"""Reads the command line; the usual short forms without argparse, which takes longer to import."""

from __future__ import annotations

from customerctl._commands import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from customerctl.shapes import Command, Parameter

HELP = ("-h", "--help")


class UsageError(Exception):
    """A command line that cannot be understood; `command` is the command it was meant for."""

    def __init__(self, message: str, command: str | None = None) -> None:
        super().__init__(message)
        self.command = command


class Request:
    """What the command line asks for; an empty command asks for the overview."""

    __slots__ = ("as_json", "command", "help", "params", "socket", "token", "version", "wallet")

    def __init__(self, command: str, params: dict[str, Any]) -> None:
        self.command = command
        self.params = params
        self.as_json = False
        self.socket: str | None = None
        self.token: str | None = None
        self.wallet: str | None = None
        self.help = False
        self.version = False


def read(arguments: Sequence[str]) -> Request:
    """Return what these arguments (without the program's name) ask for; raises UsageError."""
    for word in arguments:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UsageError("arguments have to be UTF-8")
    return _read_short(arguments) or _read_all(arguments)


def _read_short(arguments: Sequence[str]) -> Request | None:
    """Read a command followed by nothing but values and `--json`."""
    words = [word for word in arguments if word != "--json"]
    if not words or words[0] not in COMMANDS or any(word.startswith("-") for word in words):
        return None
    request = Request(words[0], {})
    request.as_json = len(words) < len(arguments)
    values = words[1:]
    for parameter in COMMANDS[words[0]]["parameters"]:
        if parameter["flag"]:
            if parameter["required"]:
                return None
        elif parameter["kind"] == "words" and values:
            request.params[parameter["name"]] = " ".join(values)
            values = []
        elif parameter["kind"] == "text" and values:
            request.params[parameter["name"]] = values.pop(0)
        elif parameter["required"]:
            return None
    return None if values else request


def _read_all(arguments: Sequence[str]) -> Request:
    name, rest = _split(arguments)
    if name is None:
        return _read_options(rest)
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}{_nearest(name)}")
    if any(word in HELP for word in rest[: rest.index("--") if "--" in rest else None]):
        request = Request(name, {})
        request.help = True
        return request
    return _read_command(name, COMMANDS[name], rest)


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the first word that is no option nor an option's value, and everything else."""
    rest = list(arguments)
    position = 0
    while position < len(rest):
        if rest[position] in ("--socket", "--token", "--wallet"):
            position += 2
        elif rest[position].startswith("-"):
            position += 1
        else:
            return rest.pop(position), rest
    return None, rest


def _read_options(rest: list[str]) -> Request:
    request = Request("", {})
    if any(word in HELP for word in rest):
        request.help = True
    elif "--version" in rest:
        request.version = True
    elif rest:
        _parser(None).parse_args(rest)  # an unknown option is the error to report
        raise UsageError("which command?")
    return request


def _read_command(name: str, command: Command, rest: list[str]) -> Request:
    parser = _parser(name)
    for parameter in command["parameters"]:
        _add(parser, name, parameter)
    # What follows "--" is never an option; intermixed reading does not know that.
    read_rest = parser.parse_args if "--" in rest else parser.parse_intermixed_args
    given = vars(read_rest(rest))
    request = Request(name, {})
    request.as_json = given.pop("as_json")
    request.socket = given.pop("socket")
    request.token = given.pop("token")
    request.wallet = given.pop("wallet")
    if request.wallet is not None and request.socket is not None:
        raise UsageError("--wallet and --socket both say which daemon is meant", name)
    request.params = {
        field: " ".join(value) if _is_words(command, field) else value
        for field, value in given.items()
        if value is not None and value != []
    }
    return request


def _is_words(command: Command, field: str) -> bool:
    return any(p["name"] == field and p["kind"] == "words" for p in command["parameters"])


def _parser(name: str | None) -> ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """Reports what is wrong instead of ending the program."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(message, name)

    parser = Parser(prog="customerctl", add_help=False, allow_abbrev=False)
    parser.add_argument("--json", dest="as_json", action="store_true")
    parser.add_argument("--socket", metavar="PATH")
    parser.add_argument("--token", metavar="FILE")
    parser.add_argument("--wallet", metavar="NAME", type=_wallet)
    return parser


def _wallet(text: str) -> str:
    """Read a wallet's name: it becomes part of a path and of a unit's name."""
    if not text or text.startswith(".") or not all(c.isalnum() or c in "_.-" for c in text):
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is no name of a wallet: letters, digits, _, . and -")
    return text


def _add(parser: ArgumentParser, name: str, parameter: Parameter) -> None:
    settings: dict[str, Any] = {"default": None}
    kind = parameter["kind"]
    if kind in ("switch", "denial"):
        settings |= {"action": "store_const", "const": kind == "switch"}
    else:
        settings["metavar"] = parameter["metavar"]
        settings["type"] = _converter(name, parameter)
        if kind == "list":
            settings["action"] = "extend"
    if parameter["flag"]:
        short = (parameter["short"],) if "short" in parameter else ()
        parser.add_argument(
            parameter["flag"],
            *short,
            dest=parameter["name"],
            required=parameter["required"],
            **settings,
        )
        return
    if kind == "words":
        settings["nargs"] = "+"
    elif kind == "choices":
        settings["nargs"] = "*"
    elif not parameter["required"]:
        settings["nargs"] = "?"
    parser.add_argument(parameter["name"], **settings)


def _converter(command: str, parameter: Parameter) -> Any:
    """Return the function that reads one word of this parameter."""
    kind, name = parameter["kind"], parameter["flag"] or parameter["metavar"]

    def read_word(word: str) -> str | int | float | list[str]:
        if kind == "list":
            return [part.strip() for part in word.split(",") if part.strip()]
        if kind in ("choice", "choices"):
            if word not in parameter["choices"]:
                raise UsageError(f"{name} is one of {', '.join(parameter['choices'])}", command)
            return word
        if kind not in ("integer", "number"):
            return word
        try:
            value = int(word) if kind == "integer" else float(word)
        except ValueError:
            noun = "a whole number" if kind == "integer" else "a number"
            raise UsageError(f"{name} is {noun}, not {word!r}", command) from None
        least, most = parameter.get("least", value), parameter.get("most", value)
        if not least <= value <= most or value in (float("inf"), float("-inf")):
            bounds = f"at least {least}" if "most" not in parameter else f"{least} to {most}"
            raise UsageError(f"{name} is {bounds}, not {word}", command)
        return value

    return read_word


def _nearest(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
