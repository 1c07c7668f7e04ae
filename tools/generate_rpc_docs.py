"""Make `docs/rpc.md` from the methods of the owner RPC and their kinds of errors.

usage: python -m tools.generate_rpc_docs [--check]
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from customerd.rpc import methods
from customerd.rpc.errors import ERRORS, failure
from customerd.rpc.methods import METHODS
from tools.generated import ROOT, field_docs, write_or_check
from zkchannels.jsonrpc import errors as transport
from zkchannels.jsonrpc.method import Method

TARGET = ROOT / "docs" / "rpc.md"

INTRODUCTION = """\
# The owner RPC

<!-- Made from the methods by tools/generate_rpc_docs.py; do not edit. -->

`customerd` answers JSON-RPC 2.0 on a Unix socket: `/run/customerd/customerd.sock`, or
`$XDG_RUNTIME_DIR/customerd/customerd.sock` when it runs for one user. The socket has mode 0600, and
the daemon accepts its own user and root alone. `customerctl` has a command of the same name for
every method but `rpc.discover`; `customerctl rpc METHOD JSON` calls any of them.

- One JSON value per line, in UTF-8, ended by a newline, at most 1 MiB. Batches are answered.
  Requests may be sent without waiting for answers; answers come in any order and carry the
  request's `id`.
- Parameters are given by name or by position, in the order of the tables below. An unknown name is
  refused.
- A result is always an object; fields may be added to it, so ignore those you do not know.
- A notification from a client (a request without `id`) is never executed: money must not move
  without an answer. The daemon closes the connection.
- Amounts as parameters are text with the asset (`"0.005 ETH"`) or whole units of the escrow; in
  results they are both: `{"units": 5000000, "text": "0.005 ETH"}`. Times are Unix seconds.
- `rpc.discover` returns this document as OpenRPC.

Example:

    $ printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"show","params":{"label":"coffee"}}' |
        socat - UNIX-CONNECT:/run/customerd/customerd.sock

## What a method needs

| needs | meaning |
|---|---|
| nothing | answered as long as the daemon runs |
| database | PostgreSQL has to answer |
| chain | the watcher has to follow the chain as well |
| signer | a signer has to be attached as well: without one the daemon is in safe mode |

docs/gate.md has the whole table: what every method answers in every situation.

Others than the owner use the monitor socket, with a token (docs/tokens.md); `tokens` below says
which tokens let their holder call a method: those that only read, or those that spend; the others
are the owner's alone. There every method may also be refused as `forbidden` or `rate_limited`.

## Events

After `subscribe`, events are sent on the same connection as notifications `event`; their
parameters are a [HistoryEvent](#historyevent-object). `seq` numbers all events without gaps, so
`subscribe` with `after` goes on where a lost connection ended.
"""

TRANSPORT = {
    transport.PARSE_ERROR: "the line is no JSON",
    transport.INVALID_REQUEST: "the line is no request",
    transport.METHOD_NOT_FOUND: "there is no such method",
    transport.INVALID_PARAMS: "the parameters do not fit; the message says where",
    transport.INTERNAL_ERROR: "the daemon failed; its journal says why",
    transport.STOPPING: "the call was not begun or was given up: the daemon stops",
    transport.REFUSED: "this connection is not accepted and is closed",
}


def generate() -> str:
    """Return the text of the document."""
    components = _components()
    parts = [INTRODUCTION, "## Methods\n", _overview()]
    parts += [_method(method, components) for method in METHODS]
    parts += ["## Types\n", *(_type(name, components[name]) for name in _types(components))]
    parts.append(_errors())
    return "\n".join(parts)


def _components() -> dict[str, dict[str, Any]]:
    types = [kind for method in METHODS for kind in (method.params, method.result)]
    types.append(methods.HistoryEvent)
    return msgspec.json.schema_components(types, ref_template="{name}")[1]


def _types(components: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the types of results, in the order of their definition."""
    defined = [name for name in vars(methods) if name in components]
    return [name for name in defined if not name.endswith("Params")]


def _overview() -> str:
    rows = [
        f"| [`{m.name}`](#{_anchor(m.name)}) | {m.summary} | {m.needs} | {m.grant} |"
        for m in METHODS
    ]
    return "\n".join(["| method | | needs | tokens |", "|---|---|---|---|", *rows, ""])


def _anchor(name: str) -> str:
    return name.replace(".", "").lower()


def _link(name: str) -> str:
    """Refer to a type; methods of the same name have the plain anchor."""
    plain = name.rstrip("_")
    return f"[{plain}](#{_anchor(plain)}-object)"


def _method(method: Method[Any, Any], components: dict[str, dict[str, Any]]) -> str:
    lines = [f"### {method.name}\n", f"{method.summary} Needs: {method.needs}.\n"]
    fields = _fields(components[method.params.__name__], _words(method.params.__name__))
    if fields:
        lines += ["| parameter | type | default | |", "|---|---|---|---|", *fields, ""]
    else:
        lines.append("No parameters.\n")
    name = getattr(method.result, "__name__", "")
    result = _link(name) if name in components else "an OpenRPC document"
    lines.append(f"Result: {result}.\n")
    if method.errors:
        lines.append(f"Errors: {', '.join(f'`{kind}`' for kind in method.errors)}.\n")
    lines.append(f"    {_request(method)}\n")
    return "\n".join(lines)


def _request(method: Method[Any, Any]) -> str:
    given = msgspec.to_builtins(method.example)
    schema = msgspec.json.schema(method.params)
    properties = schema["$defs"][method.params.__name__]["properties"]
    params = {
        name: value
        for name, value in given.items()
        if "default" not in properties[name] or value != properties[name]["default"]
    }
    request: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method.name}
    return json.dumps(request | ({"params": params} if params else {}))


