"""Calls, events, records and digests: our small codec against eth-abi and the committed ABI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi import encode as reference_encode  # type: ignore[attr-defined]
from eth_account.messages import encode_typed_data
from eth_utils import function_abi_to_4byte_selector  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.escrow import abi, artefact, calls, events, record, typed_data
from zkchannels.escrow.ethereum import EthereumError, checksum, keccak256
from zkchannels.escrow.record import ABSENT, ChannelRecord, ChannelStatus, ImpossibleEvent, fold

WORDS = st.integers(0, 2**256 - 1)
BYTES32 = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20)
SIGNATURES = st.builds(
    lambda scalars, v: scalars + bytes([v]),
    st.binary(min_size=64, max_size=64),
    st.sampled_from([27, 28]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "uint256": WORDS,
    "uint8": st.integers(0, 255),
    "bytes32": BYTES32,
    "address": ADDRESSES,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=300),
}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "salt": BYTES32,
    "secret": BYTES32,
    "permit": SIGNATURES,
    "agreement": SIGNATURES,
    "signature": st.binary(max_size=256),
    "to": ADDRESSES,
    "spender": ADDRESSES,
}
CALLS: list[type[Any]] = [
    calls.Open,
    calls.OpenToken,
    calls.OpenPermit,
    calls.Fund,
    calls.Reclaim,
    calls.Expire,
    calls.Close,
    calls.Defend,
    calls.Dispute,
    calls.Claim,
    calls.MutualClose,
    calls.Withdraw,
]


@dataclass(frozen=True)
class _Log:
    topics: list[bytes]
    data: bytes


@given(st.data())
def test_the_codec_is_eth_abis(data: st.DataObject) -> None:
    """Encodings equal eth-abi's and are read back."""
    types = data.draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6))
    values = [data.draw(VALUES[kind]) for kind in types]
    encoded = abi.encode(types, values)
    theirs = [
        checksum(v) if kind == "address" else v for kind, v in zip(types, values, strict=True)
    ]
    assert encoded == reference_encode(types, theirs)
    assert list(abi.decode(types, encoded)) == values


@given(st.binary(max_size=200), st.lists(st.sampled_from(sorted(VALUES)), max_size=4))
def test_decoding_never_breaks(data: bytes, types: list[str]) -> None:
    """Any bytes are either the encoding of some values or InvalidAbi."""
    try:
        values = abi.decode(types, data)
    except abi.InvalidAbi:
        return
    assert abi.encode(types, values) == data


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint256", -1),
        ("uint256", 2**256),
        ("uint8", 256),
        ("bytes32", b"short"),
        ("address", bytes(32)),
        ("address", 5),
        ("uint256", b"5"),
        ("bytes", 5),
    ],
)
def test_values_out_of_range_are_refused(kind: str, value: int | bytes) -> None:
    """Nothing is truncated or padded into a word."""
    with pytest.raises(abi.InvalidAbi):
        abi.encode([kind], [value])


def _of_artefact(kind: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in artefact.load("Escrow").abi if entry["type"] == kind}


def test_calls_are_those_of_the_contract() -> None:
    """Every call that changes the contract has a dataclass with its selector, and no other."""
    functions = _of_artefact("function")
    changing = {
        function_abi_to_4byte_selector(entry): name
        for name, entry in functions.items()
        if entry["stateMutability"] in ("payable", "nonpayable")
    }
    assert {abi.selector(call.NAME, call.TYPES): call.NAME for call in CALLS} == changing


def test_views_are_those_of_the_contract() -> None:
    """Every view has a builder with its selector."""
    functions = _of_artefact("function")
    word, address = bytes(32), bytes(20)
    built = {
        "channel": calls.channel(0),
        "channel_id": calls.channel_id(address, word),
        "key": calls.key(),
        "merchant": calls.merchant(),
        "asset": calls.asset(),
        "unit": calls.unit(),
        "delay": calls.delay(),
        "owed": calls.owed(address),
    }
    views = {name: e for name, e in functions.items() if e["stateMutability"] == "view"}
    assert {name: data[:4] for name, data in built.items()} == {
        name: function_abi_to_4byte_selector(entry) for name, entry in views.items()
    }


