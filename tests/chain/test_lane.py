"""The transaction lane against a real node: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.chain.support import DEADLINE, KeyAccount, Watch, running
from tests.contract.world import ETHER, Escrow, World
from tests.fix_log import Log
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import AccountUnavailable, InsufficientFunds, Reverted
from zkchannels.chain.lane import FeePolicy, Lane, TransactionRow, TransactionStatus, Trouble
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey, keccak256
from zkchannels.escrow.transaction import Transaction
from zkchannels.store.database import Database

GWEI = 10**9
POLICY = FeePolicy(tip_floor=GWEI, max_fee_cap=500 * GWEI, patience=3)
RECEIVER = bytes([0x11]) * 20
OTHER = bytes([0x22]) * 20
KEY = DEV_KEYS[5]


@dataclass
class Bench:
    """A lane on an anvil whose blocks are made by the test."""

    anvil: Anvil
    client: ChainClient
    database: Database
    account: KeyAccount
    policy: FeePolicy = POLICY

    def __post_init__(self) -> None:
        self.lane = self.new_lane()

    def new_lane(self, name: str = "customer", account: KeyAccount | None = None) -> Lane:
        """A lane as a new process would have it: everything it knows is in the database."""
        return Lane(
            self.client, self.database, account or self.account, name=name, policy=self.policy
        )

    async def send(
        self, purpose: str = "gift", *, value: int = 1, deadline: int | None = None
    ) -> TransactionRow:
        """Submit a plain payment."""
        return await self.lane.submit(
            purpose, to=RECEIVER, value=value, data=b"", gas=21_000, deadline=deadline
        )

    async def look(self, lane: Lane | None = None) -> None:
        """Show the lane the newest block, with the final one two blocks below."""
        head = await self.client.block("latest")
        assert head is not None
        await (lane or self.lane).on_head(head, max(head.number - 2, 0))

    async def mine(self, blocks: int = 1) -> None:
        """Make blocks; the lane sees each."""
        for _ in range(blocks):
            self.anvil.mine()
            await self.look()

    async def row(self, purpose: str = "gift") -> TransactionRow:
        """What is written down."""
        row = await self.lane.find(purpose)
        assert row is not None
        return row

    def received(self) -> int:
        """Wei that the receiver has."""
        return self.anvil.balance(RECEIVER)

    def pooled(self) -> int:
        """Transactions in the node's pool that could be mined now."""
        return int(self.anvil.call("txpool_status")["pending"], 16)


@pytest.fixture
def bench(anvil: Anvil, client: ChainClient, database: Database) -> Bench:
    """A lane of a rich account; nothing is mined by itself."""
    anvil.set_automine(False)
    return Bench(anvil, client, database, KeyAccount(KEY))


async def test_from_pending_to_final(bench: Bench) -> None:
    """A transaction is written and sent, then included, then final; it happens once."""
    row = await bench.send()
    assert row.status is TransactionStatus.PENDING
    assert row.trouble is None
    assert bench.pooled() == 1
    await bench.mine()
    assert (await bench.row()).status is TransactionStatus.INCLUDED
    await bench.mine(2)
    row = await bench.row()
    assert row.status is TransactionStatus.FINAL
    assert row.block_number == 1
    await bench.mine(2)
    assert bench.received() == 1
    assert await bench.lane.open_rows() == []


async def test_submit_is_idempotent(bench: Bench) -> None:
    """The same purpose gives the same transaction while it is pending, included and final."""
    first = await bench.send()
    assert (await bench.send(value=99)).hash == first.hash
    await bench.mine()
    assert (await bench.send()).hash == first.hash
    await bench.mine(3)
    assert (await bench.send()).hash == first.hash
    assert (await bench.send("another")).nonce == first.nonce + 1


async def test_submits_side_by_side(bench: Bench) -> None:
    """Submits at once get nonces without gap or double, and one purpose one transaction."""
    purposes = ["a", "b", "c", "a", "b", "c"]
    rows = await asyncio.gather(*(bench.send(purpose) for purpose in purposes))
    assert sorted({row.nonce for row in rows}) == [0, 1, 2]
    await bench.mine()
    assert bench.received() == 3


