"""The signer's own limits, whatever the daemon asks for; each has a stable name.

Pure: what was spent and the time are given. docs/signer.md, Policies, says the same in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from customersigner.record import Escrow
from customersigner.usage import DAY, HOUR, Entry, Kind, Usage
from zkchannels.amounts import Asset
from zkchannels.escrow.ethereum import checksum
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire.signer import ERRORS, POLICIES, PolicyState

PAYMENT_LIMIT: Final = "policy-payment-limit"
HOUR_LIMIT: Final = "policy-hour-limit"
DAY_LIMIT: Final = "policy-day-limit"
DEPOSIT_LIMIT: Final = "policy-deposit-limit"
DEPOSIT_DAY_LIMIT: Final = "policy-deposit-day-limit"
ASSET: Final = "policy-asset-not-allowed"
ESCROW: Final = "policy-escrow-not-allowed"
MERCHANT: Final = "policy-merchant-not-allowed"
FEE_CAP: Final = "policy-fee-cap"
FEE_DAY_LIMIT: Final = "policy-fee-day-limit"
DESTINATION: Final = "policy-destination"
CONFIRMATION_REQUIRED: Final = "policy-confirmation-required"
CONFIRMATION_DECLINED: Final = "policy-confirmation-declined"

COIN: Final = bytes(20)
"""What stands for the chain's coin where a token's address could stand."""
DEFAULT_FEE_CAP: Final = 250_000_000_000_000_000
"""A quarter of the chain's coin, in wei."""
DEFAULT_DEFENCE_CAP: Final = 10**18
"""The chain's coin, in wei: a close must go through when blocks are full."""
DEFAULT_PATIENCE: Final = 120.0

