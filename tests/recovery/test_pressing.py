"""Recovery when it presses: the merchant expires, the signer is set back, a commit is lost."""

from __future__ import annotations

import tomllib

import psycopg

from tests.flow.world import World
from tests.recovery.support import (
    SignerCopy,
    Snapshot,
    dsn_of,
    recovered,
    rows,
    set_back,
)
from zkchannels.escrow.ethereum import checksum
from zkchannels.jsonrpc.errors import RpcError


def test_an_expire_of_an_old_channel_is_answered_with_the_newest_state(own_world: World) -> None:
    """Set back on both sides and expired: walked in the first half, then closed on what is true."""
    world = own_world
    label = world.establish("1 ETH")
    signer, snapshot = SignerCopy(world), Snapshot(dsn_of(world))
    world.pay(label, "0.9 ETH")
    world.rpc("refund", label=label, amount="0.3 ETH")
    channel = world.show(label)["channel"]
    network = world.network
    network.daemon.kill()
    network.signer.kill()
    signer.restore()
    snapshot.restore()
    with psycopg.connect(dsn_of(world)) as connection:  # as `restore` flags every channel
        connection.execute("update channel set status='suspect', doubtful=true, restored=true")
    network.merchantctl("coffee", "expire", "--no-wait", channel)
    network.chain.mine()
    network.daemon.start()
    network.signer.start()
    network.wait_mode("ready")
    world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == (400_000_000, 600_000_000)
    network.chain.increase_time(network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == 400_000_000


def test_events_that_the_database_lacks_are_read_again(own_world: World) -> None:
    """The chain's newest event fits to nothing stored: all of the escrow's past is read, once."""
    world = own_world
    label = world.establish("1 ETH")
    channel = world.show(label)["channel"]
    network = world.network
    network.daemon.kill()
    with psycopg.connect(dsn_of(world)) as connection:
        connection.execute("delete from chain_event")
        connection.execute("update chain_address set since = (select final from chain_state)")
    network.merchantctl("coffee", "expire", "--no-wait", channel)
    network.chain.mine()
    network.daemon.start()
    while _chain_status(world, label) != "closing":
        network.chain.mine()
    assert world.on_chain(label).customer_balance == 1_000_000_000
    assert rows(world, "select since from chain_address") == [(0,)]
    alarms = world.rpc("getinfo")["alarms"]
    assert not [alarm for alarm in alarms if "nothing can be decided" in alarm["message"]]


def _chain_status(world: World, label: str) -> str:
    """A channel's status on chain; until its events are all there, the refusal says so."""
    try:
        return str(world.show(label)["chain_status"])
    except RpcError as error:
        assert "events of the channel are missing" in error.message, error
        return "not known"


def _rests(world: World) -> bool:
    alarms = world.rpc("getinfo")["alarms"]
    return any("by agreement only" in alarm["message"] for alarm in alarms)


def test_a_close_by_agreement_asked_too_early_goes_over_to_the_newest(own_world: World) -> None:
    """The merchant refuses the old state; after the walk it agrees to the newest one.

    The walk, that begins by itself with the signer, may also be first; the outcome is the same.
    """
    world = own_world
    label = world.establish("1 ETH")
    signer, snapshot = SignerCopy(world), Snapshot(dsn_of(world))
    world.pay(label, "0.25 ETH")
    set_back(world, snapshot, signer)
    with psycopg.connect(dsn_of(world)) as connection:
        connection.execute("update channel set status='suspect', doubtful=true, restored=true")
    closing = world.rpc("close", label=label, wait=False)["operation"]
    while not _rests(world) and world.show(label)["status"] != "closed":
        world.network.chain.mine()
    if world.show(label)["chain_status"] == "open":
        (told,) = world.rpc("recover", label=label)["recoveries"]
        assert (told["status"], told["index"]) == ("closing", 1)
    assert world.settle(closing)["status"] == "done"
    assert world.on_chain(label).customer_balance == 750_000_000


def test_a_proof_lost_with_the_last_commits_is_found(own_world: World) -> None:
    """A failover forgets a whole payment: it is entered from the signer, and not paid twice."""
    world = own_world
    label = world.establish("1 ETH")
    snapshot = Snapshot(dsn_of(world))
    operation = world.pay(label, "0.1 ETH")["operation"]
    world.network.signer.kill()
    signer = SignerCopy(world)
    world.network.signer.start()
    world.network.wait_mode("ready")
    set_back(world, snapshot, signer)
    assert recovered(world, label)["customer_balance"]["units"] == 900_000_000
    assert world.rpc("operation", operation=operation)["status"] == "done"
    assert rows(world, "select count(*) from operation where kind = 'pay'") == [(1,)]
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (800_000_000, 200_000_000)


def test_a_signer_set_back_alone_is_fast_forwarded(own_world: World) -> None:
    """The words' copy of the signer is older than the database: it joins it, and payments go on."""
    world = own_world
    label = world.establish("1 ETH")
    signer = SignerCopy(world)
    for _ in range(3):
        world.pay(label, "0.1 ETH")
    world.network.signer.kill()
    signer.restore()
    world.network.signer.start()
    world.network.wait_mode("ready")
    world.pay(label, "0.1 ETH")
    assert world.balances(label) == (600_000_000, 400_000_000)


def test_a_payment_in_flight_survives_a_signer_set_back(own_world: World) -> None:
    """It knows the proof that it forgot by its commitments: the payment is finished once."""
    world, network = own_world, own_world.network
    label = world.establish("1 ETH")
    signer = SignerCopy(world)
    world.pay(label, "0.1 ETH")
    merchant = tomllib.loads(network.merchants["coffee"].config.read_text())["database"]
    with psycopg.connect(merchant) as locking:
        locking.execute("lock table payment in access exclusive mode")
        operation = world.rpc("pay", label=label, amount="0.2 ETH", wait=False)["operation"]
        while world.show(label)["status"] != "proved":
            world.rpc("getinfo")
        network.signer.kill()
        signer.restore()
    network.signer.start()
    network.wait_mode("ready")
    assert "signer_fast_forwarded" in network.daemon.log.read_text()
    assert world.rpc("wait", operation=operation)["status"] == "done"
    assert world.balances(label) == (700_000_000, 300_000_000)


def test_a_forgotten_close_on_its_way_is_waited_for(own_world: World) -> None:
    """A close sent after the backup, in no block yet: nothing is paid on the state it closes on."""
    world, network = own_world, own_world.network
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    signer, snapshot = SignerCopy(world), Snapshot(dsn_of(world))
    account = checksum(network.account)
    network.chain.call("evm_setAutomine", False)

    def count(tag: str) -> int:
        return int(network.chain.call("eth_getTransactionCount", account, tag), 16)

    world.rpc("close", label=label, force=True, wait=False)
    while count("pending") == count("latest"):
        world.rpc("getinfo")
    network.daemon.kill()
    network.signer.kill()
    signer.restore()
    snapshot.restore()
    with psycopg.connect(dsn_of(world)) as connection:
        connection.execute("update channel set status='suspect', doubtful=true, restored=true")
    network.daemon.start()
    network.signer.start()
    network.wait_mode("ready")
    (told,) = world.rpc("recover", label=label, timeout=2)["recoveries"]
    assert told["status"] == "waiting"
    assert "on their way" in told["message"]
    network.chain.mine()
    world.until(label, chain_status="closing")
    network.chain.call("evm_setAutomine", True)
    network.chain.increase_time(network.delay + 1)
    world.until(label, status="closed")
    assert world.on_chain(label).customer_balance == 900_000_000
