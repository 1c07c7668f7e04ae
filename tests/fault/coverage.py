"""What the recordings have to contain, read from the code: nothing can be forgotten."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import customerd
from tests.fault.campaign import Recording
from zkchannels.store import database as store
from zkchannels.wire import merchant, signer

_KINDS = {"pay": ("pay", "refund"), "walk": ("recover",)}
"""Operations that a file of steps is for, where that is not its name."""
_NOT_TAKEN = {
    ("recover", "establish"): "tests/recovery, as it begins with the seed alone",
    ("confirm", "confirm"): "tests/signer, as a person has to be asked",
    ("confirm", "prove"): "the same, once the person said yes",
}
"""Steps that no operation here takes, and why."""
_NOT_SAID = {
    ("signer", "signer.ping"): "said every two seconds, whatever happens",
    ("signer", "recover.sign"): "tests/recovery",
    ("signer", "recover.establish"): "tests/recovery",
    ("signer", "backup.key"): "tests/recovery",
    ("signer", "confirmation.wait"): "tests/signer, as a person has to be asked",
    ("signer", "confirmation.withdraw"): "the same, when the operation is cancelled",
    ("signer", "signer.policies"): "said for `signer-status` alone",
    ("merchant", "establish.recover"): "tests/recovery",
    ("signer", "pair.hello"): "tests/link, as it is said before the signer is one",
    ("signer", "pair.prove"): "tests/link",
}
"""Messages that no operation sends, and why."""


def committing_methods() -> set[str]:
    """Return the methods of Database that ask the server for anything in the writer's turn."""
    (database,) = (
        node
        for node in ast.parse(inspect.getsource(store)).body
        if isinstance(node, ast.ClassDef) and node.name == "Database"
    )
    found = set()
    for method in database.body:
        if isinstance(method, ast.AsyncFunctionDef):
            called = {
                ast.unparse(node.func) for node in ast.walk(method) if isinstance(node, ast.Call)
            }
            if "self._retry" in called:
                found.add(method.name)
    return found


def steps_in_code() -> set[tuple[str, str]]:
    """Return (operation, step) of every step that the operations enter."""
    found = set()
    for path in Path(customerd.__file__).parent.rglob("*.py"):
        for name in _entered(ast.parse(path.read_text())):
            for kind in _KINDS.get(path.stem, (path.stem,)):
                found.add((kind, name))
    return found - _NOT_TAKEN.keys()


def _entered(code: ast.Module) -> Iterator[str]:
    for node in ast.walk(code):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "step" and node.args:
            name = node.args[0]
            assert isinstance(name, ast.Constant), "the name of a step is written out"
            yield str(name.value)


def steps_recorded(recordings: Iterable[Recording]) -> set[tuple[str, str]]:
    """Return (operation, step) of every step in which a boundary was passed."""
    found = set()
    for recording in recordings:
        for name in recording.passed["customerd"]:
            match = re.match(r"customerd operation (\S+) (\S+) ", name)
            if match is not None:
                found.add((match[1], match[2]))
    return found


def messages_in_code() -> set[tuple[str, str]]:
    """Return (link, method) of everything that customerd, signer and merchant say."""
    said = {("merchant", method.name) for method in merchant.METHODS}
    said |= {("signer", method.name) for method in (*signer.METHODS, *signer.LINK_METHODS)}
    return said - _NOT_SAID.keys()


def messages_recorded(recordings: Iterable[Recording]) -> set[tuple[str, str]]:
    """Return (link, method) of every message that was both asked and answered."""
    asked: dict[str, set[tuple[str, str]]] = {"request": set(), "answer": set()}
    for recording in recordings:
        for link, kind, method in recording.messages():
            asked[kind].add(("signer" if link == "signer" else "merchant", method))
    return asked["request"] & asked["answer"]
