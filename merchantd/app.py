"""Starts and stops the merchant: the only place that knows every part, and one TaskGroup."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merchantd.approver import Approver, AutomaticApprover, HttpApprover
from merchantd.chainview import FollowedChain
from merchantd.config import PASSWORD, TLS_KEY, check_margin
from merchantd.errors import KeyMismatch, MerchantError, NotInitialised
from merchantd.handlers import Identity, MerchantHandlers
from merchantd.initialise import check_deployment, load_account
from merchantd.keyfile import load_key
from merchantd.notices import deliver_notices
from merchantd.server import serve
from merchantd.store.escrow import EscrowRow, read_escrow
from merchantd.store.lease import Lease
from merchantd.store.records import Records
from merchantd.store.schema import migrate_all
from merchantd.terms import ServedEscrow
from merchantd.transactions import make_lane
from merchantd.trust import Trust, Witness, keep_witness
from merchantd.watcher import Watcher
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import ChainFailure
from zkchannels.chain.follower import Follower
from zkchannels.chain.store import ChainStore
from zkchannels.escrow.ethereum import checksum
from zkchannels.jsonrpc.handlers import Handlers
from zkchannels.service.logging import get_logger, tell_missing
from zkchannels.service.notify import Notifier
from zkchannels.service.process import keep_memory_private
from zkchannels.service.secretfile import credential, credential_path
from zkchannels.service.sockets import listen_fds
from zkchannels.service.tls import server_context
from zkchannels.store.database import Database, DatabaseUnavailable
from zkchannels.store.errors import StoreError

if TYPE_CHECKING:
    from merchantd.config import Settings

_log = get_logger("merchantd")


_REPORT_EVERY = 5.0
_SETTLE_WITHIN = 1.0
"""Seconds that the end leaves to what is being written."""
_START_TIME = 60.0
"""Seconds that systemd is asked for while PostgreSQL is waited for, again and again."""


class _Stop(Exception):
    """A signal asked for the end."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is there before anything runs."""

    database: Database
    client: ChainClient
    escrow: ServedEscrow
    identity: Identity
    context: ssl.SSLContext
    approver: Approver
    witness: Witness


async def run(settings: Settings) -> None:
    """Serve and watch until SIGTERM or SIGINT; raises MerchantError when it cannot begin."""
    keep_memory_private()
    notifier = Notifier.from_environment()
    failure: BaseException | None = None
    async with AsyncExitStack() as stack:
        parts = await _prepare(settings, stack, notifier)
        try:
            async with asyncio.TaskGroup() as group:
                await _start(settings, parts, group, stack, notifier)
        except* _Stop:
            _log.info("stopping")
        except* (MerchantError, ChainFailure, StoreError) as errors:
            failure = _first(errors)
        finally:
            notifier.stopping()
    if failure is not None:
        raise failure


async def _prepare(settings: Settings, stack: AsyncExitStack, notifier: Notifier) -> _Parts:
    database = Database(
        settings.database, application_name="merchantd", password=credential(PASSWORD)
    )
    stack.push_async_callback(database.aclose)
    row = await _read_escrow(database, notifier)
    if row is None or row.address is None:
        raise NotInitialised("run `merchantd init` first")
    check_margin(settings, row.delay)
    key = load_key(Path(settings.keys.merchant), row.installation)
    account = load_account(Path(settings.keys.account))
    if key.public.digest != row.key_digest or account.address != row.merchant:
        raise KeyMismatch("the key files are not those that the escrow was made with")
    client = ChainClient(settings.chain.endpoints, chain_id=row.chain_id)
    stack.push_async_callback(client.aclose)
    approver = _approver(settings)
    stack.push_async_callback(approver.aclose)
    return _Parts(
        database=database,
        client=client,
        escrow=ServedEscrow(row.terms, row.address),
        identity=Identity(key, account),
        context=server_context(
            Path(settings.listen.certificate),
            credential_path(TLS_KEY) or Path(settings.listen.private_key),
        ),
        approver=approver,
        witness=Witness(Path(settings.keys.merchant).with_suffix(".witness"), row.installation),
    )