_Check = tuple[str, int, int | None]
"""Name of a limit, the length of its window (0: it is for one alone), and the limit."""
_ABOUT: Final[dict[Kind, str]] = {
    "fee": "fees of transactions",
    "defence": "fees of defence",
    "payment": "payments",
    "deposit": "deposits",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent of one asset, in its base units; None: as much as there is.

    hour, day: sums of payments; deposit, deposit_day: one channel's deposit, and their sum
    confirm_above: payments and deposits of more than this are asked for
    """

    asset: Asset
    payment: int | None = None
    hour: int | None = None
    day: int | None = None
    deposit: int | None = None
    deposit_day: int | None = None
    confirm_above: int | None = None

    @property
    def payments(self) -> tuple[_Check, ...]:
        """What a payment has to pass."""
        largest = least(self.payment, self.hour, self.day)
        return (
            (PAYMENT_LIMIT, 0, largest),
            (HOUR_LIMIT, HOUR, self.hour),
            (DAY_LIMIT, DAY, self.day),
        )

    @property
    def deposits(self) -> tuple[_Check, ...]:
        """What a deposit has to pass."""
        largest = least(self.deposit, self.deposit_day)
        return (DEPOSIT_LIMIT, 0, largest), (DEPOSIT_DAY_LIMIT, DAY, self.deposit_day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fees:
    """What transactions may cost at most, max fee per gas times gas, in wei.

    Closes, disputes, claims and withdrawals are defence: they bring money home.
    """

    transaction: int = DEFAULT_FEE_CAP
    day: int | None = None
    defence: int = DEFAULT_DEFENCE_CAP
    defence_day: int | None = None

    def checks(self, kind: Kind) -> tuple[_Check, ...]:
        """What a transaction has to pass."""
        cap, day = (
            (self.transaction, self.day) if kind == "fee" else (self.defence, self.defence_day)
        )
        return (FEE_CAP, 0, least(cap, day)), (FEE_DAY_LIMIT, DAY, day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the signer refuses even where the protocol would allow it.

    symbol: how the chain's coin is called
    assets: limits by address of the token, zeros for the coin; None: no asset has any
    escrows, merchants: the only ones to deal with, by address, with the owner's names for them
    patience: seconds that a person has for an answer
    """

    symbol: str = "ETH"
    fees: Fees = field(default_factory=Fees)
    assets: Mapping[bytes, Limits] | None = None
    escrows: Mapping[bytes, str] | None = None
    merchants: Mapping[bytes, str] | None = None
    patience: float = DEFAULT_PATIENCE

    @property
    def coin(self) -> Asset:
        """The chain's coin in wei."""
        return Asset(self.symbol, 18, 1)

    @property
    def names(self) -> list[str]:
        """Names of the policies in force, as told to the daemon."""
        return sorted({state.name for state in self.states(Usage(), 0)})

    # -- decisions --------------------------------------------------------------------------------

    def check_escrow(self, escrow: Escrow) -> None:
        """Refuse to begin anything with an escrow, merchant or asset that is not on its list."""
        if self.escrows is not None and escrow.escrow not in self.escrows:
            raise refused(ESCROW, f"the escrow {checksum(escrow.escrow)} is not on the list")
        if self.merchants is not None and escrow.merchant not in self.merchants:
            raise refused(MERCHANT, f"the merchant {checksum(escrow.merchant)} is not on the list")
        if self.assets is not None and escrow.token not in self.assets:
            raise refused(ASSET, f"there are no limits for the token {checksum(escrow.token)}")

    def check(self, usage: Usage, entry: Entry, before: Entry | None) -> None:
        """Refuse to count an entry that exceeds a limit, in the place of `before`.

        What can happen once only, like one of several attempts to leave a state, has one name and
        counts once. Raises the refusal that lasts longest.
        """
        checks: tuple[_Check, ...]
        if entry.kind in ("fee", "defence"):
            asset, checks = self.coin, self.fees.checks(entry.kind)
        else:
            limits = self._limits(entry.asset)
            if limits is None:
                return
            asset = limits.asset
            checks = limits.payments if entry.kind == "payment" else limits.deposits
        late = 0
        refusal: RpcError | None = None
        for name, length, limit in checks:
            if limit is None:
                continue
            if not length:
                if entry.amount > limit:
                    raise refused(name, f"at most {asset.format(limit)} at a time")
                continue
            wait = usage.wait(entry, length, limit - entry.amount, without=before)
            if wait > late:
                late = wait
                used = usage.total(entry.kind, entry.asset, length, entry.at)
                used -= usage.held(before, length, entry.at)
                left = asset.format(max(0, limit - used))
                hours = length // HOUR
                refusal = refused(
                    name,
                    f"at most {asset.format(limit)} within {hours} h, of which {left} are left",
                    after=wait,
                )
        if refusal is not None:
            raise refusal

    def must_confirm(self, token: bytes, amount: int) -> bool:
        """Tell whether a person has to agree to a payment or deposit."""
        limits = self._limits(token)
        return (
            limits is not None
            and limits.confirm_above is not None
            and amount > limits.confirm_above
        )

    def _limits(self, token: bytes) -> Limits | None:
        return None if self.assets is None else self.assets.get(token)

    # -- words ------------------------------------------------------------------------------------

    def amount(self, token: bytes, amount: int) -> str:
        """An amount in the owner's words; of an asset without limits in base units."""
        limits = self._limits(token)
        if limits is not None:
            return limits.asset.format(amount)
        if token == COIN:
            return self.coin.format(amount)
        return f"{amount} base units of the token {checksum(token)}"

    def escrow_name(self, escrow: Escrow) -> str:
        """An escrow in the owner's words, by the lists of this policy alone."""
        names = (
            (self.merchants or {}).get(escrow.merchant),
            (self.escrows or {}).get(escrow.escrow),
        )
        address = checksum(escrow.escrow)
        for name in names:
            if name is not None:
                return f"{name} (escrow {address})"
        return f"the escrow {address} of the merchant {checksum(escrow.merchant)}"

    def states(self, usage: Usage, now: int) -> list[PolicyState]:
        """Every limit in force, with what is used of it."""
        used = partial(usage.total, now=now)
        shown = [_state(DESTINATION, "withdrawals")]
        for name, listed in ((ESCROW, self.escrows), (MERCHANT, self.merchants)):
            if listed is not None:
                shown.append(_state(name, ", ".join(sorted(listed.values())) or "none"))
        for kind in ("fee", "defence"):
            shown += _states(kind, COIN, self.coin, self.fees.checks(kind), used)
        if self.assets is None:
            return shown
        symbols = sorted(limits.asset.symbol for limits in self.assets.values())
        shown.append(_state(ASSET, ", ".join(symbols) or "none"))
        for token, limits in self.assets.items():
            asset = limits.asset
            shown += _states("payment", token, asset, limits.payments, used)
            shown += _states("deposit", token, asset, limits.deposits, used)
            if limits.confirm_above is not None:
                above = f"above {asset.format(limits.confirm_above)}"
                shown.append(_state(CONFIRMATION_REQUIRED, asset.symbol, above))
        return shown


def refused(policy: str, message: str, **data: object) -> RpcError:
    """The refusal of a policy, which the peer reads in `data.policy` and `data.policy_kind`."""
    kind, _ = POLICIES[policy]
    return ERRORS.error("policy_refused", message, policy=policy, policy_kind=kind, **data)


def least(*limits: int | None) -> int | None:
    """The smallest of some limits; None when there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _states(
    kind: Kind, token: bytes, asset: Asset, checks: tuple[_Check, ...], used: Callable[..., int]
) -> list[PolicyState]:
    about = f"{asset.symbol}, {_ABOUT[kind]}"
    return [
        _state(
            name,
            about,
            asset.format(limit),
            asset.format(used(kind, token, length)) if length else None,
        )
        for name, length, limit in checks
        if limit is not None
    ]


def _state(name: str, about: str, limit: str | None = None, used: str | None = None) -> PolicyState:
    kind, _ = POLICIES[name]
    return PolicyState(name, kind, about, limit, used)
