"""Make `customerctl/_commands.py` from the methods of the owner RPC.

usage: python -m tools.generate_cli [--check]
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import msgspec

from customerd.rpc.errors import ERRORS, failure
from customerd.rpc.methods import METHODS
from tools.generated import ROOT, formatted, write_or_check
from zkchannels.jsonrpc.method import Method

TARGET = ROOT / "customerctl" / "_commands.py"

GROUPS = {
    "Channels": ("establish", "list", "show", "rename", "close"),
    "Payments": ("pay", "refund", "balance", "estimate"),
    "Operations": ("operations", "operation", "wait", "cancel", "resume", "history", "subscribe"),
    "Recovery": ("recover", "backup", "restore"),
    "Signer": ("signer-status", "signer-pair", "signer-address", "signer-forget"),
    "Tokens": ("token-create", "token-list", "token-revoke", "token-restrict"),
    "Daemon": ("getinfo", "metrics", "logs", "reload", "stop", "rpc", "help"),
}

POSITIONAL = {
    "establish": ("merchant",),
    "history": ("label",),
    "operations": ("label",),
    "estimate": ("operation", "label"),
    "subscribe": ("topics",),
    "help": ("method",),
    "recover": ("label",),
    "resume": ("operation",),
    "token-create": (),
}
"""Fields given by position; where nothing is said, the required ones."""

FLAGS = {("token-create", "methods"): "method", ("token-create", "channels"): "channel"}
"""Where an option is not called as the field: it is given one at a time, or joined by commas."""

METAVARS = {
    ("token-create", "methods"): "METHOD[,METHOD...]",
    ("token-create", "channels"): "LABEL[,LABEL...]",
    ("token-create", "expires"): "TIME",
    ("token-create", "note"): "TEXT",
    ("token-create", "spend"): "AMOUNT",
    ("rename", "label"): "OLD",
    ("rename", "new_label"): "NEW",
    ("establish", "merchant"): "ADDRESS",
    ("recover", "merchant"): "ADDRESS",
    ("recover", "timeout"): "SECONDS",
    ("estimate", "operation"): "KIND",
    ("subscribe", "topics"): "TOPIC",
    ("help", "method"): "COMMAND",
    ("wait", "timeout"): "SECONDS",
    ("signer-pair", "address"): "HOST:PORT",
    ("signer-pair", "expires"): "SECONDS",
    ("signer-address", "address"): "HOST:PORT",
    ("establish", "note"): "TEXT",
    ("pay", "note"): "TEXT",
    ("refund", "note"): "TEXT",
    ("establish", "idempotency_key"): "KEY",
    ("pay", "idempotency_key"): "KEY",
    ("refund", "idempotency_key"): "KEY",
    ("close", "idempotency_key"): "KEY",
    ("establish", "deposit"): "AMOUNT",
    ("establish", "merchant_deposit"): "AMOUNT",
    ("history", "before"): "NUMBER",
    ("history", "limit"): "ROWS",
    ("operations", "limit"): "ROWS",
    ("subscribe", "after"): "NUMBER",
}

WORDS = {
    "label": "Label of the channel.",
    "new_label": "The new label.",
    "operation": "Id of the operation; `customerctl operations` shows it.",
    "amount": 'Amount with its asset: "0.005 ETH"; the quotes may be left out.',
    "deposit": 'What to lock up, with its asset: "0.1 ETH".',
    "merchant_deposit": "What the merchant is to lock up, at first refundable.",
    "merchant": "Address of the merchant: zkchannel://HOST[:PORT]/0xESCROW",
    "note": "Text for the merchant; - reads it from standard input.",
    "wait": "Return at once; the operation goes on in the daemon.",
    "idempotency_key": "Makes a repeat safe: the same key never does the same twice.",
    "before": "Only events with a smaller number.",
    "after": "Begin after the event with this number; otherwise with what happens from now on.",
    "status": "Only operations with this status.",
    "limit": "How many rows at the most.",
    "timeout": "Stop waiting after so many seconds; the operation goes on.",
    "topics": "Which events to show; all when none is named.",
    "method": "The command to explain.",
}
"""What a field means to somebody at a terminal; where nothing is said, its description."""

WORDS_OF_METHOD = {
    ("history", "operation"): "Only events of this operation.",
    ("history", "label"): "Only events of this channel.",
    ("operations", "label"): "Only operations of this channel.",
    ("estimate", "operation"): "What to estimate.",
    ("estimate", "label"): "The channel it would be done on.",
    ("estimate", "merchant"): "The merchant a channel would be opened with.",
    ("estimate", "force"): "Estimate a unilateral close.",
    ("recover", "label"): "The channel; all that need it when none is named.",
    ("recover", "merchant"): "Look on the chain for channels with this merchant.",
    ("recover", "timeout"): "Stop waiting after so many seconds; the recovery goes on.",
    ("resume", "operation"): "The operation; all that are held when none is named.",
    ("token-create", "note"): "What the token is for.",
    ("token-revoke", "id"): "Id of the token; `customerctl token-list` shows it.",
    ("backup", "file"): "The file to write.",
    ("restore", "file"): "The backup, or the directory of a continuous one.",
    ("establish", "label"): "What to call the channel; otherwise the merchant's host name.",
}

_ID = "0d9c1f5a7be24c3f8e6a5b4c3d2e1f00"
_ADDRESS = "zkchannel://merchant.example/0x5FbDB2315678afecb367f032d93F642f64180aa3"
EXAMPLES = {
    "getinfo": ("customerctl getinfo", "customerctl getinfo --json"),
    "pay": (
        'customerctl pay coffee "0.005 ETH"',
        'customerctl pay coffee 0.005 ETH --note "one espresso"',
        'customerctl pay coffee "0.005 ETH" --no-wait --idempotency-key order-1907',
    ),
    "close": ("customerctl close coffee", "customerctl close coffee --force"),
    "history": ("customerctl history", "customerctl history coffee --limit 10"),
    "operations": ("customerctl operations", "customerctl operations coffee --status running"),
    "operation": (f"customerctl operation {_ID}",),
    "wait": (f"customerctl wait {_ID} --timeout 60",),
    "cancel": (f"customerctl cancel {_ID}",),
    "estimate": (
        "customerctl estimate close coffee --force",
        "customerctl estimate establish",
    ),
    "subscribe": (
        "customerctl subscribe",
        "customerctl subscribe operation channel --after 1200 --json",
    ),
    "logs": (
        "customerctl logs --since today",
        "customerctl logs --channel coffee --follow",
        f"customerctl logs --operation {_ID}",
    ),
    "rpc": (
        "customerctl rpc getinfo",
        """customerctl rpc history '{"label": "coffee", "limit": 1}'""",
        "customerctl rpc rpc.discover",
    ),
    "help": ("customerctl help pay",),
    "token-create": (
        "customerctl token-create --method getinfo,balance,list --expires 30d --note grafana",
        'customerctl token-create --method pay,wait --channel coffee --spend "0.1 ETH" --rate 10/m',
    ),
    "token-revoke": (f"customerctl token-revoke {_ID}",),
    "token-restrict": ("customerctl token-restrict FILE --method getinfo --expires 1h",),
    "recover": ("customerctl recover coffee", f"customerctl recover --merchant {_ADDRESS}"),
    "resume": ("customerctl resume", f"customerctl resume {_ID}"),
}
"""Where nothing is said, the method's own example."""

