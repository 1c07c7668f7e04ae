"""Settings: one typed object, filled from a TOML file and the environment; mistakes are named."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

S = TypeVar("S", bound=Struct)

Duration = Annotated[float, Meta(ge=0, extra={"duration": True})]
"""Seconds; in a file or the environment text like "250ms", "60s", "48h", "1h30m", or a number."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(ms|s|m|h|d) *")

_PASSWORD = re.compile(r"\bpassword\s*=|://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
"""What a connection string with a password has, in either of libpq's two forms."""


class ConfigurationError(Exception):
    """A setting is unknown or has a value it cannot have; says which one and where it was read."""


def load(
    settings: type[S],
    path: Path | None,
    *,
    prefix: str = "CUSTOMERD",
    environment: Mapping[str, str] | None = None,
) -> S:
    """Return the settings of a TOML file (None: all defaults), overridden by the environment.

    A variable is named PREFIX_SECTION_KEY; its value is the plain text for text and durations, and
    TOML for anything else. Raises ConfigurationError; an unknown key is told with the nearest
    known one. Variables that name no section are somebody else's.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = _read(path)
        _refuse_unknown(settings, data, where=str(path))
    _override(settings, data, prefix, os.environ if environment is None else environment)
    where = f"{path or 'settings'}: " if path is not None else ""
    try:
        return msgspec.convert(_with_durations(settings, data, ""), settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(where + _readable(str(error))) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}{error}") from None


def refuse_open_password(path: Path, dsn: str, name: str) -> None:
    """Raise ConfigurationError when a file that others can read holds the database's password.

    `dsn`: the connection string that was read from it; `name`: the credential to use instead.
    """
    if not _PASSWORD.search(dsn) or not path.exists() or not _PASSWORD.search(_text(path)):
        return
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} holds a password and is open to others (mode {mode:04o}): chmod 600 {path}, "
            f"or hand the password over as the credential {name}"
        )


def duration(text: str) -> float:
    """Return the seconds of a text like "60s", "5m" or "1h30m"; ValueError for anything else."""
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text.strip()):
        raise ValueError(f'{text!r} is no duration like "60s", "5m" or "48h"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _refuse_unknown(kind: type[Struct], data: dict[str, Any], *, where: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in data.items():
        if name not in fields:
            raise ConfigurationError(f"{where}: {name} is not known{_nearest(name, fields)}")
        for section, inner, inside in _sections(fields[name], value, name):
            _refuse_unknown(section, inner, where=f"{where}: in {inside}")


def _sections(
    kind: Any, value: Any, name: str
) -> Iterator[tuple[type[Struct], dict[str, Any], str]]:
    """Yield each table inside a value together with the Struct it is to become."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        if isinstance(value, dict):
            yield kind, value, f"[{name}]"
    elif get_origin(kind) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _sections(get_args(kind)[1], item, f"{name}.{key}")
    elif get_origin(kind) is list and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from _sections(get_args(kind)[0], item, f"{name}, table {number}")
    else:
        for option in get_args(kind):
            yield from _sections(option, value, name)


def _override(
    kind: type[Struct], data: dict[str, Any], prefix: str, environment: Mapping[str, str]
) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    sections = {
        f"{prefix}_{name.upper()}": name
        for name, of in fields.items()
        if isinstance(of, type) and issubclass(of, Struct)
    }
    keys = {f"{prefix}_{name.upper()}": name for name in fields if name not in sections.values()}
    for variable, text in environment.items():
        if variable in keys:
            data[keys[variable]] = _value(fields[keys[variable]], text)
    for start, name in sections.items():
        here = {key: text for key, text in environment.items() if key.startswith(f"{start}_")}
        here = {key: text for key, text in here.items() if key not in keys}
        if not here:
            continue
        known = _variables(fields[name], start)
        for variable in here:
            if variable not in known:
                raise ConfigurationError(f"{variable} is not known{_nearest(variable, known)}")
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{name} must be a section")
        _override(fields[name], inner, start, here)


def _variables(kind: type[Struct], prefix: str) -> set[str]:
    found = set()
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}_{field.encode_name.upper()}"
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            found |= _variables(field.type, name)
        else:
            found.add(name)
    return found


def _value(kind: Any, text: str) -> Any:
    if _is_text(kind) or _is_duration(kind):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # Left as it is, for the check of the type to complain about.
        return text


def _is_text(kind: Any) -> bool:
    """Tell whether a type is text and nothing but text, or None."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    options = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}
    return options - {type(None)} == {str}


def _is_duration(kind: Any) -> bool:
    if kind == Duration:
        return True
    return get_origin(kind) not in (list, dict) and any(map(_is_duration, get_args(kind)))


def _with_durations(kind: Any, value: Any, where: str) -> Any:
    """Return the value with every text in the place of a duration replaced by its seconds."""
    if isinstance(kind, type) and issubclass(kind, Struct) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        return {
            name: _with_durations(fields.get(name), item, f"{where}.{name}".lstrip("."))
            for name, item in value.items()
        }
    if get_origin(kind) is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {k: _with_durations(inner, item, f"{where}.{k}") for k, item in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        return [_with_durations(get_args(kind)[0], item, where) for item in value]
    if isinstance(value, str) and _is_duration(kind):
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value.strip()):
            return float(value)
        try:
            return duration(value)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from None
    return value


def _nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known))}"


def _readable(message: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.chain.fee_cap`" around."""
    text, _, place = message.partition(" - at `$")
    text = text[:1].lower() + text[1:]
    return f"{place.rstrip('`').lstrip('.')}: {text}" if place else text
