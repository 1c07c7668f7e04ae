"""The running signer: one wallet, one store, one link, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from customersigner.confirm import Terminal, serve_people
from customersigner.derivation import Wallet
from customersigner.dialling import Dialler
from customersigner.link import Link, Worker
from customersigner.policy import Policy
from customersigner.policyfile import read_policy
from customersigner.settings import Settings
from customersigner.signer import Signer
from customersigner.store import Store
from zkchannels.escrow.ethereum import checksum
from zkchannels.service.configuration import ConfigurationError
from zkchannels.service.logging import configure, get_logger
from zkchannels.service.notify import Notifier
from zkchannels.service.process import keep_memory_private, to_the_end

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
            signer = Signer(wallet, store, policy)
            link = Link(
                dialler.ways,
                signer,
                worker,
                on_status=notifier.status,
                renewed=dialler.renewed,
            )
            log.info("started", account=checksum(wallet.account.address))
            asyncio.run(to_the_end(_until_stopped(link, notifier, signer, settings)))
    finally:
        store.close()
        notifier.close()
    log.info("stopped")
    return 0


async def _until_stopped(
    link: Link, notifier: Notifier, signer: Signer, settings: Settings
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(asyncio.CancelledError))
        if (terminal := Terminal.of_process()) is not None:
            stack.enter_context(signer.questions.asking(terminal))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(link.run()),
                group.create_task(_feed(notifier)),
                group.create_task(serve_people(settings.confirmation_socket, signer.questions)),
            ]
            loop = asyncio.get_running_loop()

            def stop() -> None:
                notifier.stopping()
                for task in tasks:
                    task.cancel()

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            loop.add_signal_handler(signal.SIGHUP, _reload, signer, settings)
            notifier.ready("waiting for the daemon")


def _reload(signer: Signer, settings: Settings) -> None:
    """Take the policy file as it is now; one with a mistake changes nothing."""
    try:
        signer.policy = read_policy(settings.policy_file)
    except ConfigurationError as error:
        log.error("policy_not_reloaded", reason=str(error))
    else:
        log.info("policy_reloaded", policies=signer.policy.names)


async def _feed(notifier: Notifier) -> None:
    """Tell systemd that the event loop turns."""
    interval = notifier.watchdog_interval
    while interval is not None:
        notifier.watchdog()
        await asyncio.sleep(interval)