SUMMARIES = {"subscribe": "Show events as they happen.", "help": "Explain the commands."}
"""Where the command does not do what the method does."""

RPC: dict[str, Any] = {
    "summary": "Call any method with parameters in JSON.",
    "parameters": (
        {
            "name": "method",
            "flag": "",
            "metavar": "METHOD",
            "kind": "text",
            "required": True,
            "help": "Name of the method; rpc.discover describes them all.",
        },
        {
            "name": "params",
            "flag": "",
            "metavar": "JSON",
            "kind": "text",
            "required": False,
            "help": "Object or list of parameters; - reads it from standard input.",
        },
    ),
    "errors": (),
}


def _option(name: str, metavar: str, kind: str, words: str) -> dict[str, Any]:
    return {
        "name": name,
        "flag": f"--{name.removesuffix('s') if kind == 'list' else name}",
        "metavar": metavar,
        "kind": kind,
        "required": False,
        "help": words,
    }


RESTRICT: dict[str, Any] = {
    "summary": "Print a token that allows less, made here from a token in a file.",
    "parameters": (
        {
            "name": "file",
            "flag": "",
            "metavar": "FILE",
            "kind": "text",
            "required": True,
            "help": "File with the token.",
        },
        _option("methods", "METHOD[,METHOD...]", "list", "Only these of its methods."),
        _option("channels", "ID[,ID...]", "list", "Only these channels, by id: show says it."),
        _option("expires", "TIME", "text", 'Only so long from now on: "1h", "30d".'),
        _option("rate", "RATE", "text", 'Only so many calls: "10/s", "100/m".'),
        _option("spend", "AMOUNT", "text", 'Only so much of what it may pay: "0.01 ETH".'),
    ),
    "errors": (),
}