def test_token_calls_are_those_of_the_token() -> None:
    """The ERC-20 builders have the test token's selectors."""
    token_abi: Any = artefact.load("TestToken").abi
    entries = [entry for entry in token_abi if entry["type"] == "function"]
    known = {e["name"]: function_abi_to_4byte_selector(e) for e in entries}
    address = bytes(20)
    built = {
        "approve": calls.approve(address, 0),
        "transfer": calls.transfer(address, 0),
        "mint": calls.mint(address, 0),
        "balanceOf": calls.balance_of(address),
        "allowance": calls.allowance(address, address),
        "nonces": calls.nonces(address),
        "DOMAIN_SEPARATOR": calls.domain_separator(),
    }
    assert {name: data[:4] for name, data in built.items()} == {name: known[name] for name in built}


@pytest.mark.parametrize("kind", CALLS)
@given(data=st.data())
def test_calls_are_read_back(kind: type[Any], data: st.DataObject) -> None:
    """Decoding call data gives the very call."""
    values = [data.draw(FIELDS.get(name, WORDS)) for name in kind.__match_args__]
    call = kind(*values)
    assert calls.decode_call(call.encode()) == call


def test_builders_give_the_calls() -> None:
    """Each builder is its dataclass's call data."""
    permit = 64 * b"\x01" + b"\x1c"
    expected: list[tuple[bytes, Any]] = [
        (calls.open_(bytes(32), 5), calls.Open(bytes(32), 5)),
        (calls.open_token(bytes(32), 5, 6), calls.OpenToken(bytes(32), 5, 6)),
        (
            calls.open_permit(bytes(32), 5, 6, 7, permit),
            calls.OpenPermit(bytes(32), 5, 6, 7, permit),
        ),
        (calls.fund(1, 2, 3), calls.Fund(1, 2, 3)),
        (calls.reclaim(1), calls.Reclaim(1)),
        (calls.expire(1), calls.Expire(1)),
        (calls.close(1, 2, 3, 4, b"s"), calls.Close(1, 2, 3, 4, b"s")),
        (calls.defend(1, 2, 3, 4, b"s", permit), calls.Defend(1, 2, 3, 4, b"s", permit)),
        (calls.dispute(1, bytes(32)), calls.Dispute(1, bytes(32))),
        (calls.claim(1), calls.Claim(1)),
        (calls.mutual_close(1, 2, 3, permit), calls.MutualClose(1, 2, 3, permit)),
        (calls.withdraw(bytes(20)), calls.Withdraw(bytes(20))),
    ]
    for data, call in expected:
        assert calls.decode_call(data) == call


def test_token_calls_are_read_back() -> None:
    """A signer can tell what it lets a token do."""
    assert calls.decode_token_call(calls.approve(bytes(20), 7)) == calls.Approve(bytes(20), 7)
    assert calls.decode_token_call(calls.transfer(bytes(20), 7)) == calls.Transfer(bytes(20), 7)
    with pytest.raises(calls.UnknownCall):
        calls.decode_token_call(calls.mint(bytes(20), 7))


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\xde\xad\xbe\xef", calls.key()])
def test_unknown_calls_are_named_so(data: bytes) -> None:
    """Call data that is none of the escrow's changing calls raises UnknownCall."""
    with pytest.raises(calls.UnknownCall):
        calls.decode_call(data)


@given(st.integers(0, len(calls.claim(1)) - 5))
def test_truncated_calls_are_refused(length: int) -> None:
    """A call without all of its arguments, or with more, is no call."""
    for data in (calls.claim(1)[: 4 + length], calls.claim(1) + b"\0"):
        with pytest.raises(abi.InvalidAbi):
            calls.decode_call(data)


