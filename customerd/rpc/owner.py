"""What the methods of the owner RPC do."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
import psycopg

from customerd import VERSION
from customerd.channels import queries as channels
from customerd.channels.escrows import escrows as all_escrows
from customerd.channels.record import PAYABLE, Channel, Escrow, Status
from customerd.config import Settings
from customerd.merchants import (
    InvalidMerchantAddress,
    MerchantAddress,
    Merchants,
    MerchantUnreachable,
)
from customerd.operations import queries as operations
from customerd.operations.queries import OperationRow
from customerd.operations.runner import Runner
from customerd.recovery.journal import Journal
from customerd.rpc import methods, metrics, views
from customerd.rpc.callers import uid_of
from customerd.rpc.errors import failure
from customerd.rpc.estimates import estimate
from customerd.rpc.gate import LEVELS, Gate, Undeclared
from customerd.rpc.methods import METHODS
from customerd.rpc.monitor import Gated, Monitor, scope_of
from customerd.rpc.recovery import Recoveries
from customerd.rpc.signers import Signers
from customerd.rpc.subscriptions import Subscriptions
from customerd.rpc.tokens import TokenMethods
from customerd.signing.compare import register_escrow
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.signing.gateway import Gateway
from customerd.signing.policies import policy_refusal
from customerd.store.events import Change, Event, Store
from customerd.store.writes import Writes
from customerd.tokens import queries as token_queries
from customerd.tokens.grant import OWNER, Grant, Scope
from customerd.tokens.registry import Tokens
from customerd.watch.costs import GAS
from customerd.watch.escrows import NotAnEscrow, read_escrow
from customerd.watch.watcher import Watcher
from zkchannels.amounts import AmountError, Asset
from zkchannels.chain.errors import ChainFailure, IncompleteHistory
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import ZERO_ADDRESS, checksum
from zkchannels.escrow.record import ChannelStatus
from zkchannels.jsonrpc.errors import ConnectionLost, RequestTimeout, RpcError
from zkchannels.jsonrpc.method import Method, openrpc
from zkchannels.jsonrpc.peer import Call, Handlers, Peer, current_call
from zkchannels.service.configuration import ConfigurationError
from zkchannels.service.logging import also_about, get_logger
from zkchannels.store.database import CommitOutcomeUnknown, DatabaseUnavailable
from zkchannels.wire import merchant as wire
from zkchannels.wire import signer as signer_wire
from zkchannels.wire.errors import kind_of

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

log = get_logger("customerd.rpc")

LIMITS_TIMEOUT = 2.0
"""Seconds that the signer has to tell its limits; without them the rest is shown."""
GO_ON_WITHIN = 30.0
"""Seconds that a call waits, after a restart, for what it needs to be begun once more."""
HAS_BEGUN = "database"
"""What a call needs once its effect may be written: to find out."""
BEGUN = b"begun"
_ONCE = frozenset(
    method.name
    for method in (
        methods.RENAME,
        methods.RESUME,
        methods.RESTORE,
        methods.TOKEN_CREATE,
        methods.SIGNER_FORGET,
    )
)
"""Methods that cannot be repeated, and take too short to be gone on with: a restart that comes
upon one of them is told to its caller."""
DELAY_IN_MARGINS = 4
"""How many margins an escrow's delay has to last, for every act to be final in time."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the daemon that the methods speak to."""

    store: Store
    watcher: Watcher
    gateway: Gateway
    merchants: Merchants
    runner: Runner
    gate: Gate
    journal: Journal
    tokens: Tokens
    monitor: Monitor
    waits: Callable[[str], bool]
    """Whether a call with these needs waits for what is just coming, instead of being refused."""
    settings: Callable[[], Settings]
    """The settings as they are now."""
    reload: Callable[[], methods.Reloaded]
    native_symbol: str
    mode: Callable[[], Literal["starting", "standby", "safe", "ready", "stopping"]]
    stop: Callable[[], None]
    started: float


