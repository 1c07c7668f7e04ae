"""The examples and the rules of the JSON-RPC 2.0 specification, over a socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.unit.jsonrpc.support import serving, wire
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer

AFTER = b'{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": "after"}'
AFTER_ANSWER = {"jsonrpc": "2.0", "result": 1, "id": "after"}


def error(code: int, identity: Any = None) -> dict[str, Any]:
    """Return an error answer; its message is not compared."""
    return {"jsonrpc": "2.0", "error": {"code": code, "message": ""}, "id": identity}


def result(value: Any, identity: Any) -> dict[str, Any]:
    """Return a successful answer."""
    return {"jsonrpc": "2.0", "result": value, "id": identity}


def stripped(answer: Any) -> Any:
    """Take the messages out of errors, and the order out of a batch."""
    if isinstance(answer, list):
        return sorted((stripped(one) for one in answer), key=lambda one: json.dumps(one["id"]))
    if "error" in answer:
        assert isinstance(answer["error"].get("message"), str)
        assert answer.keys() == {"jsonrpc", "error", "id"}
        return error(answer["error"]["code"], answer["id"])
    return answer


# ruff: noqa: ISC004 - pairs of what is sent, on several lines, and the answer
EXAMPLES: dict[str, tuple[str, Any]] = {
    "positional": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        result(19, 1),
    ),
    "positional swapped": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        result(-19, 2),
    ),
    "named": (
        '{"jsonrpc": "2.0", "method": "subtract",'
        ' "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3),
    ),
    "named swapped": (
        '{"jsonrpc": "2.0", "method": "subtract",'
        ' "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        result(19, 4),
    ),
    "notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "notification, no params": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "unknown method": ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(-32601, "1")),
    "invalid JSON": ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(-32700)),
    "invalid request": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', error(-32600)),
    "batch, invalid JSON": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        ' {"jsonrpc": "2.0", "method"]',
        error(-32700),
    ),
    "empty batch": ("[]", error(-32600)),
    "invalid batch": ("[1]", [error(-32600)]),
    "invalid batch of three": ("[1,2,3]", [error(-32600)] * 3),
    "mixed batch": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        ' {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        ' {"foo": "boo"},'
        ' {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        [
            result(7, "1"),
            result(19, "2"),
            error(-32600),
            error(-32601, "5"),
            result(["hello", 5], "9"),
        ],
    ),
    "batch of notifications": (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
async def test_examples(example: str, tmp_path: Path) -> None:
    """Each example of section 7 has the answer that the specification prints, or none."""
    sent, expected = EXAMPLES[example]
    async with serving(tmp_path, deliver=True) as served, wire(served.path) as client:
        client.send(sent.encode(), AFTER)
        if expected is not None:
            assert stripped(await client.receive()) == stripped(expected)
        assert await client.receive() == AFTER_ANSWER


REQUEST = '{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": %s}'


@pytest.mark.parametrize(
    "identity", ["0", "-7", "1.5", "9007199254740993", "123456789012345678901", '"a"', '""', "null"]
)
async def test_ids_come_back(identity: str, tmp_path: Path) -> None:
    """An id is any string, number or null, and comes back with its value."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send((REQUEST % identity).encode())
        assert await client.receive() == result(1, json.loads(identity))


