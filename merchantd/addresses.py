"""The network address that a customer's limits are counted by."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address


def source_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the address of the other end; of IPv6 its /64 network, which is one customer's.

    None when the connection is gone already.
    """
    name = transport.get_extra_info("peername")
    if not name:
        return None
    address = ip_address(name[0].partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
