"""Transactions the signer understands: calls of a registered escrow, approvals of its token.

Pure: the caller looks up records. Anything that is not named here is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from customersigner import policy
from customersigner.record import Accepted, Channel, Escrow
from zkchannels.abacus import channel_id
from zkchannels.escrow import calls, typed_data
from zkchannels.escrow.ethereum import EthereumError, InvalidEcdsaSignature, recover
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.signer import ERRORS, TransactionParams

Lookup = Callable[[bytes], Channel]
"""The record of a channel, or the refusal channel_unknown."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transaction does to the account, beside its fee.

    defence: it only brings money home; pull: what it can take from the account, in base units of
    the escrow's asset
    """

    defence: bool
    pull: int


_WORD: Final = 2**256
_GAS_LIMIT: Final = 2**64


def check_numbers(transaction: TransactionParams) -> None:
    """Refuse numbers that no chain takes."""
    small = max(transaction.nonce, transaction.gas) < _GAS_LIMIT
    if not small or max(transaction.max_fee, transaction.value) >= _WORD:
        raise ERRORS.error("invalid", "a number is out of range")
    if transaction.tip > transaction.max_fee:
        raise ERRORS.error("invalid", "the tip exceeds the maximal fee")


def check_escrow_call(
    transaction: TransactionParams, escrow: Escrow, account: bytes, lookup: Lookup
) -> Effect:
    """Refuse a call of an escrow that is not exactly what the records ask for."""
    try:
        call = calls.decode_call(transaction.data)
    except EthereumError as error:
        raise _not_understood(str(error)) from None
    value = 0
    if isinstance(call, calls.Open | calls.OpenToken | calls.OpenPermit):
        value = _check_open(call, escrow, account, lookup)
    elif isinstance(call, calls.Close):
        _check_close(call, _record(call.channel, escrow, lookup))
    elif isinstance(call, calls.MutualClose):
        _check_mutual_close(call, escrow, _record(call.channel, escrow, lookup))
    elif isinstance(call, calls.Claim | calls.Reclaim | calls.Dispute):
        _record(call.channel, escrow, lookup)
    elif isinstance(call, calls.Withdraw):
        if call.to != account:
            raise policy.refused(policy.DESTINATION, "withdrawals go to the wallet's own account")
    else:
        raise _not_understood(f"a customer does not call {call.NAME}")
    if transaction.value != value:
        raise _not_understood(f"the value must be {value} wei")
    opening = isinstance(call, calls.Open | calls.OpenToken | calls.OpenPermit)
    return Effect(defence=not opening, pull=value)


def check_token_call(
    transaction: TransactionParams, escrows: list[Escrow], bound: Callable[[Escrow], int]
) -> tuple[Escrow, Effect]:
    """Refuse a call of a token that is not a bounded approval for an escrow that holds it.

    `bound` gives the largest approval for an escrow, in base units of the token.
    """
    try:
        call = calls.decode_token_call(transaction.data)
    except EthereumError as error:
        raise _not_understood(str(error)) from None
    if not isinstance(call, calls.Approve) or transaction.value:
        raise _not_understood("of a token, only approvals are signed")
    escrow = next((escrow for escrow in escrows if escrow.escrow == call.spender), None)
    if escrow is None:
        raise ERRORS.error("escrow_unknown", "the spender is no registered escrow of this token")
    if call.amount > bound(escrow):
        raise _not_understood("the approval exceeds the deposits of the recorded channels")
    return escrow, Effect(defence=False, pull=call.amount)


def _check_open(
    call: calls.Open | calls.OpenToken | calls.OpenPermit,
    escrow: Escrow,
    account: bytes,
    lookup: Lookup,
) -> int:
    """Return the value that must go with it; rule ca0-before-open."""
    identity = channel_id(escrow.chain_id, escrow.escrow, account, call.salt)
    channel = _record(identity, escrow, lookup)
    if channel.accepted is None:
        raise ERRORS.error("out_of_order", "there is no closing authorization to get out again")
    native = isinstance(call, calls.Open)
    if native != escrow.is_native:
        raise _not_understood("the call does not fit the asset of the escrow")
    terms = channel.terms
    if call.merchant_deposit != terms.merchant_deposit:
        raise _not_understood("the merchant's deposit differs from the agreed one")
    if not isinstance(call, calls.Open) and call.customer_deposit != terms.customer_deposit:
        raise _not_understood("the deposit differs from the agreed one")
    return terms.customer_deposit * escrow.unit if native else 0


def _check_close(call: calls.Close, channel: Channel) -> None:
    newest = _newest(channel)
    step = newest.step
    stated = (call.lock, call.customer_balance, call.merchant_balance)
    if stated != (newest.lock, step.customer_balance, step.merchant_balance):
        raise ERRORS.error("released", "not the newest state: its secret may have been released")
    if call.signature != newest.signature:
        raise _not_understood("not the recorded closing authorization")
    closing = channel.closing
    if closing is None or not closing.unilateral:
        raise ERRORS.error("out_of_order", "ask for close.authorize first")


def _check_mutual_close(call: calls.MutualClose, escrow: Escrow, channel: Channel) -> None:
    step = _newest(channel).step
    if (call.customer_balance, call.merchant_balance) != (
        step.customer_balance,
        step.merchant_balance,
    ):
        raise ERRORS.error("released", "not the balances of the newest state")
    closing = channel.closing
    if closing is None or not closing.mutual:
        raise ERRORS.error("out_of_order", "ask for close.authorize first")
    digest = typed_data.mutual_close_digest(
        escrow.chain_id,
        escrow.escrow,
        call.channel,
        call.customer_balance,
        call.merchant_balance,
    )
    try:
        agreed = recover(digest, call.agreement) == escrow.merchant
    except InvalidEcdsaSignature:
        agreed = False
    if not agreed:
        raise ERRORS.error("bad_signature", "the merchant did not agree to these balances")


def _newest(channel: Channel) -> Accepted:
    if channel.accepted is None:
        raise ERRORS.error("out_of_order", "there is no closing authorization")
    return channel.accepted


def _record(identity: int, escrow: Escrow, lookup: Lookup) -> Channel:
    channel = lookup(identity.to_bytes(32))
    if (channel.terms.chain_id, channel.terms.escrow) != (escrow.chain_id, escrow.escrow):
        raise ERRORS.error("channel_unknown", "this channel is not in this escrow")
    return channel


def _not_understood(message: str) -> RpcError:
    return ERRORS.error("not_understood", message)