class Owner:
    """Registers every method behind the gate."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._subscriptions = Subscriptions(parts.store)
        self._signers = Signers(parts.gateway)
        self._recoveries = Recoveries(parts, merchant_at=self._merchant_at, by_label=self._by_label)
        self._tokens = TokenMethods(
            parts.store,
            parts.tokens,
            parts.monitor,
            native_symbol=parts.native_symbol,
            by_label=self._by_label,
        )
        self._implementations = self._named()

    def register(self, handlers: Handlers) -> None:
        """Register all methods for the owner."""
        for method, answer in self.gated():
            handlers.register(method, answer)

    def gated(self) -> Iterator[Gated]:
        """Yield all methods with what answers them; each checks the gate before anything else."""
        for method in METHODS:
            yield method, self._gated(method, self._implementations[method.name])

    def _named(self) -> dict[str, Callable[..., Any]]:
        return {
            methods.GETINFO.name: self.getinfo,
            methods.BALANCE.name: self.balance,
            methods.LIST.name: self.list_,
            methods.SHOW.name: self.show,
            methods.RENAME.name: self.rename,
            methods.HISTORY.name: self.history,
            methods.ESTABLISH.name: self.establish,
            methods.PAY.name: self.pay,
            methods.REFUND.name: self.refund,
            methods.CLOSE.name: self.close,
            methods.RECOVER.name: self._recoveries.recover,
            methods.RESUME.name: self._recoveries.resume,
            methods.BACKUP.name: self._recoveries.backup,
            methods.RESTORE.name: self._recoveries.restore,
            methods.ESTIMATE.name: self.estimate,
            methods.OPERATIONS.name: self.operations,
            methods.OPERATION.name: self.operation,
            methods.WAIT.name: self.wait,
            methods.CANCEL.name: self.cancel,
            methods.SUBSCRIBE.name: self.subscribe,
            methods.SIGNER_STATUS.name: self.signer_status,
            methods.TOKEN_CREATE.name: self._tokens.create,
            methods.TOKEN_LIST.name: self._tokens.list_,
            methods.TOKEN_REVOKE.name: self._tokens.revoke,
            methods.SIGNER_PAIR.name: self._signers.pair,
            methods.SIGNER_ADDRESS.name: self._signers.address,
            methods.SIGNER_FORGET.name: self._signers.forget,
            methods.METRICS.name: self.metrics,
            methods.RELOAD.name: self.reload,
            methods.STOP.name: self.stop,
            methods.HELP.name: self.help,
            methods.DISCOVER.name: self.discover,
        }

    def _gated(
        self, method: Method[P, R], implementation: Callable[..., R | Awaitable[R]]
    ) -> Callable[[P, Peer], R | Awaitable[R]]:
        needs, gate = method.needs, self._parts.gate
        if needs not in LEVELS:
            raise Undeclared(f"{method.name} does not declare what it needs")
        if not inspect.iscoroutinefunction(implementation):

            def inline(params: P, peer: Peer) -> R | Awaitable[R]:
                gate.check(needs)
                return implementation(params, peer)

            return inline

        async def task(params: P, peer: Peer) -> R:
            also_about(method=method.name, peer_uid=uid_of(peer))
            log.debug("called")
            call = current_call()
            try:
                if call is not None and call.earlier is not None:
                    return await self._go_on(method, params, peer, call)
                await self._wait_a_moment(needs)
                return await self._begin(method, params, peer)
            except (DatabaseUnavailable, CommitOutcomeUnknown):
                raise failure("database_unavailable", "PostgreSQL does not answer") from None
            except IncompleteHistory:
                reason = "events of the channel are missing; the escrow's past is read once more"
                raise failure("chain_unavailable", reason) from None
            except ChainFailure:
                raise failure("chain_unavailable", "no node answers") from None

        return task

    async def _wait_a_moment(self, needs: str) -> None:
        """Wait for what is just coming after a start, as long as it may be."""
        while self._parts.waits(needs):
            await self._parts.gate.wait_change()

    async def _go_on(self, method: Method[P, R], params: P, peer: Peer, call: Call) -> R:
        """Answer a call that an earlier daemon had begun; do nothing for a second time."""
        assert call.earlier is not None
        if not call.note and not call.earlier.resting:
            await self._parts.gate.wait(method.needs, GO_ON_WITHIN)
            return await self._begin(method, params, peer)
        call.rest()
        await self._parts.gate.wait(HAS_BEGUN, None)
        if method.name in _ONCE:
            raise failure(
                "interrupted", f"the daemon was restarted while it carried out {method.name}"
            )
        answer: Any
        if isinstance(params, methods.SubscribeParams):
            answer = methods.Subscribed(after=int(call.note))
        elif isinstance(params, methods.RecoverParams):
            answer = await self._recoveries.go_on(params, call)
        elif isinstance(params, methods.PayParams | methods.EstablishParams | methods.CloseParams):
            row = await self._perhaps_begun(call.note)
            if row is None:
                # Its daemon has ended, and can commit it no more.
                call.note = b""
                await self._parts.gate.wait(method.needs, GO_ON_WITHIN)
                return await self._begin(method, params, peer)
            answer = await self._submitted(row, wait=params.wait)
        else:
            answer = await self._implementations[method.name](params, peer)
        return answer  # type: ignore[no-any-return]

    async def _perhaps_begun(self, operation: bytes) -> OperationRow | None:
        try:
            return await operations.operation_by_id(self._parts.store.database, operation)
        except DatabaseUnavailable:
            raise failure(
                "database_unavailable",
                "PostgreSQL does not answer; the operation goes on if it was written",
                operation=operation.hex(),
                hint="ask for this operation before trying again; if it is not found, try again",
            ) from None

    async def _begin(self, method: Method[P, R], params: P, peer: Peer) -> R:
        self._parts.gate.check(method.needs)
        call = current_call()
        if call is not None and method.name in _ONCE:
            call.note = BEGUN
        answer: R = await self._implementations[method.name](params, peer)
        return answer

    # -- monitoring ---------------------------------------------------------------------------

    def getinfo(self, _params: methods.NoParams, peer: Peer) -> methods.Info:
        """Answer from memory alone, whatever is away."""
        parts, scope = self._parts, scope_of(peer)
        missing = parts.gate.missing()
        return methods.Info(
            version=VERSION,
            mode=parts.mode(),
            missing=missing,
            chain=self._chain(),
            database="database_unavailable" not in missing,
            signer=self._signer(scope),
            guard=checksum(parts.watcher.guard_address),
            guard_balance=self._native(parts.watcher.guard_balance) if scope.whole else None,
            channels=parts.watcher.channel_count if scope.channels is None else len(scope.channels),
            operations=parts.runner.unfinished_on(scope.channels),
            alarms=[
                methods.Alert(
                    kind=alarm.kind,
                    message=alarm.message,
                    label=alarm.label,
                    level=alarm.level.value,
                    since=parts.watcher.since(alarm),
                    deadline=alarm.deadline,
                )
                for alarm in parts.watcher.alarms
                if scope.sees(alarm.channel)
            ],
            pid=os.getpid(),
            uptime=time.time() - parts.started,
            backup=self._backup() if scope.whole else None,
        )

    def _backup(self) -> methods.BackupInfo | None:
        journal = self._parts.journal
        if journal.directory is None:
            return None
        return methods.BackupInfo(
            directory=str(journal.directory),
            pending=journal.pending,
            behind=journal.behind,
            trouble=journal.trouble,
        )

    def _chain(self) -> methods.ChainInfo:
        watcher = self._parts.watcher
        head = watcher.follower.head
        final = watcher.follower.final
        return methods.ChainInfo(
            chain_id=watcher.chain_id,
            head=None if head is None else head.number,
            head_time=None if head is None else head.timestamp,
            final=final if final is not None and final >= 0 else None,
            following=watcher.following,
        )

    def _signer(self, scope: Scope) -> methods.SignerInfo:
        gateway = self._parts.gateway
        account = gateway.account if scope.whole else None
        paired, offer = gateway.pairing.paired, gateway.pairing.offer
        fingerprint = None if paired is None or not scope.whole else paired.fingerprint
        return methods.SignerInfo(
            attached=gateway.ready,
            compared=gateway.compared,
            identity=None if gateway.identity is None else checksum(gateway.identity),
            account=None if account is None else checksum(account),
            generation=gateway.generation,
            policies=gateway.policies,
            since=gateway.since,
            paired=paired is not None,
            fingerprint=None if fingerprint is None else fingerprint.hex(),
            pairing_until=None if offer is None else offer.expires,
        )

    def _native(self, wei: int | None) -> str | None:
        return None if wei is None else Asset(self._parts.native_symbol, 18, 1).format(wei)

    async def signer_status(self, _params: methods.NoParams, peer: Peer) -> methods.SignerInfo:
        """Show the signer and, to whom may see everything, its limits."""
        scope = scope_of(peer)
        shown = self._signer(scope)
        if not scope.whole:
            return shown
        try:
            states = await self._parts.gateway.request(
                signer_wire.POLICY_STATES, signer_wire.Nothing(), timeout=LIMITS_TIMEOUT
            )
        except (SignerAway, SignerSlow, DatabaseUnavailable, RpcError):
            return shown
        limits = [
            methods.PolicyLimit(state.name, state.kind, state.about, state.limit, state.used)
            for state in states.policies
        ]
        return msgspec.structs.replace(shown, limits=limits)

    def metrics(self, _params: methods.NoParams, peer: Peer) -> methods.Metrics:
        """Show figures in OpenMetrics text."""
        if not scope_of(peer).whole:
            raise failure("forbidden", "these figures are about all channels")
        parts = self._parts
        return methods.Metrics(
            text=metrics.render(
                watcher=parts.watcher,
                gateway=parts.gateway,
                merchants=parts.merchants,
                runner=parts.runner,
                started=parts.started,
            )
        )

    async def balance(self, _params: methods.NoParams, peer: Peer) -> methods.Balance:
        """Add up per escrow what can be paid, refunded, and what is closing."""
        database, scope = self._parts.store.database, scope_of(peer)
        rows = [row for row in await channels.channels(database) if scope.sees(row.channel)]
        escrows = await all_escrows(database)
        if not scope.whole:
            escrows = {row.escrow: escrows[row.escrow] for row in rows}
        spendable = dict.fromkeys(escrows, 0)
        refundable = dict.fromkeys(escrows, 0)
        closing = dict.fromkeys(escrows, 0)
        for row in rows:
            if row.state in PAYABLE:
                spendable[row.escrow] += row.customer_balance
                refundable[row.escrow] += row.merchant_balance
            elif row.state in (Status.ASKED, Status.DECIDED, Status.SUSPECT):
                closing[row.escrow] += row.customer_balance
        watcher, gateway = self._parts.watcher, self._parts.gateway
        account = gateway.account if scope.whole else None
        return methods.Balance(
            assets=[
                methods.AssetBalance(
                    symbol=escrow.symbol,
                    escrow=checksum(address),
                    spendable=views.amount(escrow.asset, spendable[address]),
                    refundable=views.amount(escrow.asset, refundable[address]),
                    closing=views.amount(escrow.asset, closing[address]),
                )
                for address, escrow in escrows.items()
            ],
            account=None if account is None else checksum(account),
            account_balance=self._native(watcher.account_balance) if scope.whole else None,
            guard=checksum(watcher.guard_address),
            guard_balance=self._native(watcher.guard_balance) if scope.whole else None,
        )

    async def list_(self, _params: methods.NoParams, peer: Peer) -> methods.Channels:
        """Show every channel with its record on chain."""
        database, scope = self._parts.store.database, scope_of(peer)
        rows = [row for row in await channels.channels(database) if scope.sees(row.channel)]
        escrows = await all_escrows(database)
        records = await self._parts.watcher.chain_store.records([row.channel for row in rows])
        at_work = {row.channel: row for row in reversed(await operations.unfinished(database))}
        return methods.Channels(
            channels=[
                views.channel(
                    row,
                    escrows[row.escrow],
                    records[row.channel].head,
                    at_work.get(row.channel),
                )
                for row in rows
            ]
        )

    async def show(self, params: methods.LabelParams, peer: Peer) -> methods.Channel:
        """Show one channel."""
        return await self._shown(await self._by_label(params.label, scope_of(peer)))

    async def _shown(self, row: Channel) -> methods.Channel:
        database = self._parts.store.database
        escrow = await self._parts.store.escrow(row.escrow)
        record = await self._parts.watcher.record(row.channel)
        at_work = next(
            (
                operation
                for operation in await operations.unfinished(database)
                if operation.channel == row.channel
            ),
            None,
        )
        return views.channel(row, escrow, record, at_work)

    async def _by_label(self, label: str, scope: Scope = OWNER) -> Channel:
        """Return a channel; one that may not be seen is not there."""
        row = await channels.channel_by_label(self._parts.store.database, label)
        if row is None or not scope.sees(row.channel):
            raise failure(
                "not_found", f"no channel is called {label!r}", hint="see `customerctl list`"
            )
        return row

    async def rename(self, params: methods.RenameParams, _peer: Peer) -> methods.Channel:
        """Give a channel another label; its operations and events keep the old one."""
        row = await self._by_label(params.label)

        async def write(change: Change) -> None:
            locked = await channels.lock_channel(
                change.connection, row.channel, allowed=frozenset(Status)
            )
            await channels.update_channel(change, locked, label=params.new_label)
            change.event(
                "channel", "renamed", channel=row.channel, label=params.new_label, old=row.label
            )

        try:
            await self._parts.store.change(write)
        except psycopg.errors.UniqueViolation:
            raise _label_taken(params.new_label) from None
        return await self._shown(await self._by_label(params.new_label))

    async def history(self, params: methods.HistoryParams, peer: Peer) -> methods.History:
        """Show recorded events."""
        visible = scope_of(peer).channels
        if params.label is not None:
            visible = frozenset({(await self._by_label(params.label, scope_of(peer))).channel})
        rows: list[Event] = await self._parts.store.events(
            before=params.before,
            channels=visible,
            operation=None if params.operation is None else bytes.fromhex(params.operation),
            limit=params.limit,
        )
        return methods.History(events=[views.event(row) for row in rows])

    # -- operations ---------------------------------------------------------------------------

    async def establish(self, params: methods.EstablishParams, _peer: Peer) -> methods.Operation:
        """Read the escrow from the chain, check the deposit, queue the operation."""
        digest = _digest("establish", params)
        first = await self._repeated(params.idempotency_key, digest)
        if first is not None:
            return await self._answer(first, wait=params.wait)
        address = _address(params.merchant)
        welcome = await self._hello(address)
        escrow = await self._read_escrow(address, welcome)
        deposit = _parse(escrow.asset, params.deposit)
        merchant_deposit = (
            0 if params.merchant_deposit is None else _parse(escrow.asset, params.merchant_deposit)
        )
        await self._check_deposit(escrow, welcome, deposit, merchant_deposit)
        await self._register(escrow)
        label = params.label or address.host
        row = await self._insert_channel(
            escrow=escrow,
            address=address,
            label=label,
            deposit=deposit,
            merchant_deposit=merchant_deposit,
            params=params,
            digest=digest,
        )
        self._parts.runner.submit(row)
        await self._parts.watcher.reload_escrows()
        return await self._submitted(row, wait=params.wait)

    async def _merchant_at(self, text: str) -> tuple[MerchantAddress, Escrow]:
        """Return a merchant's address and its escrow, checked as for a new channel."""
        address = _address(text)
        escrow = await self._read_escrow(address, await self._hello(address))
        await self._register(escrow)
        return address, escrow

    async def _hello(self, address: MerchantAddress) -> wire.Welcome:
        try:
            async with self._parts.merchants.session(address.host, address.port) as peer:
                return await peer.request(
                    wire.HELLO,
                    wire.HelloParams(version=wire.PROTOCOL_VERSION, escrow=address.escrow),
                    timeout=10.0,
                )
        except MerchantUnreachable as error:
            raise failure("merchant_unreachable", str(error)) from None
        except (ConnectionLost, RequestTimeout):
            raise failure("merchant_unreachable", "the merchant did not answer") from None
        except RpcError as error:
            if kind_of(error):
                raise failure("rejected_by_merchant", error.message) from None
            raise failure("merchant_misbehaved", "the merchant's answer is malformed") from None

    async def _read_escrow(self, address: MerchantAddress, welcome: wire.Welcome) -> Escrow:
        escrow = (await all_escrows(self._parts.store.database)).get(address.escrow)
        if escrow is None:
            try:
                escrow = await read_escrow(
                    self._parts.watcher.client,
                    address.escrow,
                    g1_half=welcome.g1_half,
                    native_symbol=self._parts.native_symbol,
                )
            except NotAnEscrow as error:
                raise failure("invalid_address", str(error)) from None
        if escrow.delay < DELAY_IN_MARGINS * self._parts.settings().chain.margin:
            raise failure(
                "policy_refused",
                f"the escrow gives {escrow.delay} s to answer; the configured margin asks for "
                f"{DELAY_IN_MARGINS * self._parts.settings().chain.margin:.0f} s",
            )
        if (welcome.chain_id, welcome.unit, welcome.delay, welcome.token, welcome.g1_half) != (
            escrow.chain_id,
            escrow.unit,
            escrow.delay,
            escrow.token,
            escrow.g1_half,
        ):
            raise failure("merchant_misbehaved", "the merchant's terms are not those of its escrow")
        return escrow

    async def _register(self, escrow: Escrow) -> None:
        """Let the signer judge the escrow before anything is written about it."""
        try:
            await register_escrow(self._parts.gateway, escrow)
        except (SignerAway, SignerSlow):
            raise failure("safe_mode", "no signer is attached") from None
        except RpcError as error:
            if kind_of(error) == "bad_key":
                raise failure("merchant_misbehaved", error.message) from None
            raise failure(*policy_refusal(error)) from None

    async def _check_deposit(
        self, escrow: Escrow, welcome: wire.Welcome, deposit: int, merchant_deposit: int
    ) -> None:
        if deposit <= 0 or deposit < welcome.minimum_deposit:
            smallest = escrow.asset.format(max(1, welcome.minimum_deposit))
            raise failure("amount_too_small", f"the smallest deposit is {smallest}")
        if merchant_deposit < 0 or deposit > welcome.maximum_deposit:
            largest = escrow.asset.format(welcome.maximum_deposit)
            raise failure("rejected_by_merchant", f"the largest deposit is {largest}")
        client, account = self._parts.watcher.client, self._parts.gateway.account
        if account is None:
            raise failure("safe_mode", "no signer is attached")
        fees = await self._parts.watcher.fees()
        if fees.base_fee + fees.tip > self._parts.settings().chain.fee_cap:
            raise failure("fee_too_high", "the chain's fee per gas is above the configured limit")
        gas = (GAS["open"] if escrow.token == ZERO_ADDRESS else GAS["open_token"]) + GAS["close"]
        needed = gas * (2 * fees.base_fee + fees.tip)
        if escrow.token == ZERO_ADDRESS:
            needed += deposit * escrow.unit
        if escrow.token != ZERO_ADDRESS:
            answer = await client.eth_call(escrow.token, calls.balance_of(account))
            tokens = calls.decode_number(answer) // escrow.unit
            if tokens < deposit:
                raise failure(
                    "insufficient_balance",
                    f"the account {checksum(account)} holds {escrow.asset.format(tokens)}",
                )
        held = await client.balance(account)
        if held < needed:
            raise failure(
                "insufficient_balance",
                f"the account {checksum(account)} holds {self._native(held)}; deposit and gas "
                f"take {self._native(needed)}",
                hint="send funds to the account",
            )

    async def _insert_channel(
        self,
        *,
        escrow: Escrow,
        address: MerchantAddress,
        label: str,
        deposit: int,
        merchant_deposit: int,
        params: methods.EstablishParams,
        digest: bytes,
    ) -> OperationRow:
        from zkchannels.abacus import channel_id  # noqa: PLC0415 - not needed for READY

        account = self._parts.gateway.account
        assert account is not None
        salt, operation = secrets.token_bytes(32), _new_operation()
        channel = channel_id(escrow.chain_id, escrow.escrow, account, salt).to_bytes(32)

        writes = Writes()
        channels.insert_escrow(writes, escrow)
        channels.insert_channel(
            writes,
            channel=channel,
            label=label,
            escrow=escrow.escrow,
            host=address.host,
            port=address.port,
            salt=salt,
            customer_deposit=deposit,
            merchant_deposit=merchant_deposit,
        )
        queued = operations.insert_operation(
            writes,
            operation=operation,
            kind="establish",
            channel=channel,
            label=label,
            escrow=escrow.escrow,
            customer_balance=deposit,
            amount=deposit,
            note=params.note,
            force=False,
            parameters=digest,
            idempotency_key=params.idempotency_key,
        )

        try:
            at = await self._parts.store.write(writes)
            return msgspec.structs.replace(queued, created=at, updated=at)
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name == "channel_label_key":
                raise _label_taken(label) from None
            raise failure("channel_busy", "the same request is being made") from None
        except CommitOutcomeUnknown:
            return await self._perhaps_written(operation)

    async def pay(self, params: methods.PayParams, peer: Peer) -> methods.Operation:
        """Queue a payment."""
        return await self._pay("pay", params, scope_of(peer))

    async def refund(self, params: methods.PayParams, _peer: Peer) -> methods.Operation:
        """Queue a payment with a negative amount."""
        return await self._pay("refund", params, OWNER)

    async def _pay(
        self, kind: Literal["pay", "refund"], params: methods.PayParams, scope: Scope
    ) -> methods.Operation:
        digest, key = _digest(kind, params), params.idempotency_key
        if scope.grant is not None and key is not None:
            # Keys are words of their callers: one must not come upon another's operation.
            key = f"token {scope.name} {key}"
        first = await self._repeated(key, digest)
        if first is not None:
            return await self._answer(first, wait=params.wait)
        row = await self._by_label(params.label, scope)
        escrow = await self._escrow_of(row)
        amount = _parse(escrow.asset, params.amount)
        if amount <= 0:
            raise failure("amount_too_small", "an amount is positive")
        if row.state not in PAYABLE:
            raise failure("wrong_status", f"the channel {row.label!r} is {row.status}")
        held = row.customer_balance if kind == "pay" else row.merchant_balance
        if amount > held:
            side = "" if kind == "pay" else "on the merchant's side "
            raise failure(
                "insufficient_balance",
                f"the channel {row.label!r} holds {side}{escrow.asset.format(held)}",
            )
        queued = await self._insert(
            kind,
            row,
            amount if kind == "pay" else -amount,
            note=params.note,
            digest=digest,
            key=key,
            scope=scope,
        )
        return await self._submitted(queued, wait=params.wait, channel=row)

    async def close(self, params: methods.CloseParams, _peer: Peer) -> methods.Operation:
        """Queue a close."""
        digest = _digest("close", params)
        first = await self._repeated(params.idempotency_key, digest)
        if first is not None:
            return await self._answer(first, wait=params.wait)
        row = await self._by_label(params.label)
        record = await self._parts.watcher.record(row.channel)
        if row.state in (Status.NEW, Status.CLOSED) or record.status in (
            ChannelStatus.ABSENT,
            ChannelStatus.AWAITING_MERCHANT,
        ):
            raise failure(
                "wrong_status",
                f"the channel {row.label!r} is {row.status} and "
                f"{record.status.name.lower()} on chain",
            )
        queued = await self._insert(
            "close", row, None, force=params.force, digest=digest, key=params.idempotency_key
        )
        return await self._submitted(queued, wait=params.wait)

    async def _insert(
        self,
        kind: str,
        row: Channel,
        amount: int | None,
        *,
        digest: bytes,
        key: str | None,
        note: str = "",
        force: bool = False,
        scope: Scope = OWNER,
    ) -> OperationRow:
        operation = _new_operation()

        writes = Writes()
        queued = operations.insert_operation(
            writes,
            operation=operation,
            kind=kind,
            channel=row.channel,
            label=row.label,
            escrow=row.escrow,
            customer_balance=row.customer_balance,
            amount=amount,
            note=note,
            force=force,
            parameters=digest,
            idempotency_key=key,
            token=None if scope.grant is None else scope.grant.token,
        )
        if scope.grant is not None:
            await self._charge(writes, scope.grant, row, queued)

        try:
            at = await self._parts.store.write(writes)
            return msgspec.structs.replace(queued, created=at, updated=at)
        except token_queries.TokenRevoked:
            raise failure("forbidden", "the token was revoked") from None
        except token_queries.LimitReached:
            raise failure(
                "spending_limit", "the payment is more than the token's limit leaves"
            ) from None
        except psycopg.errors.UniqueViolation:
            assert key is not None
            first = await self._repeated(key, digest)
            assert first is not None
            return first
        except CommitOutcomeUnknown:
            return await self._perhaps_written(operation)

    async def _charge(
        self, writes: Writes, grant: Grant, row: Channel, queued: OperationRow
    ) -> None:
        """Have a payment taken from the limits of its token by the commit that queues it."""
        escrow = await self._escrow_of(row)
        limits = grant.limits_for(escrow.token)
        if limits is None or queued.kind != "pay" or queued.amount is None:
            raise failure("forbidden", f"the token may not spend {escrow.symbol}")
        token_queries.charge(
            writes,
            token=grant.token,
            operation=queued.operation,
            amount=queued.amount * escrow.unit,
            limits=limits,
        )

    async def _perhaps_written(self, operation: bytes) -> OperationRow:
        """Return the operation if its lost commit took place; raises its error when it did not.

        Where that cannot be read yet the operation is taken up, if it is there, once it can: the
        caller is told under which id.
        """
        try:
            written = await operations.operation_by_id(self._parts.store.database, operation)
        except DatabaseUnavailable:
            self._parts.runner.look_again()
            raise failure(
                "database_unavailable",
                "the connection was lost while this was written: it may be done once it is back",
                operation=operation.hex(),
                hint="ask for this operation before trying again; if it is not found, try again",
            ) from None
        if written is None:
            raise failure("database_unavailable", "PostgreSQL did not take it: nothing was done")
        return written

    async def _repeated(self, key: str | None, digest: bytes) -> OperationRow | None:
        """Return the operation of an earlier call with this key; refuse other parameters."""
        if key is None:
            return None
        row = await operations.operation_by_key(self._parts.store.database, key)
        if row is not None and not row.ended:
            self._parts.runner.submit(row)
        if row is not None and row.parameters != digest:
            raise failure(
                "idempotency_mismatch",
                "this idempotency key was used with other parameters",
                operation=row.operation.hex(),
            )
        return row

    async def _submitted(
        self, row: OperationRow, *, wait: bool, channel: Channel | None = None
    ) -> methods.Operation:
        if not row.ended:
            self._parts.runner.submit(row, channel=channel)
        try:
            return await self._answer(row, wait=wait)
        except DatabaseUnavailable:
            raise failure(
                "database_unavailable",
                "PostgreSQL does not answer; the operation is written and goes on",
                operation=row.operation.hex(),
            ) from None

    async def _answer(self, row: OperationRow, *, wait: bool) -> methods.Operation:
        """Show the operation, with `wait` once it ended; a refused one is an error."""
        if wait:
            _rest(row.operation)
            ended = await self._parts.runner.wait(row.operation)
            row = ended or await self._row(row.operation)
            if row.status in ("refused", "cancelled"):
                raise failure(
                    row.error_kind or "cancelled",
                    row.error_message or "",
                    operation=row.operation.hex(),
                )
        return await self._show_operation(row)

    async def _row(self, operation: bytes, scope: Scope = OWNER) -> OperationRow:
        """Return an operation; one that may not be seen is not there."""
        row = await operations.operation_by_id(self._parts.store.database, operation)
        if row is None or not scope.sees(row.channel):
            raise failure("not_found", "no such operation", hint="see `customerctl operations`")
        return row

    async def _escrow_of(self, row: Channel) -> Escrow:
        return await self._parts.store.escrow(row.escrow)

    async def _show_operation(self, row: OperationRow) -> methods.Operation:
        asset, held = None, None
        if row.escrow is not None and row.customer_balance is not None:
            asset = (await self._parts.store.escrow(row.escrow)).asset
            held = views.amount(asset, row.customer_balance)
        return views.operation(row, asset, held)

    async def operations(self, params: methods.OperationsParams, peer: Peer) -> methods.Operations:
        """List operations."""
        channel = None
        if params.label is not None:
            known = await channels.channel_by_label(self._parts.store.database, params.label)
            channel = b"" if known is None else known.channel
        rows = await operations.operations(
            self._parts.store.database,
            channel=channel,
            label=params.label,
            status=params.status,
            limit=params.limit,
            visible=scope_of(peer).channels,
        )
        return methods.Operations(operations=[await self._show_operation(row) for row in rows])

    async def operation(self, params: methods.OperationParams, peer: Peer) -> methods.Operation:
        """Show one operation."""
        row = await self._row(bytes.fromhex(params.operation), scope_of(peer))
        return await self._show_operation(row)

    async def wait(self, params: methods.WaitParams, peer: Peer) -> methods.Operation:
        """Wait for an operation's end; running out of time does not touch it."""
        operation = bytes.fromhex(params.operation)
        await self._row(operation, scope_of(peer))
        _rest()
        try:
            async with asyncio.timeout(_left(params.timeout)):
                ended = await self._parts.runner.wait(operation)
        except TimeoutError:
            raise failure(
                "timed_out", "the operation goes on", operation=params.operation
            ) from None
        return await self._show_operation(ended or await self._row(operation))

    async def cancel(self, params: methods.OperationParams, _peer: Peer) -> methods.Operation:
        """Cancel an operation that has bound nothing yet."""
        row = await self._row(bytes.fromhex(params.operation))
        if row.status != "cancelled" and not await self._parts.runner.cancel(row):
            raise failure(
                "channel_busy",
                f"the operation is {row.status} and cannot be cancelled any more",
                operation=params.operation,
            )
        return await self._show_operation(await self._row(row.operation))

    async def estimate(self, params: methods.EstimateParams, peer: Peer) -> methods.Estimate:
        """Say what an operation would cost and take."""
        scope = scope_of(peer)
        row = None if params.label is None else await self._by_label(params.label, scope)
        escrow = None if row is None else await self._escrow_of(row)
        return await estimate(
            params,
            client=self._parts.watcher.client,
            fees=await self._parts.watcher.fees(),
            escrow=escrow,
            native=Asset(self._parts.native_symbol, 18, 1),
        )

    # -- the daemon itself --------------------------------------------------------------------

    async def subscribe(self, params: methods.SubscribeParams, peer: Peer) -> methods.Subscribed:
        """Send events on this connection from now on, or from where the client left off."""
        return await self._subscriptions.subscribe(params, peer, scope_of(peer))

    @property
    def subscriptions(self) -> Subscriptions:
        """What is sent to subscribers."""
        return self._subscriptions

    def stop(self, _params: methods.NoParams, _peer: Peer) -> methods.Stopping:
        """End the daemon once this answer is on its way."""
        asyncio.get_running_loop().call_soon(self._parts.stop)
        return methods.Stopping(pid=os.getpid())

    def reload(self, _params: methods.NoParams, _peer: Peer) -> methods.Reloaded:
        """Read the configuration again and apply what can be."""
        try:
            return self._parts.reload()
        except ConfigurationError as error:
            raise failure(
                "invalid_configuration", str(error), hint="everything is as it was before"
            ) from None

    def help(self, params: methods.HelpParams, _peer: Peer) -> methods.Help:
        """Explain one method or all."""
        chosen = [m for m in METHODS if params.method in (None, m.name)]
        if not chosen:
            raise failure("not_found", f"no method is called {params.method!r}")
        return methods.Help(
            methods=[
                methods.MethodHelp(
                    name=m.name, summary=m.summary, needs=m.needs, errors=list(m.errors)
                )
                for m in chosen
            ]
        )

    def discover(self, _params: methods.NoParams, _peer: Peer) -> dict[str, Any]:
        """Describe this RPC as an OpenRPC document."""
        return openrpc("customerd", VERSION, METHODS)


