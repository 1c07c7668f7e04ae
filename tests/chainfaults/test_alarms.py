"""What cannot be done in time is told in time: in the log, as an event, in getinfo, in figures."""

from __future__ import annotations

from tests.chainfaults.network import GWEI, FaultyWorld
from tests.chainfaults.proxy import Status
from zkchannels.escrow.ethereum import checksum

DEADLINES = ("deadline_half", "deadline_tenth")


def test_a_deadline_nears_with_and_without_the_chain(world: FaultyWorld) -> None:
    """Nobody can answer an expire: alarms at half of the time, by the local clock, and at a tenth.

    Each is raised once; both are cleared when the guard has coin again and closes.
    """
    network = world.network
    label = world.establish("1 ETH")
    world.pay(label, "0.2 ETH")
    network.signer.kill()
    network.wait_info(lambda info: info["mode"] == "safe")
    world.poor_guard()
    try:
        world.expire(label)
        world.until_on_chain(label, "expiring")
        deadline = world.on_chain(label).deadline
        window = network.delay - network.margin
        half = deadline - network.margin - window // 2
        world.pass_time(half - 6 - world.anvil.time())
        world.until(label, chain_status="expiring")
        assert world.alarms(label).isdisjoint(DEADLINES)
        world.block()
        world.until_alarm("guard_empty")

        network.faults(Status(500), Status(500))  # from here on only the local clock goes on
        alarm = world.until_alarm("deadline_half", label)
        assert (alarm["level"], alarm["deadline"]) == ("error", deadline - network.margin)
        assert "deadline_tenth" not in world.alarms(label)
        world.until_alarm("chain_not_followed")

        network.mend()
        world.pass_time(half + window // 2 - window // 10 + 1 - world.anvil.time())
        alarm = world.until_alarm("deadline_tenth", label)
        assert alarm["level"] == "critical"
        figures = world.rpc("metrics")["text"]
        assert 'customerd_alarms{level="critical",kind="deadline_tenth"} 1' in figures
    finally:
        world.rich_guard()
    world.until_on_chain(label, "closing")
    world.block()
    world.until_no_alarm(*DEADLINES, "guard_empty")
    assert world.on_chain(label).customer_balance == 800_000_000
    network.wait_info(lambda _: len(world.alarm_events(label, DEADLINES)) == 4)
    raised = [("raised", kind) for kind in DEADLINES]
    events = world.alarm_events(label, DEADLINES)
    assert events[:2] == raised
    assert sorted(events[2:]) == [("cleared", kind) for kind in DEADLINES]
    for kind, level in zip(DEADLINES, ("error", "critical"), strict=True):
        (line,) = world.logged("alarm_raised", alarm=kind, channel=label)
        assert (line["level"], line["deadline"]) == (level, deadline - network.margin)


def test_a_restarted_daemon_without_chain_still_alarms(world: FaultyWorld) -> None:
    """A daemon that starts while no node answers knows deadline and time from its records."""
    network = world.network
    label = world.establish("1 ETH")
    network.signer.kill()
    network.wait_info(lambda info: info["mode"] == "safe")
    world.poor_guard()
    try:
        world.expire(label)
        world.until(label, chain_status="expiring")
        world.pass_time((network.delay - network.margin) // 2 + 10)
        world.until_alarm("deadline_half", label)
        network.faults(Status(500), Status(500))
        network.daemon.kill()
        network.daemon.start()
        world.until_alarm("deadline_half", label)
        assert not world.rpc("getinfo")["chain"]["following"]
        network.mend()
    finally:
        world.rich_guard()
    world.until_on_chain(label, "closing")
    assert world.on_chain(label).closed_by_guard


def test_a_chain_out_of_sight(world: FaultyWorld) -> None:
    """That no node answers is an alarm, with what each of them says, until one answers again."""
    world.establish("1 ETH")
    world.network.faults(Status(429), Status(429))
    alarm = world.until_alarm("chain_not_followed")
    assert "429" in alarm["message"]
    assert alarm["since"] is not None
    world.network.mend()
    world.block()
    world.until_no_alarm("chain_not_followed", "blind_half", "blind_tenth")


def test_fees_beyond_the_cap(world: FaultyWorld) -> None:
    """A base fee above the cap keeps the close out: the lane offers the cap, says so, and gets in.

    It says so in getinfo, in the log, as an event and as a figure.
    """
    label = world.establish("1 ETH")
    cap = 500 * GWEI
    kinds = ["fee_cap"]
    before = len(world.logged("alarm_raised", alarm="fee_cap"))
    world.anvil.set_automine(False)
    world.anvil.set_next_base_fee(1000 * GWEI)
    world.anvil.mine()
    world.network.wait_info(lambda info: info["chain"]["head"] == world.anvil.head())
    world.rpc("close", label=label, force=True, wait=False)
    while not world.alarms() & {"fee_cap"}:
        world.anvil.set_next_base_fee(1000 * GWEI)
        world.block()
    alarm = world.until_alarm("fee_cap")
    assert f"{cap / GWEI:g} gwei" in alarm["message"]
    assert 'kind="fee_cap"} 1' in world.rpc("metrics")["text"]
    assert world.on_chain(label).status.name == "OPEN"
    world.anvil.set_next_base_fee(GWEI)
    world.block()
    world.anvil.set_next_base_fee(GWEI)
    world.anvil.set_automine(True)
    world.until_on_chain(label, "closing")
    world.until(label, chain_status="closing")
    world.until_no_alarm("fee_cap")
    world.network.wait_info(lambda _: ("cleared", "fee_cap") in world.alarm_events(None, kinds))
    assert len(world.logged("alarm_raised", alarm="fee_cap")) == before + 1
    assert world.alarm_events(None, kinds) == [("raised", "fee_cap"), ("cleared", "fee_cap")]


def test_a_transaction_that_vanishes_and_one_that_is_replaced(world: FaultyWorld) -> None:
    """Dropped from the pool, the close is sent again; its nonce gone to a twin, with another."""
    network, anvil = world.network, world.anvil
    label = world.establish("1 ETH")
    wallet = checksum(network.account)
    anvil.set_automine(False)
    nonce = world.sent(network.account)
    world.rpc("close", label=label, force=True, wait=False)
    network.wait_info(lambda _: _waiting(world))
    for hash_ in _waiting(world):
        anvil.drop_transaction(bytes.fromhex(hash_[2:]))
    assert not _waiting(world)
    anvil.mine()  # at the next head it is there again
    network.wait_info(lambda _: _waiting(world))
    for hash_ in _waiting(world):
        anvil.drop_transaction(bytes.fromhex(hash_[2:]))
    anvil.call("anvil_impersonateAccount", wallet)
    twin = {"from": wallet, "to": wallet, "nonce": hex(nonce), "gasPrice": hex(100 * GWEI)}
    anvil.call("eth_sendTransaction", twin)  # another instance of this wallet
    anvil.mine()
    assert world.sent(network.account) == nonce + 1
    assert world.on_chain(label).status.name == "OPEN"
    anvil.set_automine(True)
    world.until_on_chain(label, "closing")
    assert world.sent(network.account) == nonce + 2
    assert world.logged("nonce_used_by_stranger")
    world.until_ended(label)


def _waiting(world: FaultyWorld) -> list[str]:
    """The hashes of the wallet's transactions in the pool."""
    content = world.anvil.call("txpool_content")["pending"]
    account = world.network.account.hex()
    mine = {key.lower(): value for key, value in content.items()}.get("0x" + account, {})
    return [transaction["hash"] for transaction in mine.values()]


def test_many_looks_send_one_transaction(world: FaultyWorld) -> None:
    """Heads, a new signer and a restart have the same thing decided again: it is sent once.

    The close by the wallet and the claim by the guard, no more.
    """
    network = world.network
    label = world.establish("1 ETH")
    senders = {"0x" + account.hex() for account in (network.account, network.guard)}
    start = world.anvil.head()
    world.expire(label)
    world.until_on_chain(label, "closing")
    network.signer.stop()
    network.signer.start()
    network.wait_mode("ready")
    for _ in range(3):
        world.block()
    network.daemon.kill()
    network.daemon.start()
    network.wait_mode("ready")
    for _ in range(3):
        world.block()
    world.until_ended(label)
    for _ in range(3):
        world.block()
    assert len(_about(world, label, senders, start)) == 2


def _about(world: FaultyWorld, label: str, senders: set[str], start: int) -> list[str]:
    """The hashes of the senders' transactions since a block that name a channel."""
    channel = world.show(label)["channel"].removeprefix("0x")
    return [
        transaction["hash"]
        for number in range(start + 1, world.anvil.head() + 1)
        for transaction in world.anvil.call("eth_getBlockByNumber", hex(number), True)[
            "transactions"
        ]
        if transaction["from"].lower() in senders and channel in transaction["input"]
    ]
