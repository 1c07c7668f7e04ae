"""Send the transactions of one account: written down first, sent again until they are final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from zkchannels.chain.client import (
    ChainClient,
    block_request,
    count_request,
    fees_request,
    receipt_request,
)
from zkchannels.chain.errors import (
    AccountUnavailable,
    ChainError,
    ChainUnavailable,
    MalformedAnswer,
)
from zkchannels.chain.model import Block, FeeSuggestion, Receipt, SendOutcome
from zkchannels.chain.sending import (
    ChainView,
    Decision,
    FeePolicy,
    Fees,
    Inclusion,
    TransactionRow,
    TransactionStatus,
    Trouble,
    lane_step,
    missing_nonce,
)
from zkchannels.escrow.ethereum import EthereumError
from zkchannels.escrow.transaction import Transaction, decode_raw, transaction_hash
from zkchannels.service.logging import FilteringBoundLogger, get_logger
from zkchannels.store.database import DatabaseUnavailable

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from zkchannels.store.database import Database

__all__ = ["Account", "FeePolicy", "Lane", "TransactionRow", "TransactionStatus", "Trouble"]

GAS_OF_FILLER = 21_000
GAS_MARGIN = (6, 5)  # estimates are multiplied: state may change until the transaction is included
_OPEN = (TransactionStatus.PENDING, TransactionStatus.INCLUDED)
_SELECT = """
select t.id, t.lane, t.purpose, t.account, t.nonce, t.recipient, t.value::text, t.data, t.gas,
       t.deadline, t.filler, t.status, t.block_number, t.block_hash, t.trouble, t.reason,
       v.tip::text, v.max_fee::text, v.raw, v.signed_at,
       (select array_agg(hash order by version) from chain_tx_version where tx = t.id)
  from chain_tx t
  join lateral (select * from chain_tx_version where tx = t.id order by version desc limit 1) v
    on true
"""

log = get_logger(__name__)


class Account(Protocol):
    """Who holds the key of an address, and signs or says that it cannot now."""

    @property
    def address(self) -> bytes:
        """The account's address, 20 bytes."""
        ...

    async def sign(self, transaction: Transaction) -> bytes:
        """Return the raw signed transaction; raises AccountUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at the node says about the open transactions."""

    view: ChainView
    inclusions: dict[int, Inclusion]


def _plain(_purpose: str) -> Mapping[str, object]:
    return {}