@pytest.mark.parametrize(
    ("sent", "code", "identity"),
    [
        (REQUEST % "true", -32600, None),
        (REQUEST % "[1]", -32600, None),
        (REQUEST % "1e400", -32600, None),
        ('{"method": "sum", "params": [1], "id": 1}', -32600, 1),
        ('{"jsonrpc": "1.0", "method": "sum", "params": [1], "id": 1}', -32600, 1),
        ('{"jsonrpc": "1.0", "method": "sum", "params": [1], "id": 1', -32700, None),
        ('{"jsonrpc": "2.0", "method": null, "id": 1}', -32600, 1),
        ('{"jsonrpc": "2.0", "id": 1}', -32600, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "params": 1, "id": 1}', -32600, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "params": null, "id": 1}', -32600, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "result": 1, "id": 1}', -32600, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "id": 1} {}', -32700, None),
        ('{"jsonrpc": "2.0", "method": "sum", "params": [NaN], "id": 1}', -32700, None),
        ('{"jsonrpc": "2.0", "method": "sum", "params": [1e999], "id": 1}', -32602, 1),
        ('{"jsonrpc": "2.0", "method": "echo", "params": ["\\ud800"], "id": 1}', -32700, None),
        ('{"jsonrpc": "2.0", "method": "sum", "params": [], "id": 1}', -32602, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "id": 1}', -32602, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "params": [1,2,3,4], "id": 1}', -32602, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "params": ["1"], "id": 1}', -32602, 1),
        ('{"jsonrpc": "2.0", "method": "sum", "params": {"first": 1, "x": 2}, "id": 1}', -32602, 1),
        ("17", -32600, None),
        ("null", -32600, None),
        ('"text"', -32600, None),
        ("[", -32700, None),
        ("[1", -32700, None),
        ("\ufeff{}", -32700, None),
        ("[" * 100_000 + "]" * 100_000, -32600, None),
        ('{"x":' * 100_000, -32600, None),
        ("{" * 1000, -32700, None),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_errors(sent: str, code: int, identity: Any, tmp_path: Path) -> None:
    """What is wrong with a line gives the specified code, and the id if it could be read."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send(sent.encode(), AFTER)
        assert stripped(await client.receive()) == error(code, identity)
        assert await client.receive() == AFTER_ANSWER


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xfe",
        b'{"jsonrpc": "2.0", "method": "\xff", "id": 1}',
        b'{"jsonrpc": "2.0", "method": "sum", "params": [1], "more": "\xc3", "id": 1}',
        b'[{"jsonrpc": "2.0", "method": "sum", "params": [1], "more": "\xc3", "id": 1}]',
    ],
)
async def test_invalid_utf8(sent: bytes, tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a parse error, wherever they stand."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send(sent, AFTER)
        assert stripped(await client.receive()) == error(-32700)
        assert await client.receive() == AFTER_ANSWER


async def test_blank_lines_and_space(tmp_path: Path) -> None:
    """Blank lines are passed over, and white space around a value does not matter."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send(b"", b"  \t\r", b" \t" + AFTER + b" \r", b" [ " + AFTER + b" ] \r")
        assert await client.receive() == AFTER_ANSWER
        assert await client.receive() == [AFTER_ANSWER]


async def test_unicode(tmp_path: Path) -> None:
    """Text outside ASCII arrives as it was sent, escaped or not."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.call("echo", ["Zürich \U0001f600 \x00 \u2028"])
        client.send('{"jsonrpc":"2.0","method":"echo","params":["Zürich 😀"],"id":2}'.encode())
        assert await client.receive() == result("Zürich \U0001f600 \x00 \u2028", 1)
        assert await client.receive() == result("Zürich 😀", 2)


async def test_large_batch(tmp_path: Path) -> None:
    """A batch that would be answered by more than its share of memory is refused as a whole."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        client.send(b"[" + b",".join([b"1"] * 129) + b"]", b"[" + b",".join([b"1"] * 128) + b"]")
        assert stripped(await client.receive()) == error(-32600)
        assert await client.receive() == [
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
            for message in ["a request is an object"] * 128
        ]


async def test_batch_of_slow_and_quick(tmp_path: Path) -> None:
    """A batch is answered at once for all, while single calls overtake it."""
    async with serving(tmp_path) as served, wire(served.path) as client:
        quick = b'{"jsonrpc":"2.0","method":"sum","params":[2],"id":"quick"}'
        client.send(b'[{"jsonrpc":"2.0","method":"wait","id":"slow"},' + quick + b"]", AFTER)
        assert await client.receive() == AFTER_ANSWER
        served.release.set()
        assert stripped(await client.receive()) == stripped(
            [result(2, "quick"), result("released", "slow")]
        )


class KeywordOnly(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Optional before required, and other names on the wire."""

    is_optional: int = 5
    is_required: int


async def test_position_is_order_of_fields(tmp_path: Path) -> None:
    """By position, parameters come in the order in which the Struct lists its fields."""
    method = Method("keywords", KeywordOnly, list[int], summary="Return both.")

    def both(params: KeywordOnly, _peer: Peer) -> list[int]:
        return [params.is_optional, params.is_required]

    async with serving(tmp_path) as served, wire(served.path) as client:
        served.handlers.register(method, both)
        client.call("keywords", [1, 2])
        client.call("keywords", {"isRequired": 3})
        client.call("keywords", {"is_required": 3})
        first, second, third = [await client.receive() for _ in range(3)]
        by_position = dict(zip(KeywordOnly.__struct_fields__, [1, 2], strict=True))
        assert first["result"] == [by_position["is_optional"], by_position["is_required"]]
        assert second["result"] == [5, 3]
        assert third["error"]["code"] == -32602
