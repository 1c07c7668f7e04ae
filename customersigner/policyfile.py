"""`policy.toml`: the owner's limits, written by the owner's hand and readable by nobody else."""

from __future__ import annotations

from pathlib import Path

import msgspec

from customersigner.policy import COIN, DEFAULT_PATIENCE, Fees, Limits, Policy
from zkchannels.amounts import AmountError, Asset
from zkchannels.escrow.ethereum import InvalidAddress, parse_address
from zkchannels.service.configuration import ConfigurationError, Duration, load
from zkchannels.service.secretfile import SecretFileError, read_secret

_DECIMALS = 18
_MOST_DECIMALS = 36


class AssetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one asset; `token` and `decimals` are absent for the chain's coin."""

    token: str | None = None
    """The token's address; absent for the chain's coin."""
    decimals: int = _DECIMALS
    """How many decimals the token has."""
    payment: str | None = None
    """The most that one payment may move, such as "0.05 ETH"; no limit when absent."""
    hour: str | None = None
    """The most that all payments of an hour may move."""
    day: str | None = None
    """The most that all payments of a day may move."""
    deposit: str | None = None
    """The most that one new channel may be given."""
    deposit_day: str | None = None
    """The most that all new channels of a day may be given."""
    confirm_above: str | None = None
    """A person is asked about payments and deposits above it."""


class FeeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What transactions may cost, in the chain's coin."""

    transaction: str | None = None
    """The most that one opening or approval may cost: the highest fee per gas times its gas;
    0.25 of the coin when absent."""
    day: str | None = None
    """The most that all of them may cost in a day."""
    defence: str | None = None
    """The most that one close, dispute, claim, reclaim or withdrawal may cost; 1 of the coin when
    absent."""
    defence_day: str | None = None
    """The most that all of those may cost in a day."""


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; tables of `assets`, `escrows` and `merchants` are named by the owner."""

    symbol: str = "ETH"
    """How the chain's coin is called."""
    confirm_within: Duration = DEFAULT_PATIENCE
    """How long a person has for an answer."""
    fees: FeeTable = msgspec.field(default_factory=FeeTable)
    """What transactions may cost."""
    assets: dict[str, AssetTable] | None = None
    """A table of limits per asset. When there is any, an asset without one is refused."""
    escrows: dict[str, str] | None = None
    """The only escrows to deal with, under names of the owner's; all when absent."""
    merchants: dict[str, str] | None = None
    """The only merchants, by the account that their escrow pays out to; all when absent."""


def read_policy(path: Path) -> Policy:
    """Return the policy of a file, the default one when there is none.

    Raises ConfigurationError: the file is open to others, or says something that cannot be.
    """
    if not path.exists() and not path.is_symlink():
        return Policy()
    try:
        read_secret(path)  # checks whose it is
        file = load(PolicyFile, path, prefix="CUSTOMERSIGNER_POLICY", environment={})
        return policy_of(file)
    except SecretFileError as error:
        raise ConfigurationError(str(error)) from None
    except InvalidPolicy as error:
        raise ConfigurationError(f"{path}: {error}") from None


class InvalidPolicy(Exception):
    """An amount or address of the policy cannot be read; says which."""


def policy_of(file: PolicyFile) -> Policy:
    """The policy that a file asks for. Raises InvalidPolicy."""
    coin = Asset(file.symbol, _DECIMALS, 1)
    given = {
        name: _amount(coin, value, f"fees.{name}")
        for name in FeeTable.__struct_fields__
        if (value := getattr(file.fees, name)) is not None
    }
    return Policy(
        symbol=file.symbol,
        fees=Fees(**given),
        assets=None if file.assets is None else _assets(file.assets, file.symbol),
        escrows=_listed(file.escrows, "escrows"),
        merchants=_listed(file.merchants, "merchants"),
        patience=file.confirm_within,
    )


def _assets(tables: dict[str, AssetTable], symbol: str) -> dict[bytes, Limits]:
    found: dict[bytes, Limits] = {}
    for name, table in tables.items():
        where = f"assets.{name}"
        if table.token is None and (name != symbol or table.decimals != _DECIMALS):
            raise InvalidPolicy(
                f"{where}: without `token` it is the chain's coin, which is {symbol}"
            )
        token = COIN if table.token is None else _address(table.token, f"{where}.token")
        if not 0 <= table.decimals <= _MOST_DECIMALS:
            raise InvalidPolicy(f"{where}.decimals: from 0 to {_MOST_DECIMALS}")
        if token in found or (table.token is not None and token == COIN):
            raise InvalidPolicy(f"{where}.token: given twice, or no token's address")
        asset = Asset(name, table.decimals, 1)
        found[token] = Limits(asset=asset, **_limits(asset, table, where))
    return found


def _limits(asset: Asset, table: AssetTable, where: str) -> dict[str, int]:
    return {
        name: _amount(asset, value, f"{where}.{name}")
        for name in ("payment", "hour", "day", "deposit", "deposit_day", "confirm_above")
        if (value := getattr(table, name)) is not None
    }


def _listed(table: dict[str, str] | None, where: str) -> dict[bytes, str] | None:
    if table is None:
        return None
    return {_address(text, f"{where}.{name}"): name for name, text in table.items()}


def _amount(asset: Asset, text: str, where: str) -> int:
    try:
        amount = asset.parse(text)
    except AmountError as error:
        raise InvalidPolicy(f"{where}: {error}") from None
    if amount < 0:
        raise InvalidPolicy(f"{where}: a limit is not negative")
    return amount


def _address(text: str, where: str) -> bytes:
    try:
        return parse_address(text)
    except InvalidAddress as error:
        raise InvalidPolicy(f"{where}: {error}") from None
