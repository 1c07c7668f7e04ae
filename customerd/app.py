"""The daemon as a whole: start order, stop order, and the one group that owns every task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from customerd import VERSION
from customerd.channels import queries as channels
from customerd.channels.escrows import escrows
from customerd.channels.record import Channel, Status
from customerd.config import PASSWORD, Settings, Sockets
from customerd.merchants import Merchants
from customerd.operations.run import Surroundings
from customerd.operations.runner import Runner
from customerd.recovery import start
from customerd.recovery.journal import Journal
from customerd.reloading import changed, merged
from customerd.rpc import methods
from customerd.rpc.gate import Gate, verdict
from customerd.rpc.handover import Handover
from customerd.rpc.monitor import Monitor
from customerd.rpc.owner import Owner, Parts
from customerd.signing.compare import compare_all
from customerd.signing.gateway import Gateway
from customerd.signing.wallet import read_wallet
from customerd.status import Facts, describe, holdings
from customerd.store.events import Store
from customerd.store.lease import CHANNEL, LeasedDatabase, LeaseHeld, LeaseLost
from customerd.tokens.registry import Tokens, reload
from customerd.watch.accounts import GuardAccount
from customerd.watch.watcher import Watcher
from zkchannels.chain.client import ChainClient
from zkchannels.chain.store import COMPONENT as CHAIN
from zkchannels.jsonrpc.peer import Handlers, Peer
from zkchannels.jsonrpc.server import Server, serve
from zkchannels.service.configuration import ConfigurationError
from zkchannels.service.logging import get_logger, set_level, tell_missing
from zkchannels.service.notify import Notifier
from zkchannels.service.process import reap_orphans
from zkchannels.service.secretfile import SecretFileError, credential
from zkchannels.service.sockets import (
    bind_owner_only,
    bind_tcp,
    passed_fds,
    peer_credentials,
)
from zkchannels.store.database import DatabaseUnavailable
from zkchannels.store.errors import MigrationError
from zkchannels.store.migrate import Component, migrate
from zkchannels.wire.pairing import read_address, write_address

log = get_logger("customerd")

OWN = Component("customerd", "customerd.store")
STATUS_EVERY = 5.0
START_TIME = 60.0
"""Seconds that systemd is asked for while PostgreSQL is waited for, again and again."""
START_PATIENCE = 10.0
"""Seconds from the start that calls wait for what is just coming, instead of being refused."""
SETTLE_WITHIN = 1.0
"""Seconds that the end leaves to what is being written."""

Mode = Literal["starting", "standby", "safe", "ready", "stopping"]


class Daemon:
    """Everything the daemon consists of; `run` returns its exit code."""

    def __init__(
        self, settings: Settings, notifier: Notifier, *, read: Callable[[], Settings]
    ) -> None:
        """`read` reads the settings again; it raises ConfigurationError."""
        self._settings = settings
        self._read = read
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._asked_to_stop = False
        """Whether the owner asked for the end: nobody starts us again at once."""
        self._started = time.time()
        self._lost = False
        self._until = time.monotonic() + START_PATIENCE
        self._starting = True
        """Whether nothing has held up the start so far."""
        self._restarted = False
        """Whether an earlier daemon was ready a moment ago, and this one will be, too."""
        self._server: Server | None = None
        self._up = False
        self._holdings = ""
        self._standing_by = False
        self._standby = ""
        self._database = LeasedDatabase(
            settings.database.dsn,
            application_name="customerd",
            holder=_holder(settings.sockets.rpc),
            seconds=settings.database.lease,
            password=credential(PASSWORD),
        )
        self._store = Store(self._database)
        self._client = ChainClient(settings.chain.endpoints)
        self._watcher = Watcher(
            settings,
            self._store,
            self._client,
            GuardAccount.from_file(Path(settings.guard.key)),
        )
        self._merchants = Merchants(settings.merchant)
        self._gateway = Gateway(
            settings.signer,
            self._store,
            certificate=Path(settings.guard.key).with_name("signer-link.pem"),
            open_to_group=settings.sockets.signer_mode != "0600",
            compare=self._compare,
            on_ready=self._signer_came,
            on_lost=self._signer_left,
        )
        self._runner = Runner(
            Surroundings(settings, self._store, self._gateway, self._merchants, self._watcher)
        )
        self._watcher.recover = self._recover
        self._watcher.cause_of = self._runner.cause_of
        self._journal = Journal(settings.backup.directory, self._store, self._gateway)
        self._watcher.others = lambda: [*self._runner.alarms, *self._gateway.alarms]
        beside = Path(settings.guard.key).with_name("tokens.key")
        self._tokens = Tokens(Path(settings.tokens.key or beside), self._store)
        self._monitor = Monitor(self._tokens)
        self._gate = Gate(
            {
                "not_ready": lambda: self._up and not self._stop.is_set(),
                "database_unavailable": lambda: self._database.alive and not self._lost,
                "chain_unavailable": lambda: self._watcher.following,
                "safe_mode": lambda: self._gateway.ready,
            }
        )
        self._owner = Owner(
            Parts(
                store=self._store,
                watcher=self._watcher,
                gateway=self._gateway,
                merchants=self._merchants,
                runner=self._runner,
                gate=self._gate,
                journal=self._journal,
                tokens=self._tokens,
                monitor=self._monitor,
                waits=self._waits,
                settings=lambda: self._settings,
                reload=self.reload,
                native_symbol=settings.chain.symbol,
                mode=lambda: self.mode,
                stop=self._stop_for_good,
                started=self._started,
            )
        )
        self._handover = Handover(notifier, self._owner.subscriptions)

    @property
    def mode(self) -> Mode:
        """The daemon's life: starting (→ standby) → safe ⇄ ready → stopping."""
        if self._stop.is_set():
            return "stopping"
        if not self._up:
            return "standby" if self._standing_by else "starting"
        safe = {"safe_mode", "database_unavailable"} & set(self._gate.missing())
        return "safe" if safe else "ready"

    def _stop_for_good(self) -> None:
        self._asked_to_stop = True
        self._stop.set()

    def _waits(self, needs: str) -> bool:
        """Tell whether a call with these needs may wait for them, so soon after the start."""
        if time.monotonic() > self._until:
            return False
        condition = verdict(needs, self._gate.missing())
        if condition is None:
            return False
        return self._starting if condition.kind == "not_ready" else self._restarted

    def reload(self) -> methods.Reloaded:
        """Read the settings again and apply what can be; raises ConfigurationError."""
        running = self._up or self._standing_by
        if running:
            self._notifier.reloading()
        try:
            before, wanted = self._settings, self._read()
            self._settings = settings = merged(before, wanted)
            set_level(settings.log_level)
            self._merchants.use(settings.merchant)
            self._gateway.use(settings.signer)
            self._watcher.use(settings)
            self._runner.use(settings)
        finally:
            if running:
                self._notifier.ready(self._status())
        result = methods.Reloaded(
            applied=changed(before, settings), restart=changed(settings, wanted)
        )
        log.info("reloaded", applied=result.applied, restart=result.restart)
        return result

    def _reload_quietly(self) -> None:
        try:
            self.reload()
        except ConfigurationError as error:
            log.error("not_reloaded", reason=str(error))

    async def _compare(self, gateway: Gateway) -> None:
        await compare_all(gateway, self._store, self._watcher.guard_address)
        await self._runner.read_held()
        await self._tokens.load()  # some may have ended with a database that went back
        self._monitor.end_invalid()

    async def _recover(self, channel: Channel) -> None:
        if not self._runner.recovering(channel.channel):
            self._runner.submit(await start.request(self._store, channel))

    def _signer_came(self) -> None:
        self._merchants.allow()
        self._watcher.kick_all()
        self._gate.look_again()

    def _signer_left(self) -> None:
        self._merchants.drop_all()
        self._watcher.kick_all()
        self._gate.look_again()

    async def run(self) -> int:
        """Serve until a stop request, SIGTERM or SIGINT; raises what made it impossible."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_quietly)
        reap_orphans(loop)
        passed, settings = passed_fds(), self._settings.sockets
        given = passed.listening
        self._restarted = self._handover.receive(passed.stored)
        rpc = _listening(given, "rpc", settings.rpc)
        signer = _doors(
            given,
            "signer",
            path=settings.signer,
            mode=int(settings.signer_mode, 8),
            group=settings.signer_group,
            tls=settings.signer_tls,
        )
        self._gateway.address = _advertised(signer, settings)
        monitors = _doors(
            given,
            "monitor",
            path=settings.monitor,
            mode=0o660,
            group=settings.monitor_group,
            tls=settings.monitor_tls,
        )
        work = asyncio.create_task(self._work(rpc, signer, monitors), name="customerd")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        self._notifier.stopping()
        log.info("stopping")
        stopped.cancel()
        keeps = False
        if self._server is not None and not self._asked_to_stop and not work.done():
            keeps = await self._handover.hold(self._server)
        was_ready = self._up and not {*self._gate.missing()} - {"not_ready"}
        await self._database.settle_down(SETTLE_WITHIN)
        if keeps:
            await self._handover.give(ready=was_ready)
        work.cancel()
        try:
            return await work
        except asyncio.CancelledError:
            return 0
        finally:
            with contextlib.suppress(DatabaseUnavailable):
                if self._database.fence is not None and self._database.alive:
                    await self._database.release_lease()
            await self._client.aclose()
            await self._database.aclose()

    async def _work(
        self,
        rpc: socket.socket,
        signer: Sequence[socket.socket],
        monitors: Sequence[socket.socket],
    ) -> int:
        """Do everything until cancelled; return the exit code of an end that was foreseen."""
        try:
            await self._serve(rpc, signer, monitors)
        except* LeaseLost as errors:
            # Another daemon acts: nothing in memory may be trusted, a start is clean.
            log.error("lease_lost", reason=str(_first(errors)), message="this daemon ends")
        except* MigrationError as errors:
            log.critical("database_not_usable", reason=str(_first(errors)))
        except* SecretFileError as errors:
            log.critical("secret_file_not_usable", reason=str(_first(errors)))
        return 1

    async def _serve(
        self,
        rpc: socket.socket,
        signer: Sequence[socket.socket],
        monitors: Sequence[socket.socket],
    ) -> None:
        log.info("starting", version=VERSION, pid=os.getpid())
        async with asyncio.TaskGroup() as group:
            handlers = Handlers(task_group=group)
            self._owner.register(handlers)
            async with contextlib.AsyncExitStack() as doors:
                self._server = await doors.enter_async_context(
                    serve(
                        rpc,
                        lambda: Peer(handlers, name="owner", log=log.warning),
                        accept=_owner_only,
                    )
                )
                await self._handover.take_up(self._server)
                certificate = Path(self._settings.guard.key).with_name("monitor.pem")
                for each in monitors:
                    await doors.enter_async_context(
                        self._monitor.serve(
                            each, group, self._owner.gated(), certificate=certificate
                        )
                    )
                group.create_task(self._keep_watchdog(), name="watchdog")
                # From the start: a signer that finds a standby goes on to the next address.
                group.create_task(self._gateway.run(signer), name="signer")
                await self._prepare()
                group.create_task(self._owner.subscriptions.run(), name="subscriptions")
                group.create_task(self._renew_lease(), name="lease")
                group.create_task(self._witness_database(), name="database")
                group.create_task(self._watcher.run(), name="watcher")
                group.create_task(self._merchants.run(), name="merchants")
                group.create_task(self._runner.run(), name="operations")
                group.create_task(self._journal.run(), name="journal")
                group.create_task(self._notice_following(), name="following")
                await self._runner.started()
                self._up = True
                self._gate.look_again()
                await self._look_at_channels()
                self._notifier.ready(self._status())
                log.info("serving", rpc=self._settings.sockets.rpc)
                await self._keep_status()

    async def _prepare(self) -> None:
        """Bring the database up to date, take the lease, load what the watcher needs."""
        while True:
            try:
                await self._database.connect()
                await migrate(self._database, (CHAIN, OWN))
                await self._database.take_lease()
                wallet = await read_wallet(self._store)
                self._gateway.identity, self._gateway.account = wallet.identity, wallet.account
                await self._gateway.load_pairing()
                await self._watcher.load(self._gateway)
                await self._tokens.load()
                self._gateway.idle = ""
                break
            except DatabaseUnavailable as error:
                self._held_up()
                self._notifier.status(f"waiting for PostgreSQL: {error}")
                log.warning("waiting_for_database", reason=str(error))
                await self._wait_for_database()
            except LeaseHeld as error:
                await self._stand_by(error)
                await self._database.wait_lease(error)

    def _held_up(self) -> None:
        """Let calls be refused from now on that wait for the start: it takes longer."""
        self._starting = False
        self._until = 0.0
        self._gate.look_again()

    async def _wait_for_database(self) -> None:
        """Wait as long as it takes; systemd's time for a start is for starts that hang."""
        while True:
            self._notifier.more_time(START_TIME)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_TIME / 2):
                    await self._database.wait_available()
                    return

    async def _stand_by(self, held: LeaseHeld) -> None:
        """Tell that all is well: a standby serves by waiting, for days if need be."""
        self._gateway.idle = "standing by: another daemon holds the lease"
        with contextlib.suppress(DatabaseUnavailable):
            await self._gateway.load_pairing()  # whose signer is told so
        if not self._standing_by:
            self._standing_by = True
            self._held_up()
            self._standby = f"standing by: {held}"
            self._notifier.ready(self._standby)
            log.warning("standing_by", holder=held.holder)

    async def _renew_lease(self) -> None:
        """Keep the lease; raises LeaseLost once another daemon has taken it."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.database.lease / 3):
                    await self._database.overtaken.wait()
            await self._hold_lease()

    async def _hold_lease(self) -> None:
        try:
            await self._database.renew_lease()
        except LeaseLost:
            raise
        except DatabaseUnavailable as error:
            log.warning("lease_not_renewed", reason=str(error))

    async def _witness_database(self) -> None:
        """Keep an idle connection that sees the server's end at once, then wait for its return."""
        while True:
            try:
                async with await self._database.listen(CHANNEL) as listener:
                    if self._lost:
                        await self._database_is_back()
                    async for _ in listener:
                        continue
            except LeaseLost:
                raise
            except DatabaseUnavailable as error:
                if not self._lost:
                    log.error("database_lost", reason=str(error))
                self._lost = True
                self._gate.look_again()
                # What comes back may be older: until then the guard takes its time, too.
                self._gateway.compared = False
                await self._database.wait_available()

    async def _database_is_back(self) -> None:
        """Compare and read all again: it may be a standby that lacks the last commits."""
        await self._hold_lease()
        log.info("database_back")
        # First of all: nothing is spent by what the signer was compared with before.
        self._gateway.compare_again()
        self._lost = False
        self._gate.look_again()
        self._watcher.forget()
        await reload(self._tokens)
        self._monitor.end_invalid()
        await self._gateway.load_pairing()
        await self._runner.take_up()

    async def _keep_watchdog(self) -> None:
        """Feed systemd's watchdog from the event loop, as long as the watcher goes round, too."""
        interval = self._notifier.watchdog_interval
        told = ""
        while interval is not None:
            stuck = self._watcher.stuck
            if not stuck:
                self._notifier.watchdog()
            elif stuck != told:
                log.critical("watcher_hung", loops=stuck, message="the watchdog is fed no more")
                self._gate.look_again()
            told = stuck
            await asyncio.sleep(interval / 3)

    async def _keep_status(self) -> None:
        """Tell systemd how the daemon is: at once what changes its mode, soon everything else."""
        shown = ""
        while True:
            tell_missing()
            shown = self._tell_status(shown)
            await self._look_at_channels()
            shown = self._tell_status(shown)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_EVERY):
                    await self._gate.changed()

    def _tell_status(self, shown: str) -> str:
        status = self._status()
        if status != shown:
            self._notifier.status(status)
        return status

    async def _notice_following(self) -> None:
        async for _ in self._watcher.follower.follows():
            self._gate.look_again()

    async def _look_at_channels(self) -> None:
        """Add up what can be paid, and warm up a connection to every merchant that may be next."""
        if not self._database.alive:
            return
        with contextlib.suppress(DatabaseUnavailable):
            rows = await channels.channels(self._database)
            self._holdings = holdings(rows, await escrows(self._database))
            if self._gateway.ready:
                for host, port in {(r.host, r.port) for r in rows if r.state is Status.IDLE}:
                    self._merchants.prepare(host, port)

    def _status(self) -> str:
        if self._stop.is_set():
            return "stopping"
        if not self._up:
            return self._standby
        return describe(
            Facts(
                missing=self._gate.missing(),
                channels=self._watcher.channel_count,
                holdings=self._holdings,
                head=self._watcher.head_number,
                operations=self._runner.unfinished,
                alarms=len(self._watcher.alarms),
                stuck=self._watcher.stuck,
            )
        )