async def test_gas_is_estimated_and_reverts_are_said(
    world: World, client: ChainClient, database: Database
) -> None:
    """Without a gas limit the node's estimate is taken; a call that fails now is not sent."""
    lane = Lane(client, database, KeyAccount(world.merchant), name="merchant", policy=POLICY)
    channel = world.open()
    data = calls.expire(channel)
    row = await lane.submit("expire", to=world.escrow.address, value=0, data=data)
    assert 21_000 < row.gas < 100_000
    with pytest.raises(Reverted):
        await lane.submit("again", to=world.escrow.address, value=0, data=data)
    assert await lane.state("again") is None


async def test_reorganisation_drops_the_transaction(bench: Bench) -> None:
    """Dropped with its block, a transaction goes back to pending and is sent again."""
    await bench.send()
    await bench.mine()
    bench.anvil.reorg(1)
    assert bench.received() == 0
    await bench.look()
    assert (await bench.row()).status is TransactionStatus.PENDING
    assert bench.pooled() == 1
    await bench.mine()
    assert (await bench.row()).status is TransactionStatus.INCLUDED
    await bench.mine(2)
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert bench.received() == 1


async def test_broken_finality(bench: Bench) -> None:
    """Even a final transaction is sent again when the chain has forgotten it."""
    await bench.send()
    await bench.mine(4)
    assert (await bench.row()).status is TransactionStatus.FINAL
    bench.anvil.reorg(4)
    await bench.look()
    await bench.mine(4)
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert bench.received() == 1


async def test_dropped_from_the_pool(bench: Bench) -> None:
    """A transaction the node has forgotten is sent again at the next head."""
    row = await bench.send()
    bench.anvil.drop_transaction(row.hash)
    assert bench.pooled() == 0
    await bench.look()
    assert bench.pooled() == 1


async def test_fee_spike(bench: Bench) -> None:
    """When the base fee outgrows the maximum, both fees rise, and either version may win."""
    bench.anvil.mine()
    row = await bench.send()
    bench.anvil.set_next_base_fee(50 * GWEI)
    await bench.mine(2)
    raised = await bench.row()
    assert len(raised.hashes) > 1
    assert raised.hashes[0] == row.hash
    assert raised.fees.max_fee * 1000 >= row.fees.max_fee * 1125
    assert raised.fees.tip * 1000 >= row.fees.tip * 1125
    await bench.mine(4)
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert bench.received() == 1


async def test_deadline_raises_fees_at_every_block(bench: Bench) -> None:
    """Near its deadline a waiting transaction is raised at every head, never above the cap."""
    deadline = bench.anvil.time() + 60
    bench.policy = FeePolicy(tip_floor=GWEI, max_fee_cap=4 * GWEI, patience=3)
    bench.lane = bench.new_lane()
    row = await bench.send(deadline=deadline)
    for _ in range(4):
        bench.anvil.drop_transaction((await bench.row()).hash)  # keep it out of the block
        await bench.mine()
    raised = await bench.row()
    assert len(raised.hashes) >= 3
    assert row.fees.max_fee < raised.fees.max_fee <= 4 * GWEI
    for _ in range(6):
        bench.anvil.drop_transaction((await bench.row()).hash)
        await bench.mine()
    capped = await bench.row()
    assert capped.fees.max_fee <= 4 * GWEI
    assert capped.trouble is Trouble.FEE_CAP
    await bench.mine(3)
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert (await bench.row()).trouble is None


async def test_cap_below_the_base_fee(bench: Bench) -> None:
    """A cap below the base fee keeps a transaction waiting, and says so, until fees fall."""
    bench.policy = FeePolicy(tip_floor=GWEI, max_fee_cap=4 * GWEI)
    bench.lane = bench.new_lane()
    bench.anvil.set_next_base_fee(6 * GWEI)
    bench.anvil.mine()
    row = await bench.send()
    assert row.fees.max_fee == 4 * GWEI
    await bench.mine()
    assert (await bench.row()).trouble is Trouble.FEE_CAP
    await bench.mine(12)  # each empty block lowers the base fee by an eighth
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert bench.received() == 1


async def test_fees_cannot_be_raised_without_the_account(bench: Bench) -> None:
    """With nobody to sign, what exists is sent again, and said to wait; later it is raised."""
    bench.anvil.mine()
    row = await bench.send()
    bench.account.away = True
    bench.anvil.set_next_base_fee(50 * GWEI)
    await bench.mine(2)
    waiting = await bench.row()
    assert waiting.hashes == row.hashes
    assert waiting.trouble is not None
    with pytest.raises(AccountUnavailable):
        await bench.send("more")
    assert await bench.lane.state("more") is None
    bench.account.away = False
    await bench.mine(5)
    assert (await bench.row()).status is TransactionStatus.FINAL


