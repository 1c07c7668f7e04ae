"""Make the manual pages: what a person wrote in packaging/man/*.in, with lists made from the code.

usage: python -m tools.generate_man [--check]

A line `.\\" @KIND NAME` of such a file is replaced: `@options PROGRAM` by the options and commands
of a program, `@settings MODULE:CLASS` by the keys of a configuration file, `@variables PREFIX` by
how the environment is named; of customerctl `@commands` by its commands, `@errors` by the kinds of
errors, `@exits` by its exit codes and what every command knows.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from customerctl._commands import COMMANDS
from customerctl.helping import EXIT_CODES, OPTIONS, about, option
from customerd.rpc.errors import ERRORS
from tools.generated import ROOT, field_docs, write_or_check
from zkchannels.service.configuration import Duration

FOLDER = ROOT / "packaging" / "man"
MARK = '.\\" @'

PLACES = {
    "customerd.config:Sockets.rpc": ("/run/customerd/customerd.sock", "customerd/customerd.sock"),
    "customerd.config:Sockets.signer": ("/run/customerd/signer.sock", "customerd/signer.sock"),
    "customerd.config:GuardSettings.key": ("/var/lib/customerd/guard.key", "customerd/guard.key"),
    "customersigner.settings:Settings.state_directory": (
        "/var/lib/customersigner",
        "customersigner",
    ),
}
"""Defaults that depend on who runs the program: for root, and below a person's directory."""


_KINDS = {
    str: "Text",
    int: "A whole number",
    bool: "true or false",
    list: "A list of texts",
    tuple: "A list of texts",
    dict: "A table of texts",
}


def pages() -> dict[Path, str]:
    """Return the text of every page by its path."""
    return {path.with_suffix(""): _page(path) for path in sorted(FOLDER.glob("*.in"))}


def _page(template: Path) -> str:
    lines = ['.\\" Made by tools/generate_man.py from ' + template.name + "; do not edit."]
    for line in template.read_text("utf-8").splitlines():
        if not line.startswith(MARK):
            lines.append(line)
            continue
        kind, *names = line.removeprefix(MARK).split()
        lines += {
            "options": _options,
            "settings": _settings,
            "variables": _variables,
            "commands": _commands,
            "errors": _errors,
            "exits": _exits,
        }[kind](*names)
    return "\n".join(lines) + "\n"


