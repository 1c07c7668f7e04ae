"""The network address that a customer's limits are counted by."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any


def source_of(name: tuple[Any, ...] | None) -> str | None:
    """Return the address of a socket's other end; of IPv6 its /64 network, one customer's.

    `name` is what the socket calls it. None when the connection is gone already.
    """
    if not name:
        return None
    address = ip_address(name[0].partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
