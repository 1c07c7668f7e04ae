"""A peer that speaks the owner RPC over a real socket, with its records in memory.

It answers every method of METHODS with the method's own result type, and lets a test hold an
operation at a step, refuse a method, or die.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from customerd.rpc import methods
from customerd.rpc.errors import failure
from customerd.rpc.methods import METHODS
from zkchannels.amounts import AmountError, Asset
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import openrpc
from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import serve
from zkchannels.service.sockets import bind_owner_only

ETHER = Asset("ETH", 18, 10**9)
ESCROW = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
ACCOUNT = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
GUARD = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STEPS = {
    "establish": ("propose", "prove", "authorize", "fund", "activate", "complete"),
    "pay": ("propose", "prove", "authorize", "revoke", "complete"),
    "refund": ("propose", "prove", "authorize", "revoke", "complete"),
    "close": ("decide", "agree", "settle"),
}


def ether(units: int) -> methods.Amount:
    """Write units (1 gwei) as an amount."""
    return methods.Amount(units=units, text=ETHER.format(units))


def channel(label: str, *, customer: int = 100_000_000, merchant: int = 0) -> methods.Channel:
    """Return an open channel."""
    return methods.Channel(
        label=label,
        channel="0x" + "1f" * 32,
        merchant=f"zkchannel://{label}.example/{ESCROW}",
        escrow=ESCROW,
        chain_id=31337,
        symbol="ETH",
        status="idle",
        chain_status="open",
        customer_balance=ether(customer),
        merchant_balance=ether(merchant),
        customer_deposit=ether(customer + merchant),
        merchant_deposit=ether(0),
        index=0,
        deadline=None,
        operation=None,
        created=time.time() - 3600,
    )


class Owner:
    """The peer; tests read and set its attributes between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels = {"coffee": channel("coffee")}
        self.operations: dict[str, methods.Operation] = {}
        self.calls: list[tuple[str, Any]] = []
        self.refusals: dict[str, RpcError] = {}
        """Methods that answer with an error."""
        self.refused_operation: methods.Failure | None = None
        """How the next operations end."""
        self.receipt: bool | None = True
        self.note: str | None = "enjoy your espresso"
        self.missing: list[str] = []
        self.alarms: list[methods.Alert] = []
        self.accept = True
        self.hold_at: tuple[str, ...] = ()
        """Steps at which operations wait for `go_on`."""
        self.silent: frozenset[str] = frozenset()
        """Methods that are never answered."""
        self.announced: frozenset[str] = frozenset()
        """Methods whose calls are counted in `held`."""
        self.held = threading.Semaphore(0)
        """Counts arrivals at held steps, and calls that are unanswered or announced."""
        self._events: list[methods.HistoryEvent] = []
        self._subscribers: dict[Peer, methods.SubscribeParams] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._released: asyncio.Semaphore
        self._main: asyncio.Task[None]
        self._loop: asyncio.AbstractEventLoop
        self._group: asyncio.TaskGroup
        self._connections: set[Peer] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="owner")

    def __enter__(self) -> Owner:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._end(abort=False)

    def await_held(self) -> None:
        """Return once one more of what `held` counts has happened."""
        assert self.held.acquire(timeout=10), "nothing was held"

    def go_on(self) -> None:
        """Let one held operation go on."""
        self._soon(self._released.release)

    def publish(self, topic: methods.Topic, kind: str, **fields: Any) -> None:
        """Record an event and send it to subscribers."""
        self._soon(lambda: self._publish(topic, kind, **fields))

    def die(self) -> None:
        """Cut all connections and stop listening; the socket's file stays."""
        self._end(abort=True)

    def _end(self, *, abort: bool) -> None:
        def end() -> None:
            for peer in list(self._connections) if abort else ():
                peer.abort()
            self._main.cancel()

        if self._thread.is_alive():
            self._soon(end)
        self._thread.join()

    def _soon(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        assert main is not None
        self._main = main
        self._released = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            self._group = group
            handlers = Handlers(task_group=group, check_results=True)
            for method in METHODS:
                answer = getattr(self, "_" + method.name.replace("-", "_").replace(".", "_"))
                handlers.register(method, self._observed(method.name, answer))

            def connected() -> Peer:
                peer = Peer(handlers, name="owner", on_closed=self._left)
                self._connections.add(peer)
                return peer

            async with serve(
                bind_owner_only(self.path), connected, accept=lambda _transport: self.accept
            ):
                self._ready.set()
                await asyncio.Event().wait()

    def _left(self, peer: Peer) -> None:
        self._connections.discard(peer)
        self._subscribers.pop(peer, None)

    def _observed(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(params: Any, peer: Peer) -> Any:
            self.calls.append((name, params))
            if name in self.silent | self.announced:
                self.held.release()
            if name in self.silent:
                await asyncio.Event().wait()
            if name in self.refusals:
                raise self.refusals[name]
            result = answer(params, peer)
            return await result if asyncio.iscoroutine(result) else result

        return handle

    # -- the methods -------------------------------------------------------------------------------

    def _getinfo(self, _params: methods.NoParams, _peer: Peer) -> methods.Info:
        return methods.Info(
            version="0.1.0",
            mode="safe" if self.missing else "ready",
            missing=self.missing,
            chain=methods.ChainInfo(
                chain_id=31337,
                head=19233410,
                head_time=int(time.time()) - 3,
                final=19233346,
                following="chain_unavailable" not in self.missing,
            ),
            database="database_unavailable" not in self.missing,
            signer=self._signer_status(methods.NoParams(), _peer),
            guard=GUARD,
            guard_balance="0.25 ETH",
            channels=len(self.channels),
            operations=len(self._ended),
            alarms=self.alarms,
            pid=4242,
            uptime=3725.5,
        )

    def _signer_status(self, _params: methods.NoParams, _peer: Peer) -> methods.SignerInfo:
        attached = "safe_mode" not in self.missing
        return methods.SignerInfo(
            attached=attached,
            compared=attached,
            identity=ACCOUNT,
            account=ACCOUNT,
            generation=3,
            policies=["per-payment 0.01 ETH", "per-day 0.1 ETH"],
            since=time.time() - 60,
        )

    def _balance(self, _params: methods.NoParams, _peer: Peer) -> methods.Balance:
        spendable = sum(row.customer_balance.units for row in self.channels.values())
        refundable = sum(row.merchant_balance.units for row in self.channels.values())
        asset = methods.AssetBalance(
            symbol="ETH",
            escrow=ESCROW,
            spendable=ether(spendable),
            refundable=ether(refundable),
            closing=ether(0),
        )
        return methods.Balance(
            assets=[asset] if self.channels else [],
            account=ACCOUNT,
            account_balance="9.99 ETH",
            guard=GUARD,
            guard_balance="0.25 ETH",
        )

    def _list(self, _params: methods.NoParams, _peer: Peer) -> methods.Channels:
        return methods.Channels(channels=list(self.channels.values()))

    def _show(self, params: methods.LabelParams, _peer: Peer) -> methods.Channel:
        return self._channel(params.label)

    def _channel(self, label: str) -> methods.Channel:
        if label not in self.channels:
            raise failure(
                "not_found", f"no channel is called {label!r}", hint="see `customerctl list`"
            )
        return self.channels[label]

    def _rename(self, params: methods.RenameParams, _peer: Peer) -> methods.Channel:
        row = replace(self._channel(params.label), label=params.new_label)
        if params.new_label in self.channels:
            raise failure("label_taken", f"another channel is called {params.new_label!r}")
        del self.channels[params.label]
        self.channels[params.new_label] = row
        return row

    def _history(self, params: methods.HistoryParams, _peer: Peer) -> methods.History:
        events = [
            event
            for event in reversed(self._events)
            if params.label in (None, event.label)
            and params.operation in (None, event.operation)
            and (params.before is None or event.seq < params.before)
        ]
        return methods.History(events=events[: params.limit])

    async def _establish(self, params: methods.EstablishParams, _peer: Peer) -> methods.Operation:
        label = params.label or "merchant.example"
        deposit = self._units(params.deposit)
        self.channels[label] = channel(label, customer=deposit)
        return await self._operate("establish", label, deposit, params)

    async def _pay(self, params: methods.PayParams, _peer: Peer) -> methods.Operation:
        return await self._move("pay", params)

    async def _refund(self, params: methods.PayParams, _peer: Peer) -> methods.Operation:
        return await self._move("refund", params)

    async def _move(
        self, kind: methods.OperationKind, params: methods.PayParams
    ) -> methods.Operation:
        row, units = self._channel(params.label), self._units(params.amount)
        if kind == "pay" and units > row.customer_balance.units:
            raise failure(
                "insufficient_balance",
                f"the channel {row.label!r} holds {row.customer_balance.text}",
            )
        return await self._operate(kind, row.label, units, params)

    async def _close(self, params: methods.CloseParams, _peer: Peer) -> methods.Operation:
        self._channel(params.label)
        return await self._operate("close", params.label, None, params)

    def _units(self, amount: str | int) -> int:
        if isinstance(amount, int):
            return amount
        try:
            return ETHER.parse(amount)
        except AmountError as error:
            raise failure("invalid_amount", str(error)) from None

    async def _operate(
        self, kind: methods.OperationKind, label: str, units: int | None, params: Any
    ) -> methods.Operation:
        identity = uuid.uuid4().hex
        now = time.time()
        self.operations[identity] = methods.Operation(
            operation=identity,
            kind=kind,
            label=label,
            status="queued",
            step=None,
            amount=None if units is None else ether(units),
            receipt=None,
            service_note=None,
            error=None,
            created=now,
            updated=now,
            steps=[],
        )
        self._ended[identity] = asyncio.Event()
        self._tell(identity, "queued")
        self._group.create_task(self._work(identity))
        if params.wait:
            await self._ended[identity].wait()
        return self.operations[identity]

    def _tell(self, identity: str, kind: str, **details: Any) -> None:
        row = self.operations[identity]
        details = {"operation_kind": row.kind, **details}
        self._publish("operation", kind, label=row.label, operation=identity, details=details)

    async def _work(self, identity: str) -> None:
        for step in STEPS[self.operations[identity].kind]:
            row = self.operations[identity]
            if row.status == "cancelled":
                return
            steps = [replace(s, finished=s.finished or time.time()) for s in row.steps]
            self.operations[identity] = replace(
                row,
                status="running",
                step=step,
                steps=[*steps, methods.Step(step, time.time(), None)],
            )
            self._tell(identity, "step", step=step)
            if step in self.hold_at:
                self.held.release()
                await self._released.acquire()
        self._finish(identity)

    def _finish(self, identity: str) -> None:
        row = self.operations[identity]
        if row.status == "cancelled":
            return
        steps = [replace(s, finished=s.finished or time.time()) for s in row.steps]
        row = replace(row, updated=time.time(), steps=steps)
        if self.refused_operation is not None:
            row = replace(row, status="refused", error=self.refused_operation)
        else:
            row = replace(row, status="done")
            if row.kind in ("pay", "refund"):
                row = replace(row, receipt=self.receipt, service_note=self.note)
                assert row.amount is not None
                self._pay_out(row.label, row.amount.units * (1 if row.kind == "pay" else -1))
            if row.kind == "close":
                closed = replace(self.channels[row.label], status="closed", chain_status="closed")
                self.channels[row.label] = closed
        held = self.channels.get(row.label)
        row = replace(row, customer_balance=None if held is None else held.customer_balance)
        self.operations[identity] = row
        self._tell(identity, row.status, step=row.step)
        self._ended.pop(identity).set()

    def _pay_out(self, label: str, units: int) -> None:
        row = self.channels[label]
        self.channels[label] = replace(
            row,
            index=row.index + 1,
            customer_balance=ether(row.customer_balance.units - units),
            merchant_balance=ether(row.merchant_balance.units + units),
        )

    def _estimate(self, params: methods.EstimateParams, _peer: Peer) -> methods.Estimate:
        sends = ["close", "claim"] if params.force else ["mutual_close"]
        return methods.Estimate(
            transactions=sends,
            gas=412_345,
            fee="0.0031 ETH",
            seconds=172_824.0,
            notes=["the money is paid out after the delay"],
        )

    def _operations(self, params: methods.OperationsParams, _peer: Peer) -> methods.Operations:
        rows = [
            row
            for row in reversed(self.operations.values())
            if params.label in (None, row.label) and params.status in (None, row.status)
        ]
        return methods.Operations(operations=rows[: params.limit])

    def _operation(self, params: methods.OperationParams, _peer: Peer) -> methods.Operation:
        if params.operation not in self.operations:
            raise failure("not_found", "no such operation", hint="see `customerctl operations`")
        return self.operations[params.operation]

    async def _wait(self, params: methods.WaitParams, peer: Peer) -> methods.Operation:
        self._operation(methods.OperationParams(params.operation), peer)
        ended = self._ended.get(params.operation)
        if ended is not None:
            try:
                async with asyncio.timeout(params.timeout):
                    await ended.wait()
            except TimeoutError:
                raise failure(
                    "timed_out", "the operation goes on", operation=params.operation
                ) from None
        return self.operations[params.operation]

    def _cancel(self, params: methods.OperationParams, peer: Peer) -> methods.Operation:
        row = self._operation(params, peer)
        if row.status == "done":
            raise failure("channel_busy", "the operation is done and cannot be cancelled any more")
        error = methods.Failure(kind="cancelled", message="cancelled before anything was bound")
        self.operations[row.operation] = replace(row, status="cancelled", error=error)
        self._tell(row.operation, "cancelled")
        self._ended.pop(row.operation).set()
        return self.operations[row.operation]

    def _subscribe(self, params: methods.SubscribeParams, peer: Peer) -> methods.Subscribed:
        after = len(self._events) if params.after is None else params.after
        self._subscribers[peer] = params
        for event in self._events[after:]:
            self._send(peer, event)
        return methods.Subscribed(after=after)

    def _publish(self, topic: methods.Topic, kind: str, **fields: Any) -> None:
        fields = {"label": None, "operation": None, "details": {}, **fields}
        event = methods.HistoryEvent(
            seq=len(self._events) + 1, time=time.time(), topic=topic, kind=kind, **fields
        )
        self._events.append(event)
        for peer in list(self._subscribers):
            self._send(peer, event)

    def _send(self, peer: Peer, event: methods.HistoryEvent) -> None:
        topics = self._subscribers[peer].topics
        if not peer.closed and (not topics or event.topic in topics):
            peer.notify("event", event)

    def _recover(self, params: methods.RecoverParams, _peer: Peer) -> methods.Recoveries:
        known = [row for row in self.channels.values() if params.label in (None, row.label)]
        return methods.Recoveries(
            recoveries=[
                methods.Recovery(
                    label=row.label,
                    channel=row.channel,
                    status="waiting",
                    index=7,
                    customer_balance=row.customer_balance,
                    message="the merchant does not answer",
                    operation="0" * 32,
                )
                for row in known
            ]
        )

    def _resume(self, params: methods.ResumeParams, _peer: Peer) -> methods.Resumed:
        return methods.Resumed(operations=[params.operation or "0" * 32])

    def _backup(self, params: methods.FileParams, _peer: Peer) -> methods.BackedUp:
        return methods.BackedUp(file=params.file, size=12345, channels=len(self.channels))

    def _restore(self, _params: methods.FileParams, _peer: Peer) -> methods.Restored:
        rows = [
            methods.RestoredChannel(row.label, "suspect", "open", 7, stale=True)
            for row in self.channels.values()
        ]
        return methods.Restored(channels=rows, missing=["0x" + "ab" * 32], age=90.0, held=2)

    def _signer_pair(self, params: methods.SignerPairParams, _peer: Peer) -> methods.SignerPairing:
        address = params.address or "home.example:9738"
        line = f"customerd-pair-1,{address},{'5c' * 32},{'a' * 26},2000000000"
        return methods.SignerPairing(line, "█▀▄█\n█ ▄█\n", address, "5c" * 32, 2_000_000_000)

    def _signer_address(
        self, params: methods.SignerAddressParams, _peer: Peer
    ) -> methods.SignerAddress:
        address = params.address or "standby.example:9738"
        line = f"customerd-also-1,{address},{'5c' * 32}"
        return methods.SignerAddress(line, "█▀▄█\n█ ▄█\n", address, "5c" * 32)

    def _signer_forget(self, _params: methods.NoParams, _peer: Peer) -> methods.SignerForgotten:
        return methods.SignerForgotten(ACCOUNT, "5c" * 32)

    def _token_create(self, params: methods.TokenCreateParams, _peer: Peer) -> methods.TokenCreated:
        return methods.TokenCreated("ab" * 16, "AgEJY3VzdG9tZXJk", [",".join(params.methods)])

    def _token_list(self, _params: methods.NoParams, _peer: Peer) -> methods.TokenRows:
        token = methods.TokenInfo(
            id="ab" * 16,
            note="grafana",
            status="valid",
            methods=["getinfo", "pay"],
            channels=None,
            expires=2_000_000_000,
            rates=["10/1s"],
            spend="0.1 ETH",
            spent="0.04 ETH",
            created=1_700_000_000.0,
            revoked=None,
        )
        return methods.TokenRows([token])

    def _token_revoke(self, params: methods.TokenParams, _peer: Peer) -> methods.TokenRevoked:
        return methods.TokenRevoked(params.id)

    def _metrics(self, _params: methods.NoParams, _peer: Peer) -> methods.Metrics:
        return methods.Metrics(
            text="# TYPE customerd_channels gauge\ncustomerd_channels 1\n# EOF\n"
        )

    def _reload(self, _params: methods.NoParams, _peer: Peer) -> methods.Reloaded:
        return methods.Reloaded(applied=["log_level"], restart=["database.dsn"])

    def _stop(self, _params: methods.NoParams, _peer: Peer) -> methods.Stopping:
        self._loop.call_soon(self._main.cancel)
        return methods.Stopping(pid=4242)

    def _help(self, params: methods.HelpParams, _peer: Peer) -> methods.Help:
        return methods.Help(
            methods=[
                methods.MethodHelp(m.name, m.summary, m.needs, list(m.errors))
                for m in METHODS
                if params.method in (None, m.name)
            ]
        )

    def _rpc_discover(self, _params: methods.NoParams, _peer: Peer) -> dict[str, Any]:
        return openrpc("customerd", "0.1.0", METHODS)
