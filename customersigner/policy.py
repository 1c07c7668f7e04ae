"""The signer's own limits, whatever the daemon asks for; each has a stable name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.signer import ERRORS

FEE_CAP: Final = "policy-fee-cap"
PAYMENT_LIMIT: Final = "policy-payment-limit"
ESCROW: Final = "policy-escrow"
DESTINATION: Final = "policy-destination"

DEFAULT_FEE_CAP: Final = 250_000_000_000_000_000
"""A quarter of the chain's coin, in wei: a close must go through when blocks are full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the signer refuses even where the protocol would allow it.

    fee_cap: most that one transaction may cost, max fee per gas times gas, in wei
    payment_limit: most that one payment may move to a merchant, in units of the escrow
    escrows: the only escrows to deal with, as addresses of 20 bytes
    """

    fee_cap: int = DEFAULT_FEE_CAP
    payment_limit: int | None = None
    escrows: frozenset[bytes] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the policies in force, as told to the daemon."""
        optional = {PAYMENT_LIMIT: self.payment_limit, ESCROW: self.escrows}
        chosen = [name for name, value in optional.items() if value is not None]
        return [FEE_CAP, DESTINATION, *chosen]

    def check_fee(self, gas: int, max_fee: int) -> None:
        """Refuse a transaction that could cost more than the cap."""
        if gas * max_fee > self.fee_cap:
            raise refused(FEE_CAP, f"the transaction may cost more than {self.fee_cap} wei")

    def check_payment(self, amount: int) -> None:
        """Refuse a payment above the limit; refunds have none."""
        if self.payment_limit is not None and amount > self.payment_limit:
            raise refused(PAYMENT_LIMIT, f"a payment may move at most {self.payment_limit} units")

    def check_escrow(self, escrow: bytes) -> None:
        """Refuse to begin anything with an escrow that is not on the list."""
        if self.escrows is not None and escrow not in self.escrows:
            raise refused(ESCROW, "this escrow is not on the signer's list")


def refused(policy: str, message: str) -> RpcError:
    """The refusal of a policy, which the peer reads in `data.policy`."""
    return ERRORS.error("policy_refused", message, policy=policy)
