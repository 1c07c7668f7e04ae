"""The merchant's socket: TLS without tickets, bounded lines, sockets handed over."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from tests.merchantd.support import Customer, MerchantSite
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.wire.merchant import MAXIMUM_LINE


async def dial(
    site: MerchantSite, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection to the shared merchant."""
    daemon = site.running[-1]
    return await asyncio.open_connection(
        daemon.host, daemon.port, ssl=context, server_hostname="localhost"
    )


async def test_tls_13_without_tickets(shared_site: MerchantSite) -> None:
    """The merchant speaks TLS 1.3 and gives no ticket that would link connections."""
    reader, writer = await dial(shared_site, shared_site.tls())
    writer.write(b'{"jsonrpc":"2.0","id":1,"method":"nothing"}\n')
    assert b"-32601" in await reader.readline()
    connection = writer.get_extra_info("ssl_object")
    assert connection.version() == "TLSv1.3"
    assert not connection.session.has_ticket
    writer.close()
    await writer.wait_closed()


async def test_older_tls_is_refused(shared_site: MerchantSite) -> None:
    """TLS 1.2 gets no connection."""
    old = ssl.create_default_context(cafile=str(shared_site.folder / "certificate.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await dial(shared_site, old)


async def test_longer_lines_end_in_an_error(shared_site: MerchantSite, customer: Customer) -> None:
    """A line of more than 16 KiB is never taken in, and others go on unharmed."""
    reader, writer = await dial(shared_site, shared_site.tls())
    writer.write(b"x" * (MAXIMUM_LINE * 4) + b"\n")
    answer = await reader.read(4096)
    assert b"error" in answer or not answer
    writer.close()
    async with customer.connect() as peer:
        await customer.propose_pay(peer, 1)


async def test_idle_connections_do_not_hold_up_payments(
    shared_site: MerchantSite, customer: Customer
) -> None:
    """A hundred connections that say nothing leave the merchant free to answer."""
    silent = [await dial(shared_site, shared_site.tls()) for _ in range(100)]
    async with customer.connect() as peer:
        await customer.propose_pay(peer, 1)
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()


async def test_sockets_handed_over_are_served(site: MerchantSite) -> None:
    """A listening socket that systemd holds is used instead of the configured address."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        daemon = site.start(handed_over=held)
        assert daemon.port == held.getsockname()[1]
        customer = Customer(site, DEV_KEYS[1])
        async with customer.connect() as peer:
            await customer.key(peer)
        assert daemon.stop() == 0