async def test_restart_between_row_and_broadcast(
    client: ChainClient, database: Database, tmp_path: Path
) -> None:
    """Written but never sent because the node died: a new process sends exactly that."""
    with Anvil(state=tmp_path / "state.json") as anvil:
        own_client = ChainClient([anvil.url])
        anvil.set_automine(False)
        account = KeyAccount(KEY)
        bench = Bench(anvil, own_client, database, account)
        account.before_return = anvil.stop
        row = await bench.send()
        assert row.status is TransactionStatus.PENDING
        account.before_return = lambda: None
        anvil.restart()
        assert bench.pooled() == 0
        anvil.set_automine(False)
        again = bench.new_lane()
        await bench.look(again)
        assert bench.pooled() == 1
        bench.lane = again
        assert (await bench.send()).hash == row.hash
        await bench.mine(3)
        assert (await bench.row()).status is TransactionStatus.FINAL
        assert bench.received() == 1
        await own_client.aclose()


async def test_nonce_used_by_a_stranger(bench: Bench, log: Log) -> None:
    """A nonce that went to a foreign transaction for good is exchanged; ours happens once."""
    row = await bench.send()
    bench.anvil.drop_transaction(row.hash)
    _foreign(bench, nonce=row.nonce, to=OTHER)
    await bench.mine(6)
    settled = await bench.row()
    assert settled.nonce == row.nonce + 1
    assert settled.status in (TransactionStatus.INCLUDED, TransactionStatus.FINAL)
    assert bench.received() == 1
    assert bench.anvil.balance(OTHER) == 7
    assert log.events("nonce_used_by_stranger")


async def test_outbid_in_the_pool(bench: Bench) -> None:
    """A foreign transaction of the same nonce in the pool is outbid."""
    _foreign(bench, nonce=0, to=OTHER, tip=2 * GWEI)
    row = await bench.send()
    assert row.trouble is Trouble.UNDERPRICED
    head = await bench.client.block("latest")
    assert head is not None
    for number in range(1, 6):  # heads without the foreign one
        await bench.lane.on_head(replace(head, number=number), 0)
    assert (await bench.row()).trouble is None
    await bench.mine(3)
    assert bench.received() == 1
    assert bench.anvil.balance(OTHER) == 0


async def test_nonces_after_external_use(bench: Bench) -> None:
    """A foreign transaction between two of ours only moves the next nonce."""
    await bench.send("first")
    _foreign(bench, nonce=1, to=OTHER)
    bench.anvil.mine()
    assert (await bench.send("second")).nonce == 2
    await bench.mine(4)
    assert bench.received() == 2


async def test_gap_left_by_a_stranger(bench: Bench) -> None:
    """A foreign transaction that was reorganised away leaves no gap that blocks ours for ever."""
    _foreign(bench, nonce=0, to=OTHER)
    bench.anvil.mine()
    row = await bench.send()
    assert row.nonce == 1
    bench.anvil.reorg(1)
    await bench.mine(8)
    assert bench.received() == 1
    assert (await bench.row()).status is TransactionStatus.FINAL
    filler = await bench.row("fill nonce 0")
    assert filler.status is TransactionStatus.FINAL


async def test_reverted_transaction(bench: Bench, log: Log) -> None:
    """Reverted and final is failed; the purpose may then be tried again."""
    log.expect_error("transaction_failed")
    bench.anvil.set_automine(True)
    world = World(Escrow.deploy(bench.anvil))
    bench.anvil.set_automine(False)
    lane = bench.lane
    channel = world.channel_id(keccak256(b"nothing"))
    data = calls.claim(channel)
    row = await lane.submit("claim", to=world.escrow.address, value=0, data=data, gas=100_000)
    await bench.mine()
    assert (await bench.row("claim")).status is TransactionStatus.INCLUDED
    await bench.mine(2)
    failed = await bench.row("claim")
    assert failed.status is TransactionStatus.FAILED
    assert failed.reason == "reverted"
    second = await lane.submit("claim", to=world.escrow.address, value=0, data=data, gas=100_000)
    assert second.nonce == row.nonce + 1
    assert second.id != row.id


