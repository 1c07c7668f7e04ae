"""Kinds of errors that the owner RPC gives; stable, documented in docs/rpc.md."""

from __future__ import annotations

from typing import Literal

from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.errors import ErrorKinds, kind_of
from zkchannels.wire.signer import POLICIES, PolicyKind

Retry = Literal["never", "later", "after_change"]
"""`later`: the same call may succeed by itself; `after_change`: something must be mended first."""

ERRORS = ErrorKinds(
    {
        "not_ready": "the daemon is starting, standing by for another, or stopping",
        "safe_mode": "no signer is attached; nothing can be spent",
        "chain_unavailable": "the watcher is not following the chain",
        "database_unavailable": "PostgreSQL does not answer",
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
        "backup_unusable": "the backup cannot be read or written, is damaged, or does not fit",
        "wrong_wallet": "the backup belongs to another wallet than the attached signer's",
        "not_empty": "a backup is restored into an empty database only",
        "interrupted": "a restart of the daemon came upon this call; it may be done or not",
        "invalid_configuration": "the configuration cannot be read; nothing was changed",
        "forbidden": "the token does not allow this, or is not valid (any more)",
        "rate_limited": "the token allows no more calls for a moment",
        "spending_limit": "the payment is more than the token's spending limit leaves",
        "invalid_restriction": "a restriction of a token cannot be read",
    }
    | {name: meaning for name, (_, meaning) in POLICIES.items()}
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
    "rate_limited": "later",
    "insufficient_balance": "after_change",
    "wrong_status": "after_change",
    "rejected_by_merchant": "after_change",
    "policy_refused": "after_change",
    "spending_limit": "after_change",
}
_POLICY_RETRY: dict[PolicyKind, Retry] = {
    "temporary": "later",
    "policy": "after_change",
    "permanent": "never",
}
_RETRY |= {name: _POLICY_RETRY[kind] for name, (kind, _) in POLICIES.items()}


_HINTS: dict[str, str] = {
    "safe_mode": "start the signer: customersigner run; customerctl signer-status shows it",
    "not_ready": "customerctl getinfo shows what it waits for",
    "chain_unavailable": "is the node up? customerctl getinfo shows what the watcher sees",
    "database_unavailable": "is PostgreSQL up? customerctl getinfo shows when it is back",
    "insufficient_balance": "customerctl balance shows what there is",
    "merchant_unreachable": "try again later",
    "interrupted": "see whether it was done before trying again; it is not repeated by itself",
    "fee_too_high": "try again later, or raise the limit in the configuration",
    "timed_out": "customerctl operation shows how far it is",
    "policy-confirmation-required": "have somebody at the signer's terminal, or at "
    "`customersigner confirm`, and try again",
    "policy-confirmation-declined": "ask the person at the signer; nothing was paid",
    "policy-destination": "the wallet's account is the only one that money is withdrawn to",
}
_HINTS |= {
    name: "wait; customerctl signer-status shows what is used of each limit"
    if kind == "temporary"
    else "customerctl signer-status shows the limits; they are changed in policy.toml at the signer"
    for name, (kind, _) in POLICIES.items()
    if name not in _HINTS
}
"""What to do about an error of this kind, when its place has nothing better to say."""


def hint_for(kind: str) -> str:
    """Return what to do about an error of this kind, or an empty string."""
    return _HINTS.get(kind, "")


def failure(
    kind: str, message: str, *, hint: str | None = None, operation: str | None = None
) -> RpcError:
    """Return the error of this kind, ready to raise; `hint` says what to do about it."""
    data: dict[str, str] = {"retry": _RETRY.get(kind, "never")}
    hint = hint or hint_for(kind)
    if hint:
        data["hint"] = hint
    if operation is not None:
        data["operation"] = operation
    return ERRORS.error(kind, message, **data)


__all__ = ["ERRORS", "Retry", "failure", "kind_of"]