async def _read_escrow(database: Database, notifier: Notifier) -> EscrowRow | None:
    """Bring the schema up to date and read the escrow, however long PostgreSQL is away."""
    while True:
        try:
            await database.connect()
            await migrate_all(database)
            return await read_escrow(database)
        except DatabaseUnavailable as error:
            notifier.status(f"waiting for PostgreSQL: {error}")
            _log.warning("waiting_for_database", reason=str(error))
        while True:
            notifier.more_time(_START_TIME)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_TIME / 2):
                    await database.wait_available()
                    break


async def _start(
    settings: Settings,
    parts: _Parts,
    group: asyncio.TaskGroup,
    stack: AsyncExitStack,
    notifier: Notifier,
) -> None:
    _stop_on_signals(group, parts.database)
    lease = Lease(parts.database)
    await lease.take()
    stack.push_async_callback(lease.release)
    group.create_task(lease.hold(), name="lease")
    records = Records(parts.database)
    trust = Trust()
    parts.witness.check(await records.reached(), trust)
    group.create_task(keep_witness(records, parts.witness, trust), name="witness")
    chain = ChainStore(parts.database)
    view = FollowedChain(chain, delay=parts.escrow.terms.delay)
    watcher = Watcher(
        escrow=parts.escrow,
        records=records,
        chain=chain,
        client=parts.client,
        lane=make_lane(settings, parts.client, parts.database, parts.identity.account),
        view=view,
        trust=trust,
        margin=settings.margin,
    )
    follower = Follower(
        parts.client,
        chain,
        lambda: frozenset({parts.escrow.address}),
        watcher.on_change,
        confirmations=settings.chain.confirmations,
        poll=settings.chain.poll,
    )
    group.create_task(watcher.run(follower), name="watcher")
    if settings.approver.url is not None:
        group.create_task(deliver_notices(records, parts.approver), name="notices")
    group.create_task(_check(parts, follower, view), name="deployment")
    handlers = Handlers(task_group=group)
    confirmations = settings.chain.confirmations
    MerchantHandlers(
        escrow=parts.escrow,
        identity=parts.identity,
        records=records,
        view=view,
        trust=trust,
        approver=parts.approver,
        limits=settings.limits,
        confirmations=0 if confirmations == "finalized" else confirmations,
    ).register(handlers)
    addresses = await stack.enter_async_context(
        serve(
            handlers,
            listen=settings.listen,
            limits=settings.limits,
            context=parts.context,
            group=group,
            sockets=[sock for sockets in listen_fds().values() for sock in sockets],
        )
    )
    group.create_task(_report(notifier, view, trust), name="reports")
    where = ", ".join(f"{host}:{port}" for host, port, *_ in addresses)
    escrow = checksum(parts.escrow.address)
    _log.info("serving", address=where, escrow=escrow)
    notifier.ready(f"serving {escrow} on {where}")


async def _report(notifier: Notifier, view: FollowedChain, trust: Trust) -> None:
    """Give systemd its signs of life, and tell when payments have to wait for the chain."""
    pause = min(notifier.watchdog_interval or _REPORT_EVERY, _REPORT_EVERY)
    told = None
    while True:
        await asyncio.sleep(pause)
        notifier.watchdog()
        tell_missing()
        status = "serving" if view.fresh() else "payments wait: the view of the chain is old"
        if trust.reason:
            status = f"nothing new is signed: {trust.reason}"
        if status != told:
            notifier.status(status)
            told = status


async def _check(parts: _Parts, follower: Follower, view: FollowedChain) -> None:
    """Compare escrow and records once a node shows the present; KeyMismatch ends everything."""
    while True:
        await follower.changed()
        if not view.fresh():
            continue
        try:
            await check_deployment(parts.client, parts.escrow, parts.identity.key.public)
        except ChainFailure:
            continue
        return


def _approver(settings: Settings) -> Approver:
    if settings.approver.url is None:
        return AutomaticApprover(settings.approver.automatic_refunds)
    return HttpApprover(settings.approver.url, timeout=settings.approver.timeout)


def _stop_on_signals(group: asyncio.TaskGroup, database: Database) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)

    async def stop() -> None:
        await asked.wait()
        await database.settle_down(_SETTLE_WITHIN)
        raise _Stop

    group.create_task(stop(), name="signals")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
