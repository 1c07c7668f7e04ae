"""An independent reader of the chain, web3.py, agrees with what daemon and merchant say."""

from __future__ import annotations

from typing import Any

from web3 import HTTPProvider, Web3

from tests.flow.world import World
from zkchannels.escrow.artefact import load
from zkchannels.escrow.ethereum import checksum


def _reader(world: World, merchant: str) -> Any:
    web3 = Web3(HTTPProvider(world.network.chain.url))
    escrow = checksum(world.network.merchants[merchant].escrow)
    return web3.eth.contract(escrow, abi=load("Escrow").abi)


def test_web3_sees_what_was_paid_to_the_unit(world: World) -> None:
    """Opening, expire, the guard's close and the payout are read by web3.py as they were meant."""
    label = world.establish("1 ETH")
    for amount in ("0.005 ETH", "0.012 ETH", "0.0001 ETH", "0.03 ETH", "0.004 ETH"):
        world.pay(label, amount)
    world.rpc("refund", label=label, amount="0.002 ETH")
    paid = 49_100_000
    assert world.balances(label) == (10**9 - paid, paid)
    shown = world.show(label)
    channel = int(shown["channel"], 16)
    contract = _reader(world, "coffee")
    (opened,) = contract.events.Opened.get_logs(argument_filters={"channel": channel}, from_block=0)
    assert opened.args.customer == checksum(world.network.account)
    assert (opened.args.customer_deposit, opened.args.merchant_deposit) == (10**9, 0)

    world.network.signer.kill()
    world.network.wait_info(lambda info: info["mode"] == "safe")
    world.network.merchantctl("coffee", "expire", "--no-wait", shown["channel"])
    world.until(label, chain_status="closing")
    (closing,) = contract.events.Closing.get_logs(
        argument_filters={"channel": channel}, from_block=0
    )
    assert closing.args.by_guard
    assert (closing.args.customer_balance, closing.args.merchant_balance) == (10**9 - paid, paid)
    world.everything_runs()
    before = contract.w3.eth.get_balance(checksum(world.network.account))
    held = contract.w3.eth.get_balance(contract.address)
    world.network.chain.increase_time(world.network.delay + 1)
    world.until(label, status="closed")
    (settled,) = contract.events.Settled.get_logs(
        argument_filters={"channel": channel}, from_block=0
    )
    assert (settled.args.customer_amount, settled.args.merchant_amount) == (10**9 - paid, paid)
    after = contract.w3.eth.get_balance(checksum(world.network.account))
    assert after - before == (10**9 - paid) * 10**9
    assert held - contract.w3.eth.get_balance(contract.address) == 10**18


def test_web3_sees_the_tokens_of_an_agreed_close(world: World) -> None:
    """A close by agreement in the token escrow pays both sides what web3.py reads."""
    label = world.establish("50 TEST", merchant="bakery")
    world.pay(label, "12.5 TEST")
    channel = int(world.show(label)["channel"], 16)
    contract = _reader(world, "bakery")
    assert world.network.token is not None
    token = contract.w3.eth.contract(checksum(world.network.token), abi=load("TestToken").abi)
    owner = checksum(world.network.account)
    before = token.functions.balanceOf(owner).call()
    world.settle(world.rpc("close", label=label, wait=False)["operation"])
    assert token.functions.balanceOf(owner).call() - before == 37_500_000
    (settled,) = contract.events.Settled.get_logs(
        argument_filters={"channel": channel}, from_block=0
    )
    assert (settled.args.customer_amount, settled.args.merchant_amount) == (37_500_000, 12_500_000)
