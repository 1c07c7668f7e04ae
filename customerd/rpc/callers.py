"""Who calls."""

from __future__ import annotations

import socket

from zkchannels.jsonrpc.peer import Peer
from zkchannels.service.sockets import peer_credentials


def uid_of(peer: Peer) -> int | None:
    """Return the user at the other end of a Unix socket; None over TLS, and when he has left."""
    connected = peer.transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX:
        return None
    try:
        return peer_credentials(connected)[1]
    except OSError:
        return None
