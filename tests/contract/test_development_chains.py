"""The development chains themselves: both behave alike, say when they are ready and clean up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from py_arkworks_bls12381 import G1Point, G2Point

from tests.contract.ps import P, R, encode, scalar
from tests.contract.world import World
from zkchannels.devnet.accounts import DEV_BALANCE, DEV_KEYS
from zkchannels.devnet.anvil import Anvil, AnvilMissing
from zkchannels.devnet.child import Child, ChildFailed
from zkchannels.devnet.control import ChainRefused, DevChain
from zkchannels.devnet.embedded import Embedded
from zkchannels.escrow.ethereum import PrivateKey, checksum
from zkchannels.escrow.transaction import Transaction

MNEMONIC = "test test test test test test test test test test test junk"
WAIT = 10.0


def test_development_accounts_are_the_well_known_ones() -> None:
    """Keys are those of the mnemonic that development chains agree on."""
    Account.enable_unaudited_hdwallet_features()
    for index, key in enumerate(DEV_KEYS):
        account = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
        assert checksum(key.address) == account.address


@pytest.mark.parametrize("fresh_chain", ["anvil", "embedded"], indirect=True)
def test_a_fresh_chain_is_at_its_genesis(fresh_chain: DevChain) -> None:
    """Block 0, chain id 31337, and every development account funded."""
    assert fresh_chain.head() == 0
    assert int(fresh_chain.call("eth_chainId"), 16) == fresh_chain.chain_id == 31337
    assert {fresh_chain.balance(key.address) for key in DEV_KEYS} == {DEV_BALANCE}
    assert fresh_chain.call("eth_getBlockByNumber", "0x5", False) is None
    for method in ("eth_getBlockByHash", "eth_getTransactionReceipt", "eth_getTransactionByHash"):
        more = [False] if method == "eth_getBlockByHash" else []
        assert fresh_chain.call(method, "0x" + bytes(32).hex(), *more) is None


@pytest.mark.parametrize("fresh_chain", ["anvil", "embedded"], indirect=True)
def test_finality_lags_two_blocks(fresh_chain: DevChain) -> None:
    """`safe` is one block and `finalized` two blocks behind the head, never before block 0."""

    def number(tag: str) -> int:
        return int(fresh_chain.call("eth_getBlockByNumber", tag, False)["number"], 16)

    assert number("finalized") == 0
    fresh_chain.mine(5)
    assert [number(tag) for tag in ("latest", "safe", "finalized")] == [5, 4, 3]


def test_time_only_moves_as_told(chain: DevChain) -> None:
    """The clock jumps forward, and the next block has exactly the time it was given."""
    chain.mine()  # the newest block may be old by the clock that anvil follows
    before = chain.time()
    chain.increase_time(1000)
    assert before + 1000 <= chain.time() <= before + 1060
    wanted = chain.time() + 500
    chain.set_next_time(wanted)
    chain.mine()
    assert chain.time() == wanted
    chain.mine()
    assert chain.time() >= wanted


@pytest.mark.parametrize("fresh_chain", ["anvil", "embedded"], indirect=True)
def test_a_snapshot_brings_everything_back(fresh_chain: DevChain) -> None:
    """After a revert blocks, transactions and money are as before, and life goes on."""
    chain = fresh_chain
    target = secrets.token_bytes(20)
    chain.faucet(target, 5)
    snapshot, head = chain.snapshot(), chain.head()
    kept = chain.call("eth_getBlockByNumber", "latest", False)["hash"]
    receipt = chain.send(DEV_KEYS[0], target, b"", value=7)
    gone = chain.call("eth_getBlockByNumber", "latest", False)["hash"]
    assert chain.balance(target) == 12
    chain.revert(snapshot)
    assert (chain.head(), chain.balance(target)) == (head, 5)
    assert chain.call("eth_getBlockByHash", gone, False) is None
    missing = "0x" + receipt.transaction_hash.hex()
    assert chain.call("eth_getTransactionReceipt", missing) is None
    chain.send(DEV_KEYS[0], target, b"", value=1)
    assert chain.balance(target) == 6
    block = chain.call("eth_getBlockByNumber", "latest", False)
    assert block["parentHash"] == kept
    assert block["hash"] != gone


def test_an_estimate_suffices(native_world: World) -> None:
    """A close sent with the estimated gas succeeds, and the estimate is not far off."""
    world = native_world
    channel = world.open()
    data = world.close_call(channel, bytes(32))
    request = {
        "from": checksum(world.customer.address),
        "to": checksum(world.escrow.address),
        "data": "0x" + data.hex(),
    }
    estimate = int(world.chain.call("eth_estimateGas", request), 16)
    receipt = world.chain.send(world.customer, world.escrow.address, data, gas=estimate)
    assert receipt.succeeded
    assert estimate < 1.1 * receipt.gas_used
    with pytest.raises(ChainRefused) as refused:
        world.chain.call("eth_estimateGas", request)
    assert refused.value.reason == "status"
    assert refused.value.code == 3


def _raw(chain: DevChain, key: PrivateKey, **changes: int) -> str:
    fields: dict[str, Any] = {
        "chain_id": chain.chain_id,
        "nonce": 0,
        "tip": 10**9,
        "max_fee": 10**10,
        "gas": 21000,
        "to": bytes(20),
        "value": 1,
        "data": b"",
    }
    transaction = Transaction(**{**fields, **changes})
    return "0x" + transaction.with_signature(key.sign_digest(transaction.signing_digest())).hex()


def test_refused_transactions_say_why(chain: DevChain) -> None:
    """What cannot be included is refused in words a client can tell apart."""
    key = PrivateKey(secrets.token_bytes(32))
    chain.faucet(key.address, 10**18)
    raw = _raw(chain, key)
    chain.call("eth_sendRawTransactionSync", raw)
    cases = {
        raw: ("already", "nonce too low"),
        _raw(chain, key, value=2): ("nonce too low",),
        _raw(chain, key, nonce=1, value=10**18): ("insufficient funds",),
        _raw(chain, key, nonce=1, gas=20000): ("gas",),
        _raw(chain, key, nonce=1, chain_id=1): ("chain",),
        "0x02": ("",),
        "0x": ("",),
    }
    for bad, words in cases.items():
        with pytest.raises(ChainRefused) as refused:
            chain.call("eth_sendRawTransaction", bad)
        assert any(word in refused.value.message.lower() for word in words), refused.value.message
    assert chain.balance(key.address) < 10**18 - 1


def test_old_state_can_be_asked_for(chain: DevChain) -> None:
    """Balances, nonces and calls refer to the block they name."""
    key = PrivateKey(secrets.token_bytes(32))
    before = hex(chain.head())
    chain.faucet(key.address, 10**18)
    funded = hex(chain.head())
    chain.call("eth_sendRawTransactionSync", _raw(chain, key))
    address = checksum(key.address)
    balances = [int(chain.call("eth_getBalance", address, tag), 16) for tag in (before, funded)]
    assert balances == [0, 10**18]
    counts = [chain.call("eth_getTransactionCount", address, tag) for tag in (funded, "latest")]
    assert counts == ["0x0", "0x1"]


def test_logs_are_found_by_address_topic_and_block(native_world: World) -> None:
    """Filters choose by contract, topics (with alternatives and gaps), range and block hash."""
    world = native_world
    first, second = world.open(), world.open()
    head = world.chain.call("eth_getBlockByNumber", "latest", False)
    start = hex(world.chain.head() - 1)
    words = ["0x" + channel.to_bytes(32).hex() for channel in (first, second)]

    def found(**filters: object) -> list[str]:
        wanted = {"address": checksum(world.escrow.address), "fromBlock": start, **filters}
        if "blockHash" in filters:
            del wanted["fromBlock"]
        return [log["topics"][1] for log in world.chain.call("eth_getLogs", wanted)]

    assert found() == words
    assert found(topics=[None, words[1]]) == words[1:]
    assert found(topics=[None, words]) == words
    assert found(topics=[words[0]]) == []
    assert found(toBlock=start) == words[:1]
    assert found(blockHash=head["hash"]) == words[1:]
    assert found(address=[checksum(bytes(20)), checksum(world.escrow.address)]) == words
    assert found(address=checksum(bytes(20))) == []


def test_fees_can_be_suggested(shared_embedded_chain: Embedded) -> None:
    """Fee history has one base fee more than blocks, and rewards by percentile."""
    chain = shared_embedded_chain
    chain.faucet(bytes(20), 1)
    history = chain.call("eth_feeHistory", "0x2", "latest", [10, 50])
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["gasUsedRatio"]) == 2
    assert [len(rewards) for rewards in history["reward"]] == [2, 2]
    assert history["reward"][-1] == [hex(10**9)] * 2
    assert int(chain.call("eth_maxPriorityFeePerGas"), 16) > 0
    assert int(chain.call("eth_gasPrice"), 16) > 0


# The precompiles of the embedded chain


def _inputs() -> list[tuple[int, bytes]]:
    g1, g2 = encode(G1Point() * scalar(7)), encode(G2Point() * scalar(9))
    minus_g1 = encode(-(G1Point() * scalar(7)))
    infinity1, infinity2 = bytes(128), bytes(256)
    big = (2**256 - 1).to_bytes(32)
    x = int.from_bytes(g1[:64])
    off_curve = g1[:-1] + bytes([g1[-1] ^ 1])
    inputs = [
        (0x0F, g1 + g2 + minus_g1 + g2),
        (0x0F, g1 + g2),
        (0x0F, infinity1 + g2),
        (0x0F, g1 + infinity2),
        (0x0F, b""),
        (0x0F, g1 + g2 + b"\0"),
        (0x0F, off_curve + g2),
        (0x0F, (x + P).to_bytes(64) + g1[64:] + g2),
        (0x0F, b"\x01" + g1[1:] + g2),
        (0x0F, g1 + g2[:-1] + bytes([g2[-1] ^ 1])),
        (0x0C, b""),
        (0x0E, g2),
    ]
    for address, point, infinity in ((0x0C, g1, infinity1), (0x0E, g2, infinity2)):
        inputs += [
            (address, point + (5).to_bytes(32)),
            (address, point + R.to_bytes(32)),
            (address, point + big + point + (R + 2).to_bytes(32) + infinity + big),
            (address, point + (1).to_bytes(32) + point + (R - 1).to_bytes(32)),
            (address, infinity + bytes(32)),
            (address, point[:-1] + bytes([point[-1] ^ 1]) + (1).to_bytes(32)),
            (address, (point + (3).to_bytes(32)) * 130),
        ]
    return inputs


def test_the_embedded_precompiles_are_those_of_anvil(
    shared_anvil: Anvil, shared_embedded_chain: Embedded
) -> None:
    """Results, refusals and gas are the same for good, edge and malformed inputs."""
    for address, data in _inputs():
        results = []
        for chain in (shared_anvil, shared_embedded_chain):
            to = address.to_bytes(20)
            receipt = chain.send(DEV_KEYS[7], to, data, gas=4_000_000)
            try:
                result = chain.view(to, data)
            except ChainRefused:
                result = None
            results.append((result, receipt.succeeded, receipt.gas_used))
        assert results[0] == results[1], (hex(address), data.hex()[:200])


# Subscriptions and intervals


async def _heads(url: str, count: int) -> list[int]:
    async with (
        asyncio.timeout(WAIT),
        aiohttp.ClientSession() as session,
        session.ws_connect(url) as socket,
    ):
        request = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
        await socket.send_json(request)
        subscription = (await socket.receive_json())["result"]
        if count == 0:
            return []
        heads: list[int] = []
        while len(heads) < count:
            note = await socket.receive_json()
            assert note["params"]["subscription"] == subscription
            heads.append(int(note["params"]["result"]["number"], 16))
        return heads


@pytest.mark.parametrize("kind", [Anvil, Embedded])
async def test_blocks_come_by_themselves(kind: type[Anvil] | type[Embedded]) -> None:
    """With a block time new heads are pushed one after the other without any transaction."""
    with kind(block_time=0.05) as chain:
        heads = await _heads(chain.ws_url, 3)
    assert heads == list(range(heads[0], heads[0] + 3))


async def test_new_heads_are_pushed(chain: DevChain) -> None:
    """A subscriber gets each new block, over the socket it also asks questions on."""
    async with (
        asyncio.timeout(WAIT),
        aiohttp.ClientSession() as session,
        session.ws_connect(chain.ws_url) as socket,
    ):
        subscribe = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
        await socket.send_json(subscribe)
        subscription = (await socket.receive_json())["result"]
        chain.mine()
        note = await socket.receive_json()
        assert note["method"] == "eth_subscription"
        assert int(note["params"]["result"]["number"], 16) == chain.head()
        assert (
            note["params"]["result"]["hash"]
            == (chain.call("eth_getBlockByNumber", "latest", False)["hash"])
        )
        unsubscribe = {"jsonrpc": "2.0", "id": 2, "method": "eth_unsubscribe"}
        await socket.send_json({**unsubscribe, "params": [subscription]})
        assert (await socket.receive_json())["result"] is True
        chain.mine()
        await socket.send_json({"jsonrpc": "2.0", "id": 3, "method": "eth_chainId"})
        assert (await socket.receive_json())["id"] == 3


async def test_the_embedded_node_speaks_json_rpc(shared_embedded_chain: Embedded) -> None:
    """Batches are answered in order, and every kind of bad request with its error."""
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 2, "method": "no_such_method"},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_getBalance", "params": ["nonsense"]},
        {"jsonrpc": "2.0", "id": 4, "method": "eth_getBalance", "params": []},
        {"jsonrpc": "2.0", "id": 5, "method": "eth_subscribe", "params": ["newHeads"]},
        {"id": 6},
        7,
    ]
    async with asyncio.timeout(WAIT), aiohttp.ClientSession() as session:
        async with session.post(shared_embedded_chain.url, json=batch) as response:
            answers = await response.json()
        async with session.post(shared_embedded_chain.url, data=b"{") as response:
            garbled = await response.json()
    assert answers[0] == {"jsonrpc": "2.0", "id": 1, "result": "0x7a69"}
    codes = [answer["error"]["code"] for answer in answers[1:]]
    assert codes == [-32601, -32602, -32602, -32601, -32600, -32600]
    assert garbled["error"]["code"] == -32700


# What only anvil does


def test_anvil_reorganises(anvil: Anvil) -> None:
    """A reorganisation replaces blocks and drops their transactions."""
    target = secrets.token_bytes(20)
    anvil.mine(3)
    anvil.faucet(target, 5)
    before = anvil.call("eth_getBlockByNumber", "latest", False)
    anvil.reorg(1)
    after = anvil.call("eth_getBlockByNumber", "latest", False)
    assert after["number"] == before["number"]
    assert after["hash"] != before["hash"]
    assert anvil.balance(target) == 0
    anvil.rollback(2)
    assert anvil.head() == int(before["number"], 16) - 2


def test_anvil_reorganises_under_traffic(anvil: Anvil) -> None:
    """No block is missing after a reorganisation, whatever was mined meanwhile."""
    sender = checksum(DEV_KEYS[1].address)
    transfer = {"from": sender, "to": sender, "value": "0x1"}
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            with contextlib.suppress(ChainRefused):  # a nonce that was reorganised away
                anvil.call("eth_sendTransaction", transfer)

    anvil.mine(9)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            for depth in (1, 8, 3, 5, 2, 7, 4, 6):
                anvil.reorg(depth)
                anvil.mine()
                _assert_whole(anvil)
        finally:
            stopped.set()
        sending.result()
    assert anvil.head() > 9 + 8


def _assert_whole(anvil: Anvil) -> None:
    block = anvil.call("eth_getBlockByNumber", "latest", False)
    for number in reversed(range(int(block["number"], 16))):
        above, block = block, anvil.call("eth_getBlockByNumber", hex(number), False)
        assert block is not None, f"block {number} is lost"
        assert above["parentHash"] == block["hash"]


def test_anvil_mines_when_told(anvil: Anvil) -> None:
    """Without automatic mining a transaction waits; it can be dropped, money just appears."""
    key = PrivateKey(secrets.token_bytes(32))
    anvil.set_balance(key.address, 10**18)
    anvil.set_automine(enabled=False)
    anvil.set_next_base_fee(12345)
    waiting = anvil.call("eth_sendRawTransaction", _raw(anvil, key))
    assert anvil.call("eth_getTransactionByHash", waiting)["blockNumber"] is None
    anvil.drop_transaction(bytes.fromhex(waiting[2:]))
    anvil.mine()
    assert anvil.balance(key.address) == 10**18
    block = anvil.call("eth_getBlockByNumber", "latest", False)
    assert (block["baseFeePerGas"], block["transactions"]) == (hex(12345), [])


def test_anvil_keeps_its_state(tmp_path: Path) -> None:
    """Stopped and started again it has the same address, blocks and money."""
    target = secrets.token_bytes(20)
    chain = Anvil(state=tmp_path / "state.json")
    try:
        chain.faucet(target, 5)
        url, head = chain.url, chain.head()
        chain.stop()
        with pytest.raises(OSError, match="refused"):
            chain.head()
        chain.restart()
        assert (chain.url, chain.head(), chain.balance(target)) == (url, head, 5)
    finally:
        chain.stop()


def test_a_missing_anvil_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ANVIL the error says which variable to set."""
    monkeypatch.setenv("ANVIL", "/nowhere/anvil")
    with pytest.raises(AnvilMissing, match="ANVIL"):
        Anvil()


