"""The running signer: one wallet, one store, one link, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from customersigner.derivation import Wallet
from customersigner.dialling import Dialler
from customersigner.link import Link, Worker
from customersigner.policy import Policy
from customersigner.settings import Settings
from customersigner.signer import Signer
from customersigner.store import Store
from zkchannels.escrow.ethereum import checksum
from zkchannels.service.logging import configure, get_logger
from zkchannels.service.notify import Notifier
from zkchannels.service.process import keep_memory_private

log = get_logger("customersigner")


def run(settings: Settings, policy: Policy, wallet: Wallet) -> int:
    """Serve the daemon until SIGTERM or SIGINT; returns the exit status.

    Raises StoreError when the store cannot be used.
    """
    configure("customersigner", level=settings.log_level)
    keep_memory_private()
    notifier = Notifier.from_environment()
    store = Store.open(settings.store_file, wallet.identity)
    try:
        with Worker() as worker:
            dialler = Dialler(settings)
            link = Link(
                dialler.dial,
                Signer(wallet, store, policy),
                worker,
                on_status=notifier.status,
                renewed=dialler.renewed,
            )
            log.info("started", account=checksum(wallet.account.address))
            asyncio.run(_until_stopped(link, notifier))
    finally:
        store.close()
        notifier.close()
    log.info("stopped")
    return 0


async def _until_stopped(link: Link, notifier: Notifier) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            work = group.create_task(link.run())
            watchdog = group.create_task(_feed(notifier))
            loop = asyncio.get_running_loop()

            def stop() -> None:
                notifier.stopping()
                work.cancel()
                watchdog.cancel()

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            notifier.ready("waiting for the daemon")


async def _feed(notifier: Notifier) -> None:
    """Tell systemd that the event loop turns."""
    interval = notifier.watchdog_interval
    while interval is not None:
        notifier.watchdog()
        await asyncio.sleep(interval)
