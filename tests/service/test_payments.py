"""Payments over a restart: answered on the same connection, made exactly once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.flow.world import World
from tests.service.manager import Managed
from zkchannels.jsonrpc.client import BlockingClient


def _daemon(world: World) -> Managed:
    daemon = world.network.daemon
    assert isinstance(daemon, Managed)
    return daemon


class _Asking(threading.Thread):
    """One call on a connection of its own, in the background."""

    def __init__(self, world: World, method: str, **params: Any) -> None:
        super().__init__()
        self._client = BlockingClient(str(world.network.socket), timeout=60)
        self._method, self._params = method, params
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        with self._client:
            self.answer = self._client.call(self._method, self._params)

    def result(self) -> Any:
        self.join(60)
        assert self.answer is not None
        return self.answer


@contextmanager
def _merchant_asleep(world: World) -> Iterator[None]:
    """Have the merchant answer nothing for a while."""
    pid = world.network.merchants["coffee"].service.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _operations(world: World, label: str) -> list[Any]:
    found: list[Any] = world.rpc("operations", label=label, limit=1000)["operations"]
    return [each for each in found if each["kind"] == "pay"]


def test_clients_in_the_middle_of_a_payment_get_their_answers(kept_world: World) -> None:
    """`pay` that waits, by command and by RPC, `wait`, and a subscriber: none notices a restart."""
    world = kept_world
    label = world.establish("1 ETH")
    with BlockingClient(str(world.network.socket), timeout=60) as events:
        after = events.call("subscribe", {})["after"]
        seen = events.notifications()
        with _merchant_asleep(world):
            asking = _Asking(world, "pay", label=label, amount="0.1 ETH")
            numbers, operation = [], ""
            for _, event in seen:
                numbers.append(event["seq"])
                if event["label"] == label and event["operation"]:
                    operation = event["operation"]
                    break
            waiting = _Asking(world, "wait", operation=operation, timeout=50)
            command = [sys.executable, "-m", "customerctl", "--socket", str(world.network.socket)]
            paying = subprocess.Popen(
                [*command, "pay", label, "0.2 ETH"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _, event in seen:
                numbers.append(event["seq"])
                if event["label"] == label and event["operation"] not in (None, operation):
                    break
            _daemon(world).restart()
        said, complained = paying.communicate(timeout=60)
        assert (paying.returncode, complained) == (0, "")
        assert "0.2 ETH" in said
        assert asking.result()["operation"] == waiting.result()["operation"] == operation
        assert asking.result()["status"] == "done"
        while numbers[-1] < world.rpc("history", limit=1)["events"][0]["seq"]:
            numbers.append(next(seen)[1]["seq"])
    assert numbers == list(range(after + 1, after + 1 + len(numbers)))
    assert world.balances(label) == (700_000_000, 300_000_000)
    assert len(_operations(world, label)) == 2


@pytest.mark.parametrize("moment", [signal.SIGUSR1, signal.SIGUSR2], ids=["before", "after"])
def test_a_payment_that_is_just_being_written_is_made_once(
    kept_world: World, moment: signal.Signals
) -> None:
    """Ended right before the commit of a payment or right after it: it is made, once."""
    world = kept_world
    label = world.establish("1 ETH")
    os.kill(_daemon(world).pid, moment)
    asking = _Asking(world, "pay", label=label, amount="0.1 ETH")
    _daemon(world).wait_told("hanging in a commit")
    assert len(_operations(world, label)) == (moment == signal.SIGUSR2)
    _daemon(world).restart()
    assert asking.result()["status"] == "done"
    assert [each["operation"] for each in _operations(world, label)] == [asking.answer["operation"]]
    assert world.balances(label) == (900_000_000, 100_000_000)


def test_a_stream_of_payments_over_restarts_is_paid_once_each(kept_world: World) -> None:
    """Payments sent without a pause on one connection: every id answered once, every one paid."""
    world, count = kept_world, 24
    label = world.establish("1 ETH")
    received: list[Any] = []
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(60)
        raw.connect(str(world.network.socket))

        def send() -> None:
            for number in range(count):
                params = {"label": label, "amount": number + 1, "wait": number % 2 == 0}
                request = {"jsonrpc": "2.0", "id": number, "method": "pay", "params": params}
                line = json.dumps(request).encode() + b"\n"
                raw.sendall(line[:30])
                raw.sendall(line[30:])

        def receive() -> None:
            with raw.makefile("rb") as lines:
                received.extend(json.loads(next(lines)) for _ in range(count))

        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            _daemon(world).restart()
        for thread in threads:
            thread.join(120)
    assert sorted(answer["id"] for answer in received) == list(range(count))
    assert all("result" in answer for answer in received), received
    operations = {answer["result"]["operation"] for answer in received}
    assert len(operations) == count
    for operation in operations:
        assert world.rpc("wait", operation=operation)["status"] == "done"
    assert len(_operations(world, label)) == count
    paid = sum(range(1, count + 1))
    assert world.balances(label) == (1_000_000_000 - paid, paid)