def test_ecdsa_signatures_have_65_bytes() -> None:
    """A permit of another length is refused when the call is built."""
    with pytest.raises(abi.InvalidAbi):
        calls.mutual_close(1, 2, 3, bytes(64))


def test_view_answers_are_decoded() -> None:
    """Numbers, addresses, byte strings and records come back as they were encoded."""
    assert calls.decode_number((7).to_bytes(32)) == 7
    assert calls.decode_address(bytes(12) + 20 * b"\x05") == 20 * b"\x05"
    assert calls.decode_bytes(abi.encode(["bytes"], [b"key"])) == b"key"
    assert calls.decode_channel(bytes(320)) == ABSENT
    for bad in (b"", bytes(319), (7).to_bytes(32) + bytes(288)):
        with pytest.raises(EthereumError):
            calls.decode_channel(bad)


# Events


def test_events_are_those_of_the_contract() -> None:
    """Every event of the contract has a dataclass with its topic and the same indexed values."""
    for name, entry in _of_artefact("event").items():
        types = [value["type"] for value in entry["inputs"]]
        kind: Any = events.TOPICS[keccak256(f"{name}({','.join(types)})".encode())]
        assert kind.__name__ == name
        assert list(kind.__match_args__) == [value["name"] for value in entry["inputs"]]
        indexed = [value["indexed"] for value in entry["inputs"]]
        assert indexed == [i < kind.INDEXED for i in range(len(indexed))]
    assert len(events.TOPICS) == len(_of_artefact("event"))


@pytest.mark.parametrize("kind", list(events.TOPICS.values()))
@given(data=st.data())
def test_events_are_read_back(kind: Any, data: st.DataObject) -> None:
    """A log of an event decodes to the event."""
    values = [data.draw(VALUES[name]) for name in kind.TYPES]
    words = abi.encode(kind.TYPES, values)
    split = 32 * kind.INDEXED
    topics = [abi.topic(kind.__name__, kind.TYPES)]
    topics += [words[i : i + 32] for i in range(0, split, 32)]
    assert events.decode_event(_Log(topics, words[split:])) == kind(*values)


def test_channel_topics_are_those_of_channels() -> None:
    """The topics a watcher filters by are those of the events that name a channel."""
    named = {t for t, kind in events.TOPICS.items() if "channel" in kind.__match_args__}
    assert named == events.CHANNEL_TOPICS


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (_Log([], b""), events.UnknownEvent),
        (_Log([bytes(32), bytes(32)], b""), events.UnknownEvent),
        (_Log([abi.topic("Funded", ("uint256",))], bytes(32)), abi.InvalidAbi),
        (_Log([abi.topic("Funded", ("uint256",)), bytes(32)], b"\0"), abi.InvalidAbi),
        (_Log([abi.topic("Expiring", ("uint256", "uint256")), bytes(32)], b""), abi.InvalidAbi),
    ],
)
def test_malformed_logs_are_refused(log: _Log, error: type[Exception]) -> None:
    """A log that is no event of the escrow raises, it is never guessed at."""
    with pytest.raises(error):
        events.decode_event(log)


# Records