LOGS: dict[str, Any] = {
    "summary": "Show the daemon's lines in the journal, with journalctl.",
    "parameters": (
        _option("channel", "LABEL", "text", "Only about this channel."),
        _option("operation", "ID", "text", "Only about this operation: its whole story."),
        _option("since", "TIME", "text", 'Not older: "today", "1 hour ago", "2026-11-21 18:00".'),
        {
            **_option("follow", "FOLLOW", "switch", "Go on with what is written from now on."),
            "short": "-f",
        },
    ),
    "errors": (),
}


def command(method: Method[Any, Any]) -> dict[str, Any]:
    """Describe the command that calls a method."""
    schema = msgspec.json.schema(method.params)
    schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    fields: dict[str, Any] = schema["properties"]
    by_position = POSITIONAL.get(method.name, tuple(schema["required"]))
    names = [*by_position, *(name for name in fields if name not in by_position)]
    return {
        "summary": method.summary,
        "parameters": tuple(
            _parameter(method.name, name, fields[name], positional=name in by_position)
            for name in names
        ),
        "errors": tuple(method.errors),
    }


def _parameter(
    method: str, name: str, schema: dict[str, Any], *, positional: bool
) -> dict[str, Any]:
    required = "default" not in schema
    default = schema.get("default")
    schema = _without_null(schema)
    kind, flag = _kind(schema), FLAGS.get((method, name), name).replace("_", "-")
    if kind == "switch" and default is True:
        kind, flag = "denial", f"no-{flag}"
    if positional and name == "amount":
        kind = "words"
    words = WORDS_OF_METHOD.get((method, name)) or WORDS.get(name) or schema["description"]
    parameter = {
        "name": name,
        "flag": "" if positional else f"--{flag}",
        "metavar": METAVARS.get((method, name), name.upper().replace("_", "-")),
        "kind": kind,
        "required": required,
        "help": words,
    }
    choices = schema.get("enum") or schema.get("items", {}).get("enum")
    if choices:
        parameter["choices"] = tuple(sorted(choices))
    for bound, keyword in (("least", "minimum"), ("most", "maximum")):
        if keyword in schema:
            parameter[bound] = schema[keyword]
    if default not in (None, "", [], True, False):
        parameter["default"] = default
    return parameter


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    alternatives = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    return alternatives[0] if len(alternatives) == 1 else schema


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "choice"
    kinds = {"boolean": "switch", "integer": "integer", "number": "number", "array": "choices"}
    kind = kinds.get(schema.get("type", ""), "text")
    return "list" if kind == "choices" and "enum" not in schema["items"] else kind


def _example(method: Method[Any, Any], described: dict[str, Any]) -> str:
    """Write the method's example as a command line."""
    values = msgspec.to_builtins(method.example)
    words = ["customerctl", method.name]
    for parameter in described["parameters"]:
        value = values.get(parameter["name"])
        if value in (None, "", [], True, False):
            continue
        if parameter["flag"]:
            words.append(parameter["flag"])
        words.append(str(value))
    return " ".join(f'"{word}"' if " " in word else shlex.quote(word) for word in words)


def commands() -> dict[str, dict[str, Any]]:
    """Return all commands by name, in the order of the overview."""
    described = {m.name: command(m) for m in METHODS if not m.name.startswith("rpc.")}
    for method in METHODS:
        if method.name in described:
            derived = (_example(method, described[method.name]),)
            described[method.name]["examples"] = EXAMPLES.get(method.name, derived)
    described["token-restrict"] = {**RESTRICT, "examples": EXAMPLES["token-restrict"]}
    described["logs"] = {**LOGS, "examples": EXAMPLES["logs"]}
    described["rpc"] = {**RPC, "examples": EXAMPLES["rpc"]}
    for name, summary in SUMMARIES.items():
        described[name]["summary"] = summary
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    ordered = [*group_of, *(name for name in described if name not in group_of)]
    return {name: {"group": group_of.get(name, "Others"), **described[name]} for name in ordered}


def errors() -> dict[str, tuple[int, str]]:
    """Return code and advice on retrying of every kind of error."""
    made = {kind: failure(kind, "") for kind in ERRORS.meanings}
    return {kind: (error.code, error.data["retry"]) for kind, error in made.items()}


def generate() -> str:
    """Return the text of the module."""
    return formatted(
        "# ruff: noqa: E501 - examples and help stand in one piece\n"
        '"""The commands and the kinds of errors: made from the methods of the owner RPC by\n'
        'tools/generate_cli.py; do not edit."""\n\n'
        "from __future__ import annotations\n\n"
        "TYPE_CHECKING = False  # `typing` would double the start of the command line\n"
        "if TYPE_CHECKING:\n"
        "    from customerctl.shapes import Command\n\n"
        f"COMMANDS: dict[str, Command] = {commands()}\n\n"
        f"ERRORS: dict[str, tuple[int, str]] = {errors()}\n"
    )


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, generate()))
