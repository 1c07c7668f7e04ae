"""An independent reader, web3.py with the committed ABI, sees what our decoders see."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from web3 import HTTPProvider, Web3
from web3.logs import DISCARD

from tests.contract.world import MERCHANT_DEPOSIT, Puppet, World
from zkchannels.escrow import artefact, calls
from zkchannels.escrow.ethereum import checksum

SECRET = 32 * b"\x03"


def _life(world: World) -> list[int]:
    """Channels that went every way there is."""
    closed, forfeited, mutual, voided, waiting, reclaimed, funded = (
        world.open(merchant_deposit=deposit)
        for deposit in (0, 0, 0, 0, MERCHANT_DEPOSIT, MERCHANT_DEPOSIT, MERCHANT_DEPOSIT)
    )
    world.fund(funded)
    world.do(world.merchant, calls.expire(voided))
    world.do(world.guard, world.defend_call(voided, SECRET))
    world.do(world.stranger, calls.dispute(voided, SECRET))
    world.do(world.customer, world.close_call(closed, SECRET))
    world.do(world.customer, world.close_call(forfeited, SECRET))
    world.do(world.stranger, calls.dispute(forfeited, SECRET))
    world.do(world.customer, world.mutual_call(mutual))
    world.pass_deadline(reclaimed)
    world.do(world.stranger, calls.reclaim(reclaimed))
    world.pass_deadline(closed)
    world.do(world.stranger, calls.claim(closed))
    return [closed, forfeited, mutual, voided, waiting, reclaimed, funded]


@pytest.fixture
def contract(world: World) -> Any:
    """The escrow as web3.py sees it."""
    web3 = Web3(HTTPProvider(world.chain.url))
    abi: Any = artefact.load("Escrow").abi
    return web3.eth.contract(address=Web3.to_checksum_address(world.escrow.address), abi=abi)


def test_web3_reads_the_same_channels(world: World, contract: Any) -> None:
    """Every field of `channel(id)` is the same, in every status."""
    for channel in _life(world):
        theirs = contract.functions.channel(channel).call()
        values = list(theirs.values() if isinstance(theirs, dict) else theirs)
        ours = asdict(world.record(channel))
        ours["status"] = ours["status"].value
        ours["customer"] = checksum(ours["customer"])
        assert values == list(ours.values())


def test_web3_reads_the_same_events(world: World, contract: Any) -> None:
    """Every event has the same name and values, and there are all kinds of them."""
    _life(world)
    if world.escrow.native:
        puppet = Puppet(world.chain, world.customer)
        puppet.act(world.escrow.address, calls.open_(bytes(32), 0), value=5000)
        channel = world.channel_id(bytes(32), puppet.address)
        call = world.mutual_call(channel, customer_balance=5)
        puppet.on_receive("refuse")
        puppet.act(world.escrow.address, call)
        puppet.act(world.escrow.address, calls.withdraw(world.customer.address))
    ours = world.escrow.events()
    logs = contract.w3.eth.get_logs(
        {"address": contract.address, "fromBlock": world.escrow.first_block}
    )
    theirs = []
    for log in logs:
        seen = [each for event in contract.events for each in _read(event, log)]
        assert len(seen) == 1
        theirs.append((seen[0]["event"], dict(seen[0]["args"])))
    assert [(type(event).__name__, _plain(asdict(event))) for event in ours] == theirs
    kinds = {name for name, _ in theirs}
    assert len(kinds) == (10 if world.escrow.native else 8)


def _read(event: Any, log: Any) -> list[Any]:
    return list(event().process_receipt({"logs": [log]}, errors=DISCARD))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: checksum(value) if isinstance(value, bytes) and len(value) == 20 else value
        for name, value in values.items()
    }


def test_web3_sees_the_same_money(world: World, contract: Any) -> None:
    """What the escrow holds is what the open channels' deposits add up to."""
    _life(world)
    held = world.escrow.balance(world.escrow.address)
    if world.escrow.native:
        assert contract.w3.eth.get_balance(contract.address) == held
        return
    token = contract.w3.eth.contract(
        address=contract.functions.asset().call(), abi=artefact.load("TestToken").abi
    )
    assert token.functions.balanceOf(contract.address).call() == held