CUSTOMER = 20 * b"\x0c"
OPENED = events.Opened(1, CUSTOMER, 70, 0, 0)
DUAL = events.Opened(1, CUSTOMER, 70, 30, 50)
CLOSING = events.Closing(1, 9, 20, 50, 300, by_guard=False)
GUARDED = events.Closing(1, 9, 20, 50, 300, by_guard=True)
VOIDED = events.Voided(1, bytes(32), 400)
OPEN_RECORD = ChannelRecord(ChannelStatus.OPEN, CUSTOMER, 70)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], ABSENT),
        ([OPENED], OPEN_RECORD),
        ([DUAL], ChannelRecord(ChannelStatus.AWAITING_MERCHANT, CUSTOMER, 70, 30, 50)),
        ([DUAL, events.Funded(1)], ChannelRecord(ChannelStatus.OPEN, CUSTOMER, 70, 30)),
        (
            [DUAL, events.Reclaimed(1)],
            ChannelRecord(ChannelStatus.RECLAIMED, CUSTOMER, 70, 30, 0, 70),
        ),
        (
            [OPENED, events.Expiring(1, 200)],
            ChannelRecord(ChannelStatus.EXPIRING, CUSTOMER, 70, 0, 200),
        ),
        (
            [OPENED, CLOSING],
            ChannelRecord(ChannelStatus.CLOSING, CUSTOMER, 70, 0, 300, 20, 50, 9),
        ),
        (
            [OPENED, events.Expiring(1, 200), GUARDED],
            ChannelRecord(
                ChannelStatus.CLOSING, CUSTOMER, 70, 0, 300, 20, 50, 9, closed_by_guard=True
            ),
        ),
        (
            [OPENED, events.Expiring(1, 200), GUARDED, VOIDED],
            ChannelRecord(ChannelStatus.EXPIRING, CUSTOMER, 70, 0, 400, guard_struck_off=True),
        ),
        (
            [OPENED, events.Expiring(1, 200), GUARDED, VOIDED, CLOSING],
            ChannelRecord(
                ChannelStatus.CLOSING, CUSTOMER, 70, 0, 300, 20, 50, 9, guard_struck_off=True
            ),
        ),
        (
            [OPENED, CLOSING, events.Disputed(1, bytes(32)), events.Settled(1, 0, 70)],
            ChannelRecord(ChannelStatus.CLOSED, CUSTOMER, 70, 0, 0, 0, 70),
        ),
        (
            [OPENED, events.Settled(1, 60, 10)],
            ChannelRecord(ChannelStatus.CLOSED, CUSTOMER, 70, 0, 0, 60, 10),
        ),
    ],
)
def test_events_fold_to_the_record(
    history: list[events.ChannelEvent], expected: ChannelRecord
) -> None:
    """A history gives the record, also when it is folded in two parts."""
    assert fold(history) == expected
    for cut in range(len(history)):
        assert fold(history[cut:], fold(history[:cut])) == expected


@pytest.mark.parametrize(
    "history",
    [
        [events.Funded(1)],
        [OPENED, OPENED],
        [OPENED, events.Funded(1)],
        [OPENED, events.Reclaimed(1)],
        [DUAL, events.Expiring(1, 200)],
        [OPENED, VOIDED],
        [OPENED, CLOSING, CLOSING],
        [OPENED, events.Settled(1, 60, 10), CLOSING],
        [DUAL, events.Settled(1, 60, 10)],
        [CLOSING],
    ],
)
def test_gaps_in_the_history_are_noticed(history: list[events.ChannelEvent]) -> None:
    """An event that cannot follow the ones before raises: some are missing."""
    with pytest.raises(ImpossibleEvent):
        fold(history)


def test_statuses_are_numbered_as_in_the_contract() -> None:
    """The contract's constants are the enum's values."""
    assert [status.name for status in sorted(ChannelStatus, key=lambda s: s.value)] == [
        "ABSENT",
        "AWAITING_MERCHANT",
        "OPEN",
        "EXPIRING",
        "CLOSING",
        "CLOSED",
        "RECLAIMED",
    ]
    assert record.ABSENT.status.value == 0


# Digests

ESCROW = 20 * b"\x0e"
GUARD = 20 * b"\x0f"


def _reference(primary: str, fields: list[tuple[str, str]], message: dict[str, Any]) -> bytes:
    domain = {
        "name": "zkChannels escrow",
        "version": "1",
        "chainId": 31337,
        "verifyingContract": checksum(ESCROW),
    }
    return _typed(primary, fields, message, domain)


def _typed(
    primary: str, fields: list[tuple[str, str]], message: dict[str, Any], domain: dict[str, Any]
) -> bytes:
    def described(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"name": name, "type": kind} for name, kind in pairs]

    signable = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": described(
                    [
                        ("name", "string"),
                        ("version", "string"),
                        ("chainId", "uint256"),
                        ("verifyingContract", "address"),
                    ]
                ),
                primary: described(fields),
            },
            "primaryType": primary,
            "domain": domain,
            "message": message,
        }
    )
    return keccak256(b"\x19" + signable.version + signable.header + signable.body)