def _type(name: str, schema: dict[str, Any]) -> str:
    rows = [
        f"| `{field}` | {_kind(described)} | {words} |"
        for (field, described), words in zip(
            schema["properties"].items(),
            _descriptions(schema, _words(name)),
            strict=True,
        )
    ]
    lines = [
        f"### {name.rstrip('_')} object\n",
        f"{schema['description']}\n",
        "| field | type | |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *rows, ""])


def _fields(schema: dict[str, Any], words: dict[str, str]) -> list[str]:
    """Return the rows that describe parameters."""
    return [
        f"| `{name}` | {_kind(field)} | {_default(field)} | {description} |"
        for (name, field), description in zip(
            schema["properties"].items(), _descriptions(schema, words), strict=True
        )
    ]


def _descriptions(schema: dict[str, Any], words: dict[str, str]) -> list[str]:
    return [
        (words.get(name) or _value(field).get("description") or "").replace("|", "\\|")
        for name, field in schema["properties"].items()
    ]


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that is not null."""
    alternatives = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    return alternatives[0] if len(alternatives) == 1 else schema


def _default(schema: dict[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else "required"


def _kind(schema: dict[str, Any]) -> str:
    """Write the type of a value in a few words."""
    if "anyOf" in schema:
        kinds = [_kind(part) for part in schema["anyOf"]]
        return (", or " if any("," in kind for kind in kinds) else " or ").join(kinds)
    if "$ref" in schema:
        return _link(schema["$ref"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    words: str = schema.get("type", "any")
    bounds = [str(schema[bound]) for bound in ("minimum", "maximum") if bound in schema]
    if len(bounds) == 2:
        words += f" {bounds[0]} to {bounds[1]}"
    elif "minimum" in schema:
        words += f", at least {bounds[0]}"
    if "maxLength" in schema:
        words += f", at most {schema['maxLength']} characters"
    return words


def _words(name: str) -> dict[str, str]:
    """Return what the source says below the fields of a type, each in one line."""
    found = field_docs(getattr(methods, name))
    return {field: " ".join(text.split()) for field, text in found.items()}


def _errors() -> str:
    lines = [
        "## Errors\n",
        "An error has `code`, `message` and, in `data`: `kind`, `retry`, and where there is one a",
        "`hint` and the id of the `operation`. Kinds are stable; match them, not the messages.",
        "`retry` is `later` (the same call may succeed by itself), `after_change` (something has",
        "to be mended first) or `never`.\n",
        "| kind | code | retry | meaning |",
        "|---|---|---|---|",
    ]
    for kind, meaning in ERRORS.meanings.items():
        error = failure(kind, "")
        lines.append(f"| `{kind}` | {error.code} | {error.data['retry']} | {meaning} |")
    lines += ["\nErrors of the transport carry no kind:\n", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in TRANSPORT.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, generate()))
