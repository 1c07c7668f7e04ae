"""Reading a node's JSON: what is documented is understood, anything else is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.chain import answers
from zkchannels.chain.client import parse_endpoint
from zkchannels.chain.errors import MalformedAnswer, Reverted
from zkchannels.chain.model import SendOutcome

BLOCK: dict[str, Any] = {
    "number": "0x10",
    "hash": "0x" + "11" * 32,
    "parentHash": "0x" + "22" * 32,
    "timestamp": "0x5f",
    "baseFeePerGas": "0x7",
    "miner": "ignored",
}
READERS: tuple[Callable[[msgspec.Raw], object], ...] = (
    answers.as_quantity,
    answers.as_binary,
    answers.as_block,
    answers.as_logs,
    answers.as_receipt,
    answers.as_fees,
)


def raw(value: object) -> msgspec.Raw:
    """A result as it stands in an answer."""
    return msgspec.Raw(json.dumps(value).encode())


def test_block() -> None:
    """A block's header; null is a block the node does not have."""
    block = answers.as_block(raw(BLOCK))
    assert block is not None
    assert (block.number, block.timestamp, block.base_fee) == (16, 95, 7)
    assert answers.as_block(raw(None)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"number": "10"},
        {"number": "0x"},
        {"number": "0x8000000000000000"},  # does not fit the database
        {"number": 16},
        {"number": None},
        {"hash": "0x11"},
        {"hash": "0x" + "zz" * 32},
        {"timestamp": "0x" + "f" * 65},
        {"baseFeePerGas": "-0x1"},
    ],
)
def test_malformed_block(change: dict[str, Any]) -> None:
    """One wrong field is enough to refuse a block."""
    with pytest.raises(MalformedAnswer):
        answers.as_block(raw(BLOCK | change))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["0x", "0x0", "0x1"]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(BLOCK)), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_read_or_refused(value: object) -> None:
    """Whatever a node sends, a reader gives a value or MalformedAnswer, nothing else."""
    for read in READERS:
        try:
            read(raw(value))
        except MalformedAnswer:
            continue


def test_deep_nesting_is_refused() -> None:
    """JSON nested a hundred thousand deep is malformed, not a crash."""
    deep = msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)
    for read in READERS:
        with pytest.raises(MalformedAnswer):
            read(deep)


def test_fees() -> None:
    """The next base fee is the last one, the tip the median over the blocks that have one."""
    fees = answers.as_fees(
        raw({"baseFeePerGas": ["0x1", "0x2", "0x9"], "reward": [["0x5"], ["0x3"]]})
    )
    assert (fees.base_fee, fees.tip) == (9, 5)
    assert answers.as_fees(raw({"baseFeePerGas": ["0x1"], "reward": None})).tip == 0
    with pytest.raises(MalformedAnswer):
        answers.as_fees(raw({"baseFeePerGas": []}))


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("already known", SendOutcome.ALREADY_KNOWN),
        ("transaction already imported", SendOutcome.ALREADY_KNOWN),
        ("nonce too low: next nonce 5, tx nonce 4", SendOutcome.NONCE_TOO_LOW),
        ("replacement transaction underpriced", SendOutcome.UNDERPRICED),
        ("transaction underpriced: gas tip cap 0", SendOutcome.UNDERPRICED),
        ("max fee per gas less than block base fee", SendOutcome.UNDERPRICED),
        ("insufficient funds for gas * price + value", SendOutcome.INSUFFICIENT_FUNDS),
        ("Insufficient funds for gas * price + value", SendOutcome.INSUFFICIENT_FUNDS),
        ("intrinsic gas too low", None),
        ("not a transaction: (110, 'Unknown transaction type')", None),
    ],
)
def test_refusals_of_transactions(message: str, outcome: SendOutcome | None) -> None:
    """What nodes say to a transaction, as they say it."""
    error = answers.chain_error(answers.ErrorObject(-32000, message))
    assert answers.send_outcome(error) is outcome


def test_revert_reason() -> None:
    """A revert carries the contract's text, whatever the node made of it."""
    text = b"too early"
    data = bytes.fromhex("08c379a0") + (32).to_bytes(32) + len(text).to_bytes(32) + text.ljust(32)
    error = answers.chain_error(
        answers.ErrorObject(3, "execution reverted: too early", "0x" + data.hex())
    )
    assert isinstance(error, Reverted)
    assert error.reason == "too early"


@given(st.binary(max_size=200))
def test_any_revert_data(data: bytes) -> None:
    """Revert data of any form gives some text, and never an error."""
    for shown in (data, bytes.fromhex("08c379a0") + data):
        error = answers.chain_error(answers.ErrorObject(3, "reverted", "0x" + shown.hex()))
        assert isinstance(error, Reverted)


def test_endpoints() -> None:
    """The WebSocket is beside the HTTP endpoint, or where the configuration says."""
    plain = parse_endpoint("https://node.example/key/abc")
    assert plain.websocket == "wss://node.example/key/abc"
    both = parse_endpoint("http://10.0.0.1:8545 ws://10.0.0.1:8546")
    assert both.websocket == "ws://10.0.0.1:8546"
    assert plain.name == "https://node.example"


@pytest.mark.parametrize(
    "text", ["", "node:8545", "ftp://x/secret", "http://", "ws://x", "http://x https://y/secret"]
)
def test_endpoints_refused(text: str) -> None:
    """Anything else is refused, without repeating what may hold an access key."""
    with pytest.raises(ValueError, match="endpoint") as refused:
        parse_endpoint(text)
    assert "secret" not in str(refused.value)


def test_start_does_not_pay_for_aiohttp() -> None:
    """Importing everything of the package imports no aiohttp: a daemon is READY before it."""
    code = (
        "import sys, zkchannels.chain.follower, zkchannels.chain.lane;"
        "print('aiohttp' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == "False"