class Lane:
    """The transactions of one account, in order of their nonces.

    `name` separates the purposes of one lane from another's; `describe` returns what a purpose is
    about, as fields for the log. Every method raises DatabaseUnavailable while the database is
    away.
    """

    def __init__(
        self,
        client: ChainClient,
        database: Database,
        account: Account,
        *,
        name: str,
        policy: FeePolicy,
        describe: Callable[[str], Mapping[str, object]] = _plain,
    ) -> None:
        self._client = client
        self._database = database
        self._account = account
        self._name = name
        self._policy = policy
        self._describe = describe
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._taken: set[tuple[int, int]] = set()
        self._head = 0

    def use(self, policy: FeePolicy) -> None:
        """Offer other fees from now on."""
        self._policy = policy

    # -- for operations and the watcher -----------------------------------------------------------

    async def submit(
        self,
        purpose: str,
        *,
        to: bytes | None,
        value: int,
        data: bytes,
        gas: int | None = None,
        deadline: int | None = None,
    ) -> TransactionRow:
        """Send a transaction once per purpose: while the first has not failed, it is returned.

        What was written first holds, also if the parameters differ now. `value` is wei, `deadline`
        chain time in seconds. Once this returns, the transaction is written down and cannot be
        taken back; whether the node has it yet does not matter. Before that, it raises Reverted
        (it would fail now), InsufficientFunds (it could not be estimated), ChainError,
        ChainUnavailable or AccountUnavailable.
        """
        async with self._turn:
            row = await self.find(purpose)
            if row is None or row.status is TransactionStatus.FAILED:
                row = await self._create(
                    purpose, to=to, value=value, data=data, gas=gas, deadline=deadline
                )
                row = await self._first_send(row)
                self._tell()
            return row

    async def find(self, purpose: str) -> TransactionRow | None:
        """Return the newest transaction of a purpose, whatever its status."""
        return await self._database.fetch_one(
            _SELECT + " where t.lane = %s and t.purpose = %s order by t.id desc limit 1",
            [self._name, purpose],
            row=_row,
        )

    async def state(self, purpose: str) -> TransactionStatus | None:
        """Return where the newest transaction of a purpose stands; None if there is none."""
        row = await self.find(purpose)
        return None if row is None else row.status

    async def open_rows(self) -> list[TransactionRow]:
        """Return the transactions that have not come to an end, by nonce."""
        return await self._database.fetch(
            _SELECT + " where t.account = %s and t.status in ('pending', 'included')"
            " order by t.nonce",
            [self._account.address],
            row=_row,
        )

    async def wait(self, purpose: str, *, included: bool = False) -> TransactionRow:
        """Return the transaction of a purpose when it is FINAL or FAILED (or at least INCLUDED).

        Raises KeyError when nothing was submitted for the purpose.
        """
        while True:
            news = self._news  # taken before asking: a change in between is not missed
            row = await self.find(purpose)
            if row is None:
                raise KeyError(purpose)
            if row.status not in _OPEN or (
                included and row.status is not TransactionStatus.PENDING
            ):
                return row
            await news.wait()

    async def run(self, heads: AsyncIterator[tuple[Block, int]]) -> None:
        """Take every head (with the newest final number) to `on_head`, until cancelled.

        For instance `lane.run(follower.heads())`. What is unavailable now is tried at the next.
        """
        async for head, final in heads:
            try:
                await self.on_head(head, final)
            except (ChainUnavailable, ChainError, MalformedAnswer, DatabaseUnavailable) as error:
                log.warning("transactions_wait", lane=self._name, reason=str(error))

    async def on_head(self, head: Block, final: int) -> None:
        """Settle, send again, or raise the fees of every transaction that is not at its end.

        Raises ChainUnavailable, ChainError, MalformedAnswer, having done a part.
        """
        async with self._turn:
            self._head = head.number
            rows = await self.open_rows()
            used = await self._client.transaction_count(self._account.address)
            rows = await self._with_returned(rows, used)
            if not rows:
                return
            seen = await self._look(rows, head, final)
            try:
                for row in rows:
                    await self._apply(row, seen)
                await self._fill_gap(rows, seen.view)
            finally:
                self._tell()

    # -- one look at the node ---------------------------------------------------------------------

    async def _with_returned(self, rows: list[TransactionRow], used: int) -> list[TransactionRow]:
        """Add final transactions that the chain has not used: finality was broken, or it lags."""
        returned = await self._database.fetch(
            _SELECT + " where t.account = %s and t.status = 'final' and t.nonce >= %s",
            [self._account.address, used],
            row=_row,
        )
        return sorted([*rows, *returned], key=lambda row: row.nonce)

    async def _look(self, rows: Sequence[TransactionRow], head: Block, final: int) -> _Seen:
        """Ask for counts first, then receipts: what the counts include has a receipt by then."""
        address = self._account.address
        used, used_final, fees = await self._client.batch(
            [
                count_request(address, "latest"),
                count_request(address, max(final, 0)),
                fees_request(),
            ]
        )
        for answer in (used, fees):
            if isinstance(answer, ChainError):
                raise answer
        view = ChainView(
            head=head.number,
            time=head.timestamp,
            final=final,
            fees=fees,
            used=used,
            # nodes forget old states; then it is not known yet whether a nonce is gone for good
            used_final=None if isinstance(used_final, ChainError) else used_final,
        )
        return _Seen(view, await self._inclusions(rows))

    async def _inclusions(self, rows: Sequence[TransactionRow]) -> dict[int, Inclusion]:
        """Return, by row id, where the chain as it is now has a version of the transaction."""
        owners = {hash_: row.id for row in rows for hash_ in row.hashes}
        found = await self._client.batch([receipt_request(hash_) for hash_ in owners])
        receipts = [receipt for receipt in found if isinstance(receipt, Receipt)]
        numbers = sorted({receipt.block_number for receipt in receipts})
        blocks = await self._client.batch([block_request(number) for number in numbers])
        canonical = {block.number: block.hash for block in blocks if isinstance(block, Block)}
        return {
            owners[receipt.transaction_hash]: Inclusion(
                receipt.transaction_hash,
                receipt.block_number,
                receipt.block_hash,
                receipt.succeeded,
            )
            for receipt in receipts
            if receipt.transaction_hash in owners
            and canonical.get(receipt.block_number) == receipt.block_hash
        }

    # -- acting on a decision ---------------------------------------------------------------------

    async def _apply(self, row: TransactionRow, seen: _Seen) -> None:
        decision = lane_step(row, seen.view, seen.inclusions.get(row.id), self._policy)
        if decision.renumber:
            decision, row = await self._renumber(row, decision, seen.view)
        elif decision.fees is not None:
            decision, row = await self._raise_fees(row, decision)
        if decision.broadcast:
            decision = await self._send(row, decision)
        await self._note(row, decision)

    async def _raise_fees(
        self, row: TransactionRow, decision: Decision
    ) -> tuple[Decision, TransactionRow]:
        assert decision.fees is not None
        try:
            row = await self._add_version(row, nonce=row.nonce, fees=decision.fees)
        except AccountUnavailable as error:
            return replace(decision, trouble=Trouble.ACCOUNT_UNAVAILABLE, reason=str(error)), row
        self._log(row).info("fees_raised", max_fee=row.fees.max_fee)
        return decision, row

    async def _renumber(
        self, row: TransactionRow, decision: Decision, view: ChainView
    ) -> tuple[Decision, TransactionRow]:
        """Sign with another nonce, once two looks have said that this one is gone for good."""
        if (row.id, row.nonce) not in self._taken:
            self._taken.add((row.id, row.nonce))
            return decision, row
        try:
            fees = self._policy.first(view.fees)
            row = await self._add_version(row, nonce=await self._next_nonce(view.used), fees=fees)
        except AccountUnavailable as error:
            return replace(decision, trouble=Trouble.ACCOUNT_UNAVAILABLE, reason=str(error)), row
        self._log(row).warning("nonce_used_by_stranger")
        return replace(decision, broadcast=True), row

    async def _fill_gap(self, rows: Sequence[TransactionRow], view: ChainView) -> None:
        """Use up a nonce that nobody uses any more and that others wait for."""
        pending = [row for row in rows if row.nonce >= view.used]
        nonce = missing_nonce(view, pending, {row.nonce for row in pending}, self._policy.patience)
        if nonce is None:
            return
        try:
            row = await self._sign_and_insert(
                f"fill nonce {nonce}",
                to=self._account.address,
                value=0,
                data=b"",
                gas=GAS_OF_FILLER,
                deadline=None,
                nonce=nonce,
                fees=self._policy.first(view.fees),
                filler=True,
            )
        except AccountUnavailable as error:
            log.warning("nonce_gap_stays", lane=self._name, reason=str(error))
            return
        await self._first_send(row)

    async def _first_send(self, row: TransactionRow) -> TransactionRow:
        self._log(row).info("transaction_pending")
        return await self._note(row, await self._send(row, Decision(status=row.status)))

    async def _send(self, row: TransactionRow, decision: Decision) -> Decision:
        """Hand the newest version to the node; return the decision with what keeps it out."""
        self._database.require_lease()
        try:
            outcome = await self._client.send_raw(row.raw)
            if outcome is SendOutcome.INSUFFICIENT_FUNDS:
                await self._send_cheaper(row)
        except ChainUnavailable:  # it is written down, the next head sends it
            return replace(decision, trouble=row.trouble, reason=row.reason)
        except ChainError as error:
            return replace(decision, trouble=Trouble.REFUSED, reason=error.message)
        if outcome is SendOutcome.INSUFFICIENT_FUNDS:
            return replace(decision, trouble=Trouble.INSUFFICIENT_FUNDS)
        if outcome is SendOutcome.UNDERPRICED and decision.trouble is None:
            return replace(decision, trouble=Trouble.UNDERPRICED)
        return decision

    async def _send_cheaper(self, row: TransactionRow) -> None:
        """Fall back on a version signed before the fees were raised beyond what there is."""
        rows = await self._database.fetch(
            "select raw from chain_tx_version where tx = %s and nonce = %s and raw <> %s"
            " order by version desc",
            [row.id, row.nonce, row.raw],
            row=bytes,
        )
        for raw in rows:
            if await self._client.send_raw(raw) is not SendOutcome.INSUFFICIENT_FUNDS:
                return

    # -- making transactions ----------------------------------------------------------------------

    async def _create(
        self,
        purpose: str,
        *,
        to: bytes | None,
        value: int,
        data: bytes,
        gas: int | None,
        deadline: int | None,
    ) -> TransactionRow:
        address = self._account.address
        if gas is None:
            estimate = await self._client.estimate_gas(address, to, value, data)
            gas = estimate * GAS_MARGIN[0] // GAS_MARGIN[1]
        fees, used, head = await self._client.batch(
            [fees_request(), count_request(address, "latest"), block_request("latest")]
        )
        for answer in (fees, used, head):
            if isinstance(answer, ChainError):
                raise answer
        if isinstance(head, Block):
            self._head = max(self._head, head.number)
        assert isinstance(fees, FeeSuggestion)
        return await self._sign_and_insert(
            purpose,
            to=to,
            value=value,
            data=data,
            gas=gas,
            deadline=deadline,
            nonce=await self._next_nonce(used),
            fees=self._policy.first(fees),
            filler=False,
        )

    async def _next_nonce(self, used: int) -> int:
        """Return the first nonce that neither the chain nor a transaction of ours has used."""
        ours = await self._database.fetch_one_value(
            "select max(nonce) from chain_tx where account = %s", [self._account.address]
        )
        return used if ours is None else max(used, int(ours) + 1)

    async def _sign(
        self, *, to: bytes | None, value: int, data: bytes, gas: int, nonce: int, fees: Fees
    ) -> bytes:
        transaction = Transaction(
            chain_id=await self._client.chain_id(),
            nonce=nonce,
            tip=fees.tip,
            max_fee=fees.max_fee,
            gas=gas,
            to=to,
            value=value,
            data=data,
        )
        raw = await self._account.sign(transaction)
        try:
            signed, sender = decode_raw(raw)
        except EthereumError as error:
            raise AccountUnavailable(f"no signed transaction came back: {error}") from None
        if signed != transaction or sender != self._account.address:
            raise AccountUnavailable("another transaction, or another account's, came back")
        return raw

    async def _sign_and_insert(
        self,
        purpose: str,
        *,
        to: bytes | None,
        value: int,
        data: bytes,
        gas: int,
        deadline: int | None,
        nonce: int,
        fees: Fees,
        filler: bool,
    ) -> TransactionRow:
        raw = await self._sign(to=to, value=value, data=data, gas=gas, nonce=nonce, fees=fees)

        async def write(connection: AsyncConnection[Any]) -> int:
            cursor = await connection.execute(
                "insert into chain_tx (lane, purpose, account, nonce, recipient, value, data, gas,"
                " deadline, filler, status)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'pending') returning id",
                [
                    self._name,
                    purpose,
                    self._account.address,
                    nonce,
                    to,
                    value,
                    data,
                    gas,
                    deadline,
                    filler,
                ],
            )
            found = await cursor.fetchone()
            assert found is not None
            await _insert_version(
                connection, found[0], 0, nonce=nonce, fees=fees, raw=raw, signed_at=self._head
            )
            number: int = found[0]
            return number

        await self._database.run(write)
        row = await self.find(purpose)
        assert row is not None
        return row

    async def _add_version(self, row: TransactionRow, *, nonce: int, fees: Fees) -> TransactionRow:
        """Sign the transaction anew and write that down; what was signed before stays known."""
        raw = await self._sign(
            to=row.to, value=row.value, data=row.data, gas=row.gas, nonce=nonce, fees=fees
        )

        async def write(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                "update chain_tx set nonce = %s where id = %s", [nonce, row.id]
            )
            await _insert_version(
                connection,
                row.id,
                len(row.hashes),
                nonce=nonce,
                fees=fees,
                raw=raw,
                signed_at=self._head,
            )

        await self._database.run(write)
        hashes = (*row.hashes, transaction_hash(raw))
        return replace(row, nonce=nonce, fees=fees, raw=raw, hashes=hashes, signed_at=self._head)

    async def _note(self, row: TransactionRow, decision: Decision) -> TransactionRow:
        """Write down where the transaction stands and what keeps it out, if that is news."""
        found = decision.inclusion
        now = replace(
            row,
            status=decision.status,
            block_number=None if found is None else found.block_number,
            block_hash=None if found is None else found.block_hash,
            trouble=decision.trouble,
            reason=decision.reason,
        )
        if now == row:
            return row

        async def write(connection: AsyncConnection[Any]) -> None:
            await connection.execute(
                "update chain_tx set status = %s, block_number = %s, block_hash = %s,"
                " trouble = %s, reason = %s where id = %s",
                [
                    now.status.value,
                    now.block_number,
                    now.block_hash,
                    None if now.trouble is None else now.trouble.value,
                    now.reason,
                    now.id,
                ],
            )

        await self._database.run(write)
        self._log_change(row, now)
        return now

    def _log(self, row: TransactionRow) -> FilteringBoundLogger:
        """Return the logger for lines about a transaction, named by its newest version's hash."""
        fields = {**self._describe(row.purpose), "tx": f"0x{row.hash.hex()}"}
        return log.bind(lane=self._name, purpose=row.purpose, **fields)

    def _log_change(self, row: TransactionRow, now: TransactionRow) -> None:
        bound = self._log(now)
        if now.status is TransactionStatus.FAILED and not now.filler:
            bound.error("transaction_failed", reason=now.reason)
        elif now.status is not row.status:
            bound.info("transaction_" + now.status.value, block=now.block_number)
        if now.trouble is not None and (now.trouble, now.reason) != (row.trouble, row.reason):
            bound.warning("transaction_waits", trouble=now.trouble.value, reason=now.reason)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _insert_version(
    connection: AsyncConnection[Any],
    number: int,
    version: int,
    *,
    nonce: int,
    fees: Fees,
    raw: bytes,
    signed_at: int,
) -> None:
    await connection.execute(
        "insert into chain_tx_version (tx, version, hash, nonce, tip, max_fee, raw, signed_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s)",
        [number, version, transaction_hash(raw), nonce, fees.tip, fees.max_fee, raw, signed_at],
    )


def _row(*columns: Any) -> TransactionRow:
    (
        number, lane, purpose, account, nonce, to, value, data, gas,
        deadline, filler, status, block_number, block_hash, trouble, reason,
        tip, max_fee, raw, signed_at, hashes,
    ) = columns  # fmt: skip
    return TransactionRow(
        id=number,
        lane=lane,
        purpose=purpose,
        account=account,
        nonce=nonce,
        to=to,
        value=int(value),
        data=data,
        gas=gas,
        deadline=deadline,
        filler=filler,
        status=TransactionStatus(status),
        block_number=block_number,
        block_hash=block_hash,
        trouble=None if trouble is None else Trouble(trouble),
        reason=reason,
        fees=Fees(int(tip), int(max_fee)),
        raw=raw,
        hashes=tuple(hashes),
        signed_at=signed_at,
    )
