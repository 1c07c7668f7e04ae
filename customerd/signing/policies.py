"""What a refusal of the signer's policy means for an operation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.signer import POLICIES


def policy_refusal(error: RpcError) -> tuple[str, str]:
    """Return the kind and message of a refusal: the policy's own name where it is known here."""
    name = error.data.get("policy") if isinstance(error.data, dict) else None
    if name not in POLICIES:
        return "policy_refused", error.message
    _, meaning = POLICIES[name]
    return name, f"{meaning} ({name}): {error.message}{_again(error)}"


def refused_by(error: RpcError) -> str:
    """Return the message of a refusal, after the name of the policy where it is one's."""
    name = error.data.get("policy") if isinstance(error.data, dict) else None
    return f"{name}: {error.message}" if name in POLICIES else error.message


def _again(error: RpcError) -> str:
    """Say when the same may pass; times are the daemon's, to the second."""
    after = error.data.get("after")
    if not isinstance(after, int) or not 0 < after < 10**6:
        return ""
    moment = datetime.now(UTC) + timedelta(seconds=after)
    return f"; possible again from {moment:%Y-%m-%d %H:%M:%S} UTC"