def _listening(given: dict[str, list[socket.socket]], name: str, path: str) -> socket.socket:
    """Return the socket that systemd hands over under this name, else bind our own."""
    for known in (name, f"customerd-{name}.socket", "customerd.socket" if name == "rpc" else ""):
        if given.get(known):
            return given[known][0]
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return bind_owner_only(Path(path))


def _doors(
    given: dict[str, list[socket.socket]],
    name: str,
    *,
    path: str | None,
    mode: int,
    group: str | None,
    tls: str | None,
) -> list[socket.socket]:
    """Return all sockets of one kind: those of systemd, and those that it did not hand over."""
    found = [each for known in (name, f"customerd-{name}.socket") for each in given.get(known, ())]
    families = {each.family for each in found}
    if path is not None and socket.AF_UNIX not in families:
        folder = 0o711 if mode & 0o077 else 0o700
        Path(path).parent.mkdir(mode=folder, parents=True, exist_ok=True)
        found.append(bind_owner_only(Path(path), mode, group=group))
    if tls is not None and not families - {socket.AF_UNIX}:
        found += bind_tcp(*read_address(tls))
    return found


def _advertised(sockets: Sequence[socket.socket], settings: Sockets) -> str:
    """Return where a signer finds this daemon: "host:port", host empty for every address."""
    for each in sockets:
        if each.family != socket.AF_UNIX:
            host, port = each.getsockname()[:2]
            if settings.signer_tls is not None:
                host, _ = read_address(settings.signer_tls)
            return write_address("" if host in ("0.0.0.0", "::") else host, port)  # noqa: S104
    return settings.signer


def _holder(path: str) -> str:
    """Name this daemon: started again after a crash it takes its own lease, after a boot it waits.

    Hosts may have the same name, and a container may come back elsewhere under its own. Its unit
    tells the boot, which a service does not see.
    """
    boot = os.environ.get("CUSTOMERD_BOOT") or Path("/proc/sys/kernel/random/boot_id").read_text()
    return f"{socket.gethostname()}:{path} (boot {boot[:8]})"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _owner_only(transport: asyncio.Transport) -> bool:
    _, uid, _ = peer_credentials(transport.get_extra_info("socket"))
    if uid in (os.geteuid(), 0):
        return True
    log.warning("connection_refused", peer_uid=uid)
    return False