def _new_operation() -> bytes:
    """Return a new id, noted for whoever goes on with this call: is there such an operation?"""
    operation = secrets.token_bytes(16)
    call = current_call()
    if call is not None:
        call.note = operation
    return operation


def _rest(operation: bytes = b"") -> None:
    """Say that the call only waits from now on, for the operation that it brought about."""
    call = current_call()
    if call is not None:
        call.note = operation
        call.rest()


def _left(timeout: float | None) -> float | None:
    """Return what is left of a call's time, which began under an earlier daemon perhaps."""
    call = current_call()
    if timeout is None or call is None:
        return timeout
    return max(0.0, timeout - call.age(asyncio.get_running_loop().time()))


def _parse(asset: Asset, value: str | int) -> int:
    if isinstance(value, int):
        return value
    try:
        return asset.parse(value)
    except AmountError as error:
        raise failure("invalid_amount", str(error)) from None


def _address(text: str) -> MerchantAddress:
    try:
        return MerchantAddress.parse(text)
    except InvalidMerchantAddress as error:
        raise failure("invalid_address", str(error)) from None


def _label_taken(label: str) -> RpcError:
    return failure(
        "label_taken", f"another channel is called {label!r}", hint="choose one with --label"
    )


def _digest(kind: str, params: msgspec.Struct) -> bytes:
    """Digest of what a call asks for, without how it wants to be answered."""
    fields = msgspec.structs.asdict(params)
    fields.pop("wait", None)
    fields.pop("idempotency_key", None)
    return hashlib.sha256(msgspec.json.encode([kind, sorted(fields.items())])).digest()
