"""Kinds of errors that the owner RPC gives; stable, documented in docs/rpc.md."""

from __future__ import annotations

from typing import Literal

from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.errors import ErrorKinds, kind_of

Retry = Literal["never", "later", "after_change"]
"""`later`: the same call may succeed by itself; `after_change`: something must be mended first."""

ERRORS = ErrorKinds(
    {
        "not_ready": "the daemon is starting or stopping",
        "safe_mode": "no signer is attached; nothing can be spent",
        "chain_unavailable": "the watcher is not following the chain",
        "database_unavailable": "PostgreSQL does not answer",
        "forbidden": "this connection may not call this method",
        "not_found": "no such channel, operation or method",
        "label_taken": "another channel has this label",
        "invalid_amount": "the amount cannot be read, or is of another asset",
        "insufficient_balance": "the channel or the account does not hold that much",
        "channel_busy": "an earlier operation on this channel excludes this one",
        "wrong_status": "the channel is in a status that does not allow this",
        "amount_too_small": "the amount is below what is accepted",
        "fee_too_high": "the chain's fee is above the configured limit",
        "rejected_by_merchant": "the merchant refused; nothing was paid",
        "merchant_unreachable": "the merchant does not answer; nothing was paid",
        "merchant_misbehaved": "the merchant's answer breaks the protocol",
        "policy_refused": "the signer's policy refuses",
        "timed_out": "waiting ended; the operation goes on",
        "cancelled": "the operation was cancelled before anything was bound",
        "idempotency_mismatch": "this idempotency key was used with other parameters",
        "invalid_address": "the merchant's address cannot be read",
    }
)

_RETRY: dict[str, Retry] = {
    "not_ready": "later",
    "safe_mode": "later",
    "chain_unavailable": "later",
    "database_unavailable": "later",
    "channel_busy": "later",
    "fee_too_high": "later",
    "merchant_unreachable": "later",
    "timed_out": "later",
    "insufficient_balance": "after_change",
    "wrong_status": "after_change",
    "rejected_by_merchant": "after_change",
    "policy_refused": "after_change",
}


_HINTS: dict[str, str] = {
    "not_ready": "the daemon is starting or stopping; try again in a moment",
    "database_unavailable": "is PostgreSQL running? see `journalctl -u customerd`",
    "chain_unavailable": "is the node running and synchronised? see `customerctl getinfo`",
    "safe_mode": "start the signer: `customersigner run`",
    "merchant_unreachable": "nothing was paid; try again later",
    "insufficient_balance": "see `customerctl balance`",
    "wrong_status": "see `customerctl list`",
    "timed_out": "see `customerctl operation ID`",
}
"""What to do about an error of this kind, when its place has nothing better to say."""


def failure(
    kind: str, message: str, *, hint: str | None = None, operation: str | None = None
) -> RpcError:
    """Return the error of this kind, ready to raise; `hint` says what to do about it."""
    data: dict[str, str] = {"retry": _RETRY.get(kind, "never")}
    hint = hint or _HINTS.get(kind)
    if hint is not None:
        data["hint"] = hint
    if operation is not None:
        data["operation"] = operation
    return ERRORS.error(kind, message, **data)


__all__ = ["ERRORS", "Retry", "failure", "kind_of"]