BALANCES = [("customer_balance", "uint256"), ("merchant_balance", "uint256")]


def test_guard_permits_are_eip_712() -> None:
    """The digest of a guard's permit is what any wallet would sign."""
    fields = [("channel", "uint256"), ("lock", "uint256"), *BALANCES, ("guard", "address")]
    message = {
        "channel": 1,
        "lock": 2,
        "customer_balance": 3,
        "merchant_balance": 4,
        "guard": checksum(GUARD),
    }
    ours = typed_data.guard_permit_digest(31337, ESCROW, 1, 2, 3, 4, GUARD)
    assert ours == _reference("GuardPermit", fields, message)


def test_mutual_closes_are_eip_712() -> None:
    """The digest of a mutual close is what any wallet would sign."""
    message = {"channel": 1, "customer_balance": 3, "merchant_balance": 4}
    ours = typed_data.mutual_close_digest(31337, ESCROW, 1, 3, 4)
    assert ours == _reference("MutualClose", [("channel", "uint256"), *BALANCES], message)


def test_recoveries_are_eip_712() -> None:
    """The digest of a recovery is what any wallet would sign."""
    ours = typed_data.recovery_digest(31337, ESCROW, 1)
    assert ours == _reference("Recovery", [("channel", "uint256")], {"channel": 1})


def test_token_permits_are_eip_2612() -> None:
    """The digest of a token's permit, under its own domain, is what any wallet would sign."""
    token = 20 * b"\x0a"
    domain = {
        "name": "Test Token",
        "version": "1",
        "chainId": 31337,
        "verifyingContract": checksum(token),
    }
    fields = [("owner", "address"), ("spender", "address")]
    fields += [(name, "uint256") for name in ("value", "nonce", "deadline")]
    message = {
        "owner": checksum(CUSTOMER),
        "spender": checksum(ESCROW),
        "value": 5,
        "nonce": 6,
        "deadline": 7,
    }
    separator = typed_data.domain_separator("Test Token", "1", 31337, token)
    ours = typed_data.erc2612_permit_digest(separator, CUSTOMER, ESCROW, 5, 6, 7)
    assert ours == _typed("Permit", fields, message, domain)


# Deployment data and imports


def test_deployment_data_is_eth_abis() -> None:
    """Constructor arguments follow the code, encoded as eth-abi would."""
    merchant, key = 20 * b"\x0b", bytes(range(256)) * 7
    data = artefact.deployment_data(merchant, CUSTOMER, 10**9, 3600, key)
    types = ["address", "address", "uint256", "uint256", "bytes"]
    arguments = (checksum(merchant), checksum(CUSTOMER), 10**9, 3600, key)
    assert data == artefact.load("Escrow").bytecode + reference_encode(types, arguments)


@pytest.mark.parametrize(
    "build",
    [
        lambda: artefact.deployment_data(b"", bytes(20), 1, 1, bytes(1792)),
        lambda: artefact.deployment_data(bytes(20), bytes(32), 1, 1, bytes(1792)),
        lambda: artefact.deployment_data(bytes(20), bytes(20), 1, 1, bytes(1536)),
        lambda: artefact.load("Other"),
    ],
)
def test_malformed_deployments_are_refused(build: Callable[[], object]) -> None:
    """Lengths are checked before anything is signed."""
    with pytest.raises(EthereumError):
        build()


def test_the_modules_import_little() -> None:
    """Neither web3, eth-account nor a compiler is needed at run time."""
    program = (
        "import sys; from zkchannels.escrow import artefact, calls, events, record, transaction,"
        " typed_data; print([m for m in ('web3', 'eth_account', 'eth_abi', 'vyper', 'asyncio',"
        " 'aiohttp') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
