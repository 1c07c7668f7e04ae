"""Asks the signer for what its policy may refuse, or what a person has to agree to first."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, TypeVar

import msgspec

from customerd.operations.run import Interrupted, Refused, Run
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.signing.policies import policy_refusal
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.store.database import DatabaseUnavailable
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

WITHDRAW_WITHIN: Final = 1.0
"""Seconds that a cancelled operation waits until the signer knows."""
_OUTCOMES = {"no": "policy-confirmation-declined", "unanswered": "policy-confirmation-required"}


async def ask_signer(run: Run, method: Method[P, R], params: P) -> R:
    """Return the signer's answer, once a person agreed where that is asked for.

    The operation stands at the step `confirm` meanwhile, everything else goes on. Raises Refused
    for what the policy or the person refuses, Interrupted when the question was withdrawn, and the
    signer's other errors. Cancelled, it takes the question back.
    """
    try:
        return await _ask(run, method, params)
    except RpcError as error:
        if kind_of(error) != "confirmation_pending":
            raise
        question, patience = error.data["question"], error.data["patience"]
    run.step("confirm")
    await run.commit()
    gateway, about = run.around.gateway, wire.ConfirmationParams(bytes.fromhex(question))
    try:
        said = await gateway.request(
            wire.CONFIRMATION_WAIT,
            about,
            timeout=patience + run.around.settings.signer.request_timeout,
        )
    except asyncio.CancelledError:
        with contextlib.suppress(SignerAway, SignerSlow, DatabaseUnavailable, RpcError):
            await gateway.request(wire.CONFIRMATION_WITHDRAW, about, timeout=WITHDRAW_WITHIN)
        raise
    except RpcError as error:
        raise Interrupted(error.message) from None
    if said.answer != "yes":
        name = _OUTCOMES[said.answer]
        raise Refused(name, f"{wire.POLICIES[name][1]} ({name})")
    run.step("prove")
    try:
        return await _ask(run, method, params)
    except RpcError as error:
        if kind_of(error) == "confirmation_pending":
            raise Interrupted("the answer was for another request") from None
        raise


async def _ask(run: Run, method: Method[P, R], params: P) -> R:
    try:
        return await run.around.gateway.request(method, params)
    except RpcError as error:
        if kind_of(error) == "policy_refused":
            raise Refused(*policy_refusal(error)) from None
        raise
