"""What `recover`, `resume`, `backup` and `restore` do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from customerd.channels import queries as channels
from customerd.channels.escrows import escrows as all_escrows
from customerd.channels.record import Channel, Escrow, Status
from customerd.merchants import MerchantAddress
from customerd.operations import queries as operations
from customerd.operations.queries import OperationRow
from customerd.recovery import archive, discover, start
from customerd.recovery import queries as recovery
from customerd.recovery.archive import AnotherWallet, BackupUnusable
from customerd.recovery.backup import document
from customerd.recovery.backup.document import Document, NotEmpty
from customerd.recovery.walk import recoverable
from customerd.rpc import methods
from customerd.rpc.errors import failure
from customerd.signing.compare import all_records
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.store.writes import Writes
from zkchannels.escrow.record import ChannelStatus
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Call, Peer, current_call
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from customerd.rpc.owner import Parts

T = TypeVar("T")

OPERATION_ID = 16
"""Bytes of an operation's id."""

log = get_logger("customerd.rpc")

AGREE_OR_FORCE = (
    "it pays no more until it is recovered; `close` closes it by agreement; `close --force` risks "
    "the money: an honest merchant disputes an old state"
)
VOUCHED_FOR = (
    "only the merchant vouches for this being the newest state: it pays, and is closed by "
    "agreement or when the merchant demands a close; otherwise with `close --force` only"
)