def _options(program: str) -> Iterator[str]:
    parser: argparse.ArgumentParser = importlib.import_module(f"{program}.__main__").parser()
    yield from _arguments(parser)
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        yield ".Ss Commands"
        yield ".Bl -tag -width Ds"
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, command in action.choices.items():
            yield f".It Cm {name}"
            yield from _prose(_sentence(helps[name] or ""))
            yield from _arguments(command)
        yield ".El"


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    listed = [
        action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    if not listed:
        return
    yield ".Bl -tag -width Ds"
    for action in listed:
        metavar = f" Ar {_escaped(str(action.metavar))}" if action.metavar else ""
        if action.nargs is None and not action.metavar and action.option_strings:
            metavar = f" Ar {action.dest.upper()}"
        if action.option_strings:
            flags = " , ".join(f"Fl {text[1:]}" for text in action.option_strings)
            yield f".It {flags}{metavar}"
        else:
            yield f".It{metavar}"
        words = _sentence(action.help or "")
        if not words:
            raise SystemExit(f"{parser.prog}: {action.dest} has no help")
        told = "default" in words or words.endswith(").")
        given = isinstance(action.default, str | float | Path) and action.default != "==SUPPRESS=="
        if given and not told:
            words += f" The default is {action.default}."
        yield from _prose(words)
    yield ".El"


def _settings(place: str) -> Iterator[str]:
    module_name, _, name = place.partition(":")
    module = importlib.import_module(module_name)
    kind = getattr(module, name)
    yield from _keys(module_name, kind, "")


def _keys(module: str, kind: type[msgspec.Struct], path: str) -> Iterator[str]:
    documented = field_docs(kind)
    sections: list[tuple[str, type[msgspec.Struct]]] = []
    plain = []
    for field in msgspec.structs.fields(kind):
        inside = _section(field.type)
        table = f"{path}.{field.name}" if path else field.name
        if inside is not None:
            named = _is_table_of_tables(field.type)
            sections.append((f"{table}.NAME" if named else table, inside))
        else:
            plain.append(field)
    if plain:
        yield ".Bl -tag -width Ds"
    for field in plain:
        words = documented.get(field.name)
        if words is None:
            raise SystemExit(f"{module}: {kind.__name__}.{field.name} is not documented")
        yield f".It Va {field.name}"
        yield from _prose(_sentence(words))
        yield from _prose(_kind(f"{module}:{kind.__name__}.{field.name}", field))
    if plain:
        yield ".El"
    for table, inside in sections:
        yield f".Ss [{table}]"
        if inside.__doc__:
            yield from _prose(_sentence(inspect.cleandoc(inside.__doc__)))
        yield from _keys(module, inside, table)


def _section(kind: Any) -> type[msgspec.Struct] | None:
    """Return the Struct of a table, or of a table of tables."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in get_args(kind) if (found := _section(part))), None)


def _is_table_of_tables(kind: Any) -> bool:
    return get_origin(kind) is dict or any(_is_table_of_tables(part) for part in get_args(kind))


def _kind(name: str, field: msgspec.structs.FieldInfo) -> str:
    kind = _words(field.type)
    if name in PLACES:
        system, own = PLACES[name]
        base = "$XDG_RUNTIME_DIR" if system.startswith("/run") else "~/.local/state"
        return f"{kind}. The default is {system} for root, else {base}/{own}."
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        default = field.default
    else:
        return f"{kind}. It has to be given."
    if default is None:
        return f"{kind}. Absent by default."
    return f"{kind}. The default is {_value(default, duration=_is_duration(field.type))}."


def _is_duration(kind: Any) -> bool:
    return kind == Duration or Duration in get_args(kind)


def _words(kind: Any) -> str:
    if _is_duration(kind):
        return "A duration"
    if get_origin(kind) is Annotated:
        return _words(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        parts = [_words(part) for part in get_args(kind) if part is not type(None)]
        return " or ".join([parts[0], *(_lower(part) for part in parts[1:])])
    if get_origin(kind) is Literal:
        return "One of " + ", ".join(_value(value) for value in get_args(kind))
    return _KINDS[get_origin(kind) or kind]


def _value(value: object, *, duration: bool = False) -> str:
    if duration:
        assert isinstance(value, float)
        for seconds, unit in ((3600, "h"), (60, "m"), (1, "s")):
            if value >= seconds and value % seconds == 0:
                return f'"{int(value // seconds)}{unit}"'
        return f'"{value:g}s"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value)


def _variables(prefix: str) -> Iterator[str]:
    yield "Every setting may be given as"
    yield f".Ev {prefix}_SECTION_KEY"
    yield "or, where it stands in no section,"
    yield f".Ev {prefix}_KEY ,"
    yield "in capitals; that comes before the file."


def _commands() -> Iterator[str]:
    group = ""
    for name, command in COMMANDS.items():
        if command["group"] != group:
            group = command["group"]
            yield f".Ss {group}"
            yield ".Bl -tag -width Ds"
        yield f".It Cm {name}" + "".join(
            f" {word}"
            for word in (
                _synopsis(parameter["flag"], parameter)
                for parameter in sorted(command["parameters"], key=lambda p: bool(p["flag"]))
            )
        )
        yield from _prose(command["summary"])
        if command["parameters"]:
            yield ".Bl -tag -width Ds -compact"
        for parameter in sorted(command["parameters"], key=lambda p: bool(p["flag"])):
            head = option(parameter) if parameter["flag"] else parameter["metavar"]
            yield f".It {_flagged(head)}"
            yield from _prose(_sentence(about(parameter)))
        if command["parameters"]:
            yield ".El"
        names = list(COMMANDS)
        last = names.index(name) + 1 == len(names)
        if last or COMMANDS[names[names.index(name) + 1]]["group"] != group:
            yield ".El"


def _synopsis(flag: str, parameter: Any) -> str:
    head = option(parameter) if flag else parameter["metavar"]
    words = _flagged(head) + (" ..." if parameter["kind"] == "choices" else "")
    return words if parameter["required"] else f"Oo {words} Oc"


def _flagged(head: str) -> str:
    flag, _, metavar = head.partition(" ")
    if not flag.startswith("-"):
        return f"Ar {_escaped(head)}"
    return f"Fl {flag[1:]}" + (f" Ar {_escaped(metavar)}" if metavar else "")


def _errors() -> Iterator[str]:
    yield ".Bl -tag -width Ds -compact"
    for kind, meaning in ERRORS.meanings.items():
        yield f".It {kind}"
        yield from _prose(_sentence(meaning))
    yield ".El"


def _exits() -> Iterator[str]:
    yield ".Bl -tag -width Ds -compact"
    for code, meaning in EXIT_CODES:
        yield f".It {code}"
        yield from _prose(_sentence(meaning))
    yield ".El"
    yield ".Ss Options of every command"
    yield ".Bl -tag -width Ds -compact"
    for flag, meaning in OPTIONS:
        yield f".It {_flagged(flag)}"
        yield from _prose(_sentence(meaning))
    yield ".El"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _prose(text: str) -> Iterator[str]:
    """Yield text for mdoc: a sentence a line, nothing taken for a request."""
    for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", " ".join(text.split())):
        for line in map(_escaped, textwrap.wrap(sentence, 96, break_long_words=False)):
            yield f"\\&{line}" if line.startswith((".", "'")) else line


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("--", "\\-\\-")
    opening = True
    while "`" in text:
        text = text.replace("`", "\\(oq" if opening else "\\(cq", 1)
        opening = not opening
    return text


if __name__ == "__main__":
    sys.exit(max(write_or_check(path, text) for path, text in pages().items()))