async def test_insufficient_funds(bench: Bench) -> None:
    """Too little money is a state of the transaction, which goes on when money has come."""
    poor = KeyAccount(PrivateKey(keccak256(b"poor")))
    bench.lane = bench.new_lane("guard", poor)
    row = await bench.send()
    assert row.status is TransactionStatus.PENDING
    assert row.trouble is Trouble.INSUFFICIENT_FUNDS
    await bench.mine(4)
    assert (await bench.row()).trouble is Trouble.INSUFFICIENT_FUNDS
    assert len((await bench.row()).hashes) == 1
    bench.anvil.set_balance(poor.address, ETHER)
    await bench.mine(4)
    assert (await bench.row()).status is TransactionStatus.FINAL
    assert bench.received() == 1


async def test_no_money_to_begin_with(bench: Bench) -> None:
    """What cannot even be estimated for want of money is refused with a type, and not written."""
    bench.lane = bench.new_lane("guard", KeyAccount(PrivateKey(keccak256(b"poor"))))
    with pytest.raises(InsufficientFunds):
        await bench.lane.submit("gift", to=RECEIVER, value=1, data=b"\1")
    assert await bench.lane.state("gift") is None


async def test_raised_beyond_the_balance(bench: Bench) -> None:
    """When the raised version costs more than there is, the cheaper one is sent instead."""
    poor = KeyAccount(PrivateKey(keccak256(b"poor")))
    bench.anvil.set_balance(poor.address, 21_000 * 4 * GWEI)
    bench.anvil.mine()
    bench.lane = bench.new_lane("guard", poor)
    first = await bench.send()
    bench.anvil.set_next_base_fee(50 * GWEI)
    await bench.mine(2)
    assert len((await bench.row()).hashes) == 2
    for _ in range(60):  # the spike passes
        await bench.mine()
        if (await bench.row()).status is not TransactionStatus.PENDING:
            break
    await bench.mine(2)
    row = await bench.row()
    assert row.status is TransactionStatus.FINAL
    receipt = await bench.client.receipt(first.hash)
    assert receipt is not None
    assert receipt.succeeded


async def test_two_lanes(bench: Bench) -> None:
    """Two accounts have their own nonces and purposes on the same tables."""
    guard = bench.new_lane("guard", KeyAccount(DEV_KEYS[6]))
    first = await bench.send("close 1")
    second = await guard.submit("close 1", to=RECEIVER, value=5, data=b"", gas=21_000)
    assert first.nonce == second.nonce == 0
    assert first.hash != second.hash
    bench.anvil.mine()
    for _ in range(3):
        await bench.look()
        await bench.look(guard)
        bench.anvil.mine()
    assert await guard.state("close 1") is TransactionStatus.FINAL
    assert await bench.lane.state("close 1") is TransactionStatus.FINAL
    assert bench.received() == 6


async def test_a_signer_that_signs_something_else(bench: Bench) -> None:
    """What comes back signed must be the transaction that was asked for, by this account."""

    class Other(KeyAccount):
        async def sign(self, transaction: Transaction) -> bytes:
            return await KeyAccount(DEV_KEYS[7]).sign(transaction)

    bench.lane = bench.new_lane("odd", Other(KEY))
    with pytest.raises(AccountUnavailable):
        await bench.send()
    assert await bench.lane.state("gift") is None
    assert bench.pooled() == 0


async def test_driven_by_the_follower(
    client: ChainClient, database: Database, watch: Watch
) -> None:
    """Fed with the follower's heads, whoever waits for a purpose is woken at its end."""
    lane = Lane(client, database, KeyAccount(KEY), name="customer", policy=POLICY)
    async with running(watch.follower.run(), lane.run(watch.follower.heads())):
        await lane.submit("gift", to=RECEIVER, value=1, data=b"")
        included = await asyncio.wait_for(lane.wait("gift", included=True), DEADLINE)
        assert included.status is not TransactionStatus.PENDING
        watch.world.chain.mine(2)
        row = await asyncio.wait_for(lane.wait("gift"), DEADLINE)
        assert row.status is TransactionStatus.FINAL
    with pytest.raises(KeyError):
        await lane.wait("nothing")


def _foreign(bench: Bench, *, nonce: int, to: bytes, tip: int = 3 * GWEI) -> None:
    """Put a transaction of the account into the pool that the lane knows nothing of."""
    transaction = Transaction(
        chain_id=bench.anvil.chain_id,
        nonce=nonce,
        tip=tip,
        max_fee=20 * GWEI,
        gas=21_000,
        to=to,
        value=7,
        data=b"",
    )
    raw = transaction.with_signature(KEY.sign_digest(transaction.signing_digest()))
    bench.anvil.call("eth_sendRawTransaction", "0x" + raw.hex())