_CLOSED = (Status.ASKED, Status.DECIDED, Status.CLOSED)
_ENDED = (ChannelStatus.CLOSING, ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


class Recoveries:
    """The methods; `merchant_at` and `by_label` are the owner's."""

    def __init__(
        self,
        parts: Parts,
        *,
        merchant_at: Callable[[str], Awaitable[tuple[MerchantAddress, Escrow]]],
        by_label: Callable[[str], Awaitable[Channel]],
    ) -> None:
        self._parts = parts
        self._merchant_at = merchant_at
        self._by_label = by_label

    # -- recover ------------------------------------------------------------------------------

    async def recover(self, params: methods.RecoverParams, _peer: Peer) -> methods.Recoveries:
        """Find channels, queue a recovery for each that needs one, and tell how each stands."""
        if params.label is not None:
            row = await self._by_label(params.label)
            if not recoverable(row):
                raise failure(
                    "wrong_status",
                    f"the channel {row.label!r} is {row.status}: there is nothing to recover",
                )
            rows = [row]
        else:
            escrow = await self._find(params.merchant)
            known = await channels.channels(self._parts.store.database)
            rows = [row for row in known if recoverable(row) and escrow in (None, row.escrow)]
        queued = [(row, await start.request(self._parts.store, row)) for row in rows]
        for _, operation in queued:
            self._parts.runner.submit(operation)
        call = current_call()
        if call is not None:
            # Asking twice finds the same operations; only once they are all there are they named.
            call.note = b"".join(operation.operation for _, operation in queued)
        return await self._answer(queued, wait=params.wait, timeout=params.timeout)

    async def go_on(self, params: methods.RecoverParams, call: Call) -> methods.Recoveries:
        """Answer a call whose operations an earlier daemon had queued."""
        database = self._parts.store.database
        queued = []
        for place in range(0, len(call.note), OPERATION_ID):
            operation = await operations.operation_by_id(
                database, call.note[place : place + OPERATION_ID]
            )
            assert operation is not None
            assert operation.channel is not None
            row = await channels.channel_by_id(database, operation.channel)
            assert row is not None
            queued.append((row, operation))
        left = max(0.0, params.timeout - call.age(asyncio.get_running_loop().time()))
        return await self._answer(queued, wait=params.wait, timeout=left)

    async def _answer(
        self,
        queued: list[tuple[Channel, OperationRow]],
        *,
        wait: bool,
        timeout: float,
    ) -> methods.Recoveries:
        if wait:
            call = current_call()
            if call is not None:
                call.rest()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    for _, operation in queued:
                        await self._parts.runner.wait(operation.operation)
        return methods.Recoveries(
            recoveries=[await self._shown(row, operation) for row, operation in queued]
        )

    async def _find(self, merchant: str | None) -> bytes | None:
        """Look for unknown channels: in one merchant's escrow, whole, or in all known ones."""
        store, watcher = self._parts.store, self._parts.watcher
        places: list[tuple[str, int, Escrow]] = []
        only = None
        if merchant is not None:
            address, escrow = await self._merchant_at(merchant)
            writes = Writes()
            channels.insert_escrow(writes, escrow)
            await store.write(writes)
            await self._in_time(
                discover.read_history(
                    watcher, escrow.escrow, since=self._parts.settings().chain.first_block
                )
            )
            places.append((address.host, address.port, escrow))
            only = escrow.escrow
        else:
            known = await channels.channels(store.database)
            where = {row.escrow: (row.host, row.port) for row in known}
            for number, escrow in (await all_escrows(store.database)).items():
                if number in where:
                    places.append((*where[number], escrow))
        account = self._parts.gateway.account
        assert account is not None
        remembered = {record.channel for record in await self._records()}
        for host, port, escrow in places:
            for found in await discover.unknown_channels(watcher, store, escrow, account):
                row = await discover.insert(
                    store,
                    found,
                    host=host,
                    port=port,
                    restored=found.channel not in remembered,
                )
                log.info("channel_found", channel=row.label)
        await watcher.reload_escrows()
        self._parts.gateway.unknown_channels -= {
            row.channel for row in await channels.channels(store.database)
        }
        return only

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._parts.settings().chain.history_patience):
                return await work
        except TimeoutError:
            raise failure(
                "timed_out",
                "the chain is still being read; ask again",
                hint="chain.first_block in the configuration says where to begin",
            ) from None

    async def _shown(self, before: Channel, queued: OperationRow) -> methods.Recovery:
        database = self._parts.store.database
        row = await channels.channel_by_id(database, before.channel)
        operation = await operations.operation_by_id(database, queued.operation)
        assert row is not None
        assert operation is not None
        chain = await self._parts.watcher.record(row.channel)
        status, message = "recovered", VOUCHED_FOR if row.restored else ""
        if operation.status == "refused":
            status, message = "suspect", operation.error_message or ""
        elif not operation.ended:
            status = "waiting"
            reason = self._parts.runner.reason(operation.operation) or "at work"
            message = f"{reason}; {AGREE_OR_FORCE}"
        elif row.state in _CLOSED or chain.status in _ENDED:
            status, message = "closing", "the newest state that is known is closed on"
        elif row.state in (Status.SUSPECT, Status.NEW):
            status, message = "suspect", AGREE_OR_FORCE
        if (await self._held_on(row)) and status == "recovered":
            message = f"{message}; operations wait: `resume`".removeprefix("; ")
        escrow = await self._parts.store.escrow(row.escrow)
        return methods.Recovery(
            label=row.label,
            channel="0x" + row.channel.hex(),
            status=status,  # type: ignore[arg-type]
            index=-1 if row.authorized is None else row.authorized,
            customer_balance=methods.Amount(
                units=row.customer_balance, text=escrow.asset.format(row.customer_balance)
            ),
            message=message,
            operation=operation.operation.hex(),
        )

    async def _held_on(self, row: Channel) -> bool:
        held = await recovery.held(self._parts.store.database)
        unfinished = await operations.unfinished(self._parts.store.database)
        return any(each.channel == row.channel and each.operation in held for each in unfinished)

    async def resume(self, params: methods.ResumeParams, _peer: Peer) -> methods.Resumed:
        """Let held operations go on."""
        chosen = None if params.operation is None else bytes.fromhex(params.operation)
        database = self._parts.store.database
        held = await recovery.held(database)
        if chosen is not None and chosen not in held:
            raise failure("not_found", "no such operation is held", hint="see `operations`")
        released = held if chosen is None else frozenset({chosen})
        await self._parts.store.change(lambda change: recovery.release(change, chosen))
        await self._parts.runner.take_up()
        return methods.Resumed(operations=[operation.hex() for operation in sorted(released)])

    # -- backup and restore -------------------------------------------------------------------

    async def backup(self, params: methods.FileParams, _peer: Peer) -> methods.BackedUp:
        """Write everything into one encrypted file."""
        path, store = _absolute(params.file), self._parts.store
        if path.is_dir():
            raise failure("backup_unusable", f"{path} is a directory")
        key, identity = await self._key()
        content = await document.collect(store)
        try:
            size = await asyncio.to_thread(
                archive.write, path, document.encode(content), key=key, identity=identity
            )
        except SecretFileError as error:
            raise failure("backup_unusable", str(error)) from None
        log.info("backup_written", channels=len(content.rows["channel"]))
        return methods.BackedUp(file=str(path), size=size, channels=len(content.rows["channel"]))

    async def restore(self, params: methods.FileParams, _peer: Peer) -> methods.Restored:
        """Write a backup into an empty database; every channel is flagged, the queue is held."""
        path, store = _absolute(params.file), self._parts.store
        key, identity = await self._key()
        try:
            documents = await asyncio.to_thread(document.read, path, key=key, identity=identity)
            await self._check_chain(documents)
            await document.write(store, documents)
        except AnotherWallet as error:
            raise failure("wrong_wallet", str(error)) from None
        except BackupUnusable as error:
            raise failure("backup_unusable", str(error)) from None
        except NotEmpty:
            raise failure(
                "not_empty",
                "this database holds channels or operations already",
                hint="restore into an empty database of its own",
            ) from None
        log.warning("backup_restored", channels=sum(len(d.rows["channel"]) for d in documents))
        await self._follow(documents)
        shown = await self._told(documents)
        # Compared anew before anything else is done: the signer may know newer states.
        self._parts.gateway.compare_again()
        await self._parts.runner.take_up()
        return shown

    async def _check_chain(self, documents: list[Document]) -> None:
        chain = self._parts.watcher.chain_id
        for each in documents:
            if each.chain_id not in (None, chain):
                raise BackupUnusable(
                    f"this backup belongs to chain {each.chain_id}, the node is on {chain}"
                )

    async def _follow(self, documents: list[Document]) -> None:
        """Read the escrows' events again, from where they were followed."""
        since: dict[str, int] = {}
        for each in documents:
            for escrow, block in each.since.items():
                since[escrow] = min(block, since.get(escrow, block))
        known = await all_escrows(self._parts.store.database)
        await self._parts.watcher.reload_escrows()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._parts.settings().chain.history_patience):
                for escrow, block in since.items():
                    if bytes.fromhex(escrow) in known:
                        await discover.read_history(
                            self._parts.watcher, bytes.fromhex(escrow), since=block
                        )

    async def _told(self, documents: list[Document]) -> methods.Restored:
        """Compare what was restored with the signer and the chain: is the backup a stale one?"""
        records = {record.channel: record for record in await self._records()}
        rows = await channels.channels(self._parts.store.database)
        found = []
        for row in rows:
            record = records.get(row.channel)
            newest = None if record is None else record.authorization
            ours = -1 if row.authorized is None else row.authorized
            chain = await self._parts.watcher.record(row.channel)
            found.append(
                methods.RestoredChannel(
                    label=row.label,
                    status=row.status,
                    chain_status=chain.status.name.lower(),
                    index=ours,
                    stale=newest is not None and newest.index > ours,
                )
            )
        missing = set(records) - {row.channel for row in rows}
        account = self._parts.gateway.account
        assert account is not None
        for escrow in (await all_escrows(self._parts.store.database)).values():
            unknown = await discover.unknown_channels(
                self._parts.watcher, self._parts.store, escrow, account
            )
            missing |= {each.channel for each in unknown}
        return methods.Restored(
            channels=found,
            missing=["0x" + channel.hex() for channel in sorted(missing)],
            age=max(0.0, time.time() - min(each.created for each in documents)),
            held=len(await recovery.held(self._parts.store.database)),
        )

    async def _records(self) -> list[wire.Record]:
        try:
            return await all_records(self._parts.gateway)
        except (SignerAway, SignerSlow):
            raise failure("safe_mode", "the signer does not answer") from None

    async def _key(self) -> tuple[bytes, bytes]:
        gateway = self._parts.gateway
        try:
            answer = await gateway.request(wire.BACKUP_KEY, wire.Nothing())
        except (SignerAway, SignerSlow, RpcError):
            raise failure("safe_mode", "the signer does not answer") from None
        assert gateway.identity is not None
        return answer.key, gateway.identity


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise failure(
            "backup_unusable",
            "the daemon needs the whole path of the file",
            hint="write it from / on",
        )
    return path
