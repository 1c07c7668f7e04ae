"""Pointcheval-Sanders signatures and payment proofs (docs/protocol.md), on bytes and integers.

Points of the curve never appear here. Nothing does any input or output, and nothing is audited.
"""

from __future__ import annotations

from zkchannels.abacus._backend import use_backend
from zkchannels.abacus.commitments import verify_lock_opening
from zkchannels.abacus.derivation import ChannelSecrets
from zkchannels.abacus.encoding import decode_scalar, encode_scalar
from zkchannels.abacus.errors import (
    AbacusError,
    InvalidEncoding,
    InvalidKey,
    InvalidProof,
    InvalidSignature,
    InvalidStatement,
)
from zkchannels.abacus.establish import (
    ESTABLISH_PROOF_LENGTH,
    EstablishBlindings,
    EstablishCommitments,
    prove_establish,
    verify_establish,
)
from zkchannels.abacus.keys import PublicKey, SecretKey
from zkchannels.abacus.parameters import CLOSE, MAX_BALANCE, R
from zkchannels.abacus.pay_prover import PayBlindings, PreparedPay, prepare_pay, prove_pay
from zkchannels.abacus.pay_verifier import PayCommitments, verify_pay
from zkchannels.abacus.pay_wire import PAY_PROOF_LENGTH
from zkchannels.abacus.recovery import establish_commitments, pay_commitments
from zkchannels.abacus.signatures import (
    check_blinded,
    closing_authorization,
    expect_signature,
    verify_closing,
)
from zkchannels.abacus.states import CloseState, State, channel_id, context, lock_of

__all__ = [
    "CLOSE",
    "ESTABLISH_PROOF_LENGTH",
    "MAX_BALANCE",
    "PAY_PROOF_LENGTH",
    "AbacusError",
    "ChannelSecrets",
    "CloseState",
    "EstablishBlindings",
    "EstablishCommitments",
    "InvalidEncoding",
    "InvalidKey",
    "InvalidProof",
    "InvalidSignature",
    "InvalidStatement",
    "PayBlindings",
    "PayCommitments",
    "PreparedPay",
    "PublicKey",
    "R",
    "SecretKey",
    "State",
    "channel_id",
    "check_blinded",
    "closing_authorization",
    "context",
    "decode_scalar",
    "encode_scalar",
    "establish_commitments",
    "expect_signature",
    "lock_of",
    "pay_commitments",
    "prepare_pay",
    "prove_establish",
    "prove_pay",
    "use_backend",
    "verify_closing",
    "verify_establish",
    "verify_lock_opening",
    "verify_pay",
]
