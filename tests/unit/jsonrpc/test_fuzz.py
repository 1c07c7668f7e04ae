"""Arbitrary bytes: each line has the replies it deserves, and the next valid request its answer."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.jsonrpc.support import Served, Wire, serving, wire
from zkchannels.jsonrpc.framing import LineReader

MARKER = b'{"jsonrpc":"2.0","method":"sum","params":[1],"id":"the marker"}'
MARKER_ANSWER = {"jsonrpc": "2.0", "id": "the marker", "result": 1}


class Running:
    """A server in an event loop of its own, which the examples share."""

    def __init__(self, runner: asyncio.Runner, served: Served) -> None:
        self._runner = runner
        self.served = served

    def exchange(self, sent: bytes) -> tuple[list[Any], bool]:
        """Send bytes and the marker; return what came before the answer to it, if it came."""
        return self._runner.run(self._exchange(sent))

    async def _exchange(self, sent: bytes) -> tuple[list[Any], bool]:
        async with asyncio.timeout(20), wire(self.served.path) as client:
            client.send_raw(sent + b"\n" + MARKER + b"\n")
            return await until_marker(client)


async def until_marker(client: Wire) -> tuple[list[Any], bool]:
    """Collect answers until that to the marker, or the end of the connection."""
    answers = []
    try:
        while (answer := await client.receive()) != MARKER_ANSWER:
            answers.append(answer)
    except (EOFError, ConnectionResetError):
        return answers, False
    return answers, True


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Serve for all examples of this module."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as directory:
        # The server's scope spans many runs of the loop, so a task of its own holds it.
        ready: asyncio.Queue[Served] = asyncio.Queue()
        done = asyncio.Event()

        async def host() -> None:
            async with serving(Path(directory), seconds=600) as served:
                ready.put_nowait(served)
                await done.wait()

        async def begin() -> tuple[asyncio.Task[None], Served]:
            return asyncio.create_task(host()), await ready.get()

        async def end(task: asyncio.Task[None]) -> None:
            done.set()
            await task

        task, served = runner.run(begin())
        yield Running(runner, served)
        runner.run(end(task))


def refuse(name: str) -> None:
    """Refuse NaN and the infinities, which Python's own reader takes for numbers."""
    raise ValueError(name)


def deserved(line: bytes) -> int | None:
    """Return how many replies a line deserves, None if it ends the connection.

    Written from the specification on Python's own JSON, as a second opinion.
    """
    if not line.strip(b" \t\r"):
        return 0
    try:
        value = json.loads(line.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return 1
    if not isinstance(value, list):
        return kind(value)
    kinds = [kind(one) for one in value]
    if not kinds or len(kinds) > 128:
        return 1
    if None in kinds:
        return None
    return min(1, sum(one or 0 for one in kinds))


def kind(value: Any) -> int | None:
    """Return 1 for what is answered, 0 for an answer, None for what ends the connection."""
    if not isinstance(value, dict):
        return 1
    valid_id = isinstance(value.get("id", 0), str | int | float | None) and not isinstance(
        value.get("id", 0), bool
    )
    valid = value.get("jsonrpc") == "2.0" and valid_id
    if "method" not in value:
        if not value.keys() & {"result", "error"}:
            return 1
        answers = valid and "id" in value and not {"result", "error"} <= value.keys()
        return 0 if answers and valid_error(value.get("error", ERROR)) else None
    if not valid or not isinstance(value["method"], str) or "id" in value:
        return 1
    if {"result", "error"} & value.keys() or not isinstance(value.get("params", []), list | dict):
        return 1
    return None


ERROR = {"code": 1, "message": "text"}


def valid_error(error: Any) -> bool:
    """Return whether this is an error object of the specification."""
    return (
        isinstance(error, dict)
        and type(error.get("code")) is int
        and isinstance(error.get("message"), str)
    )


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
members = {
    "jsonrpc": st.just("2.0") | scalars,
    "id": st.integers(0, 3) | st.text(max_size=3) | values,
    "method": st.sampled_from(["sum", "subtract", "get_data", "none"]) | values,
    "params": st.lists(st.integers(0, 9), max_size=4) | values,
    "result": values,
    "error": st.just(ERROR) | values,
}
likely = {"jsonrpc", "id", "method"}
objects = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={name: members[name] for name in sorted(members.keys() - {"jsonrpc"})},
) | st.fixed_dictionaries(
    {name: members[name] for name in sorted(likely)},
    optional={name: members[name] for name in sorted(members.keys() - likely)},
)
messages = objects | st.lists(objects | values, max_size=5) | values
texts = messages.map(lambda value: json.dumps(value).encode())
damaged = st.tuples(texts, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)
lines = st.lists(
    st.one_of(texts, texts, damaged, st.binary(max_size=30)).map(
        lambda line: line.replace(b"\n", b" ")
    ),
    max_size=6,
)


@given(lines)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
def test_every_line_has_its_replies(running: Running, sent: list[bytes]) -> None:
    """Each line gets exactly the replies it deserves, in valid form, or ends the connection."""
    expected = 0
    alive = True
    for line in sent:
        replies = deserved(line)
        if replies is None:
            alive = False
            break
        expected += replies
    answers, reached = running.exchange(b"\n".join(sent))
    assert reached is alive
    if alive:
        assert len(answers) == expected
    else:
        assert len(answers) <= expected
    for answer in answers:
        for one in answer if isinstance(answer, list) else [answer]:
            check_form(one)


def check_form(answer: Any) -> None:
    """Check an answer against section 5 of the specification."""
    assert answer["jsonrpc"] == "2.0"
    assert "id" in answer
    assert ("result" in answer) != ("error" in answer)
    if "error" in answer:
        assert type(answer["error"]["code"]) is int
        assert isinstance(answer["error"]["message"], str)


@given(st.binary(max_size=200), st.lists(st.integers(1, 40)), st.integers(1, 50))
def test_pieces_do_not_matter(data: bytes, sizes: list[int], limit: int) -> None:
    """However a stream is cut into pieces, the same lines come out, each oversize one as None."""
    reader = LineReader(limit)
    received: list[bytes | None] = []
    position = 0
    for size in [*sizes, len(data)]:
        if position < len(data):
            received += reader.feed(data[position : position + size])
        position += size
    if position < len(data):
        received += reader.feed(data[position:])
    *complete, rest = data.split(b"\n")
    expected: list[bytes | None] = [line if len(line) <= limit else None for line in complete]
    if len(rest) > limit:
        expected.append(None)
    assert received == expected


def test_closing_in_the_middle(running: Running) -> None:
    """A client that closes at any byte of a request leaves the server well."""
    request = b'{"jsonrpc":"2.0","method":"sum","params":[1],"id":1}\n'
    for length in range(len(request) + 1):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(running.served.path))
            client.sendall(request[:length])
    assert running.exchange(b"") == ([], True)
