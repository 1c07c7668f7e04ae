"""A merchant that breaks a payment off at any message: the payment is made once, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adversary.arena import Arena
from tests.flow.world import ETHER_UNITS

BREAKS: dict[str, dict[str, Any]] = {
    "never answers": {"do": "never answer"},
    "never answers, and forgets": {"do": "never answer", "after": False},
    "hangs up": {"do": "hang up"},
    "hangs up, and forgets": {"do": "hang up", "after": False},
    "answers later": {"do": "refuse", "kind": "later"},
    "says nothing that makes sense": {"do": "fail", "message": "\x1b[2J\u202e", "data": [1]},
    "writes what is no JSON": {"do": "write", "what": "raw", "text": "{{{{"},
    "nests deeply": {"do": "write", "what": "raw", "text": "[" * 9000},
    "answers another type": {
        "do": "write",
        "what": "raw",
        "text": '{"jsonrpc":"2.0","id":$ID,"result":[1,2,{}]}',
    },
    "answers another request": {
        "do": "write",
        "what": "raw",
        "text": '{"jsonrpc":"2.0","id":77,"result":{}}',
    },
    "sends a notification": {
        "do": "write",
        "what": "raw",
        "text": '{"jsonrpc":"2.0","method":"stop","params":{}}',
    },
    "calls the daemon": {
        "do": "write",
        "what": "raw",
        "text": '{"jsonrpc":"2.0","id":1,"method":"stop","params":{}}',
    },
    "sends a line without an end": {"do": "write", "what": "oversize"},
    "lets the answer drip": {"do": "write", "what": "drip"},
    "answers twice": {"do": "write", "what": "twice"},
    "closes within the answer": {"do": "write", "what": "half"},
    "floods with answers": {
        "do": "write",
        "what": "flood",
        "text": '{"jsonrpc":"2.0","id":99,"result":{}}\n',
    },
    "floods with empty lines": {"do": "write", "what": "flood", "text": "\n\n\n\n\n\n\n\n"},
}


@pytest.mark.parametrize("method", ["pay.propose", "pay.prove", "pay.revoke"])
def test_a_payment_that_is_broken_off_is_made_once_or_not_at_all(arena: Arena, method: str) -> None:
    """Whatever the merchant does to one message: afterwards the channel pays on, to the unit."""
    labels = arena.channels(len(BREAKS))
    arena.order(**{method.replace(".", "_", 1): list(BREAKS.values())})
    begun = [arena.begin("pay", label=label, amount=1000) for label in labels]
    paid = {}
    for label, operation in zip(labels, begun, strict=True):
        done = arena.outcome(operation)["status"] == "done"
        assert done or method == "pay.propose"
        paid[label] = 1000 * done
    arena.unhurt()
    arena.order()
    for label, before in paid.items():
        assert arena.balances(label) == (ETHER_UNITS - before, before)
        arena.pay(label, 1000)
        assert arena.balances(label) == (ETHER_UNITS - before - 1000, before + 1000)
