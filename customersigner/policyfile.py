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
    decimals: int = _DECIMALS
    payment: str | None = None
    hour: str | None = None
    day: str | None = None
    deposit: str | None = None
    deposit_day: str | None = None
    confirm_above: str | None = None


class FeeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What transactions may cost, in the chain's coin."""

    transaction: str | None = None
    day: str | None = None
    defence: str | None = None
    defence_day: str | None = None


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; tables of `assets`, `escrows` and `merchants` are named by the owner."""

    symbol: str = "ETH"
    confirm_within: Duration = DEFAULT_PATIENCE
    fees: FeeTable = msgspec.field(default_factory=FeeTable)
    assets: dict[str, AssetTable] | None = None
    escrows: dict[str, str] | None = None
    merchants: dict[str, str] | None = None


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