# Processes


def test_a_child_that_ends_at_once_says_why() -> None:
    """The error has what the program wrote before it ended."""
    program = [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"]
    with pytest.raises(ChildFailed, match="no such thing"):
        Child(program, ready="ready")


def test_a_child_that_never_gets_ready_is_ended() -> None:
    """A program that is silent for too long is stopped, not left behind."""
    silent = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    with pytest.raises(ChildFailed, match="not ready in time") as failed:
        Child([sys.executable, "-c", silent], ready="ready", timeout=1.0)
    pid = int(str(failed.value).split()[-1])
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    """Stopping works on a program that does not want to."""
    ignoring = (
        "import signal; signal.signal(15, signal.SIG_IGN);"
        "print('ready', flush=True); signal.pause()"
    )
    child = Child([sys.executable, "-c", ignoring], ready="ready")
    assert child.running
    child.stop(timeout=0.1)
    assert not child.running


def test_much_output_does_not_block_a_child() -> None:
    """A program that writes more than a pipe holds goes on."""
    writing = "print('ready', flush=True)\nfor _ in range(20000): print('x' * 80)"
    child = Child([sys.executable, "-c", writing], ready="ready")
    handle = os.pidfd_open(child.pid)
    try:
        assert select.select([handle], [], [], WAIT)[0]
    finally:
        os.close(handle)
        child.stop()


@pytest.mark.parametrize("kind", ["anvil.Anvil", "embedded.Embedded"])
def test_a_chain_dies_with_its_parent(kind: str) -> None:
    """A chain whose owner is killed without warning ends as well."""
    module, name = kind.split(".")
    program = (
        f"import signal; from zkchannels.devnet.{module} import {name}; chain = {name}();"
        "print(chain._child.pid, flush=True); signal.pause()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    handle = os.pidfd_open(int(owner.stdout.readline()))
    try:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert select.select([handle], [], [], WAIT)[0]
    finally:
        os.close(handle)
        owner.stdout.close()
