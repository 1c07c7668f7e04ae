"""What the owner does with tokens: make, list, revoke."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal

from customerd.channels.escrows import escrows as all_escrows
from customerd.channels.record import Channel
from customerd.rpc import methods
from customerd.rpc.errors import failure
from customerd.rpc.methods import METHODS
from customerd.rpc.monitor import Monitor
from customerd.store.events import Store
from customerd.tokens import queries
from customerd.tokens.queries import TokenRow
from customerd.tokens.registry import Tokens
from zkchannels import caveats
from zkchannels.amounts import AmountError, Asset
from zkchannels.caveats import CaveatError
from zkchannels.escrow.ethereum import ZERO_ADDRESS
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.peer import Peer

_GRANTS = {method.name: method.grant for method in METHODS}


class TokenMethods:
    """Registered with the owner's other methods; none of them is open to tokens."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        monitor: Monitor,
        *,
        native_symbol: str,
        by_label: Callable[[str], Awaitable[Channel]],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._monitor = monitor
        self._native = Asset(native_symbol, 18, 1)
        self._by_label = by_label

    async def create(self, params: methods.TokenCreateParams, _peer: Peer) -> methods.TokenCreated:
        """Make a token that allows what is named and nothing else."""
        _check_methods(params)
        try:
            restrictions = [caveats.methods(params.methods)]
            if params.expires is not None:
                expires = int(time.time()) + caveats.seconds_of(params.expires)
                restrictions.append(caveats.before(expires))
            if params.channels:
                rows = [await self._by_label(label) for label in params.channels]
                restrictions.append(caveats.channels({row.channel for row in rows}))
            if params.rate is not None:
                restrictions.append(caveats.rate(params.rate))
            if params.spend is not None:
                restrictions.append(await self._spend(params.spend))
        except CaveatError as error:
            raise _unreadable(str(error)) from None
        token, macaroon = await self._tokens.make(note=params.note, caveats=restrictions)
        return methods.TokenCreated(
            id=token.hex(), token=macaroon.encode(), caveats=list(macaroon.caveats)
        )

    async def _spend(self, text: str) -> str:
        """Write a spending limit of an asset that the wallet knows."""
        symbol = text.rpartition(" ")[2].upper()
        assets = {
            escrow.token: Asset(escrow.symbol, escrow.decimals, 1)
            for escrow in (await all_escrows(self._store.database)).values()
            if escrow.symbol.upper() == symbol
        }
        if symbol == self._native.symbol.upper():
            assets = {ZERO_ADDRESS: self._native}
        if len(assets) != 1:
            few = "no asset" if not assets else "more than one asset"
            raise CaveatError(f"{few} of the wallet's channels is called {symbol!r}")
        ((address, asset),) = assets.items()
        try:
            amount = asset.parse(text)
        except AmountError as error:
            raise CaveatError(str(error)) from None
        if not 0 < amount < caveats.LARGEST:
            raise CaveatError("a spending limit is positive")
        return caveats.spend(amount, address, asset.decimals, asset.symbol)

    async def list_(self, _params: methods.NoParams, _peer: Peer) -> methods.TokenRows:
        """List all tokens, oldest first."""
        spent = {
            (row.token, row.account): row.spent for row in await queries.spent(self._store.database)
        }
        rows = await queries.tokens(self._store.database)
        return methods.TokenRows(tokens=[self._info(row, spent) for row in rows])

    def _info(self, row: TokenRow, spent: dict[tuple[bytes, bytes], int]) -> methods.TokenInfo:
        allows = caveats.read(row.caveats, self._tokens.account(row.token, row.caveats))
        limit = allows.spends[0] if allows.spends else None
        used = None
        if limit is not None:
            used = Asset(limit.symbol, limit.decimals, 1).format(
                spent.get((row.token, limit.account), 0)
            )
        status: Literal["valid", "expired", "revoked"] = "valid"
        if row.revoked is not None:
            status = "revoked"
        elif allows.expires is not None and time.time() >= allows.expires:
            status = "expired"
        return methods.TokenInfo(
            id=row.token.hex(),
            note=row.note,
            status=status,
            methods=sorted(allows.methods or ()),
            channels=None
            if allows.channels is None
            else sorted("0x" + channel.hex() for channel in allows.channels),
            expires=allows.expires,
            rates=[f"{rate.count}/{rate.seconds}s" for rate in allows.rates],
            spend=None if limit is None else limit.text,
            spent=used,
            created=row.created,
            revoked=row.revoked,
        )

    async def revoke(self, params: methods.TokenParams, _peer: Peer) -> methods.TokenRevoked:
        """End a token, and the connections that it opened."""
        try:
            known = await self._tokens.revoke(bytes.fromhex(params.id))
        finally:
            self._monitor.end_invalid()
        if not known:
            raise failure("not_found", "no such token", hint="see `customerctl token-list`")
        return methods.TokenRevoked(id=params.id)


def _check_methods(params: methods.TokenCreateParams) -> None:
    for name in params.methods:
        grant = _GRANTS.get(name)
        if grant is None:
            raise failure("not_found", f"no method is called {name!r}")
        if not grant:
            raise _unreadable(f"{name} is for the owner alone: no token can allow it")
        if grant == "spend" and params.spend is None:
            raise _unreadable(f"a token for {name} needs a spending limit")
    if params.spend is not None and not any(_GRANTS[name] == "spend" for name in params.methods):
        raise _unreadable("none of these methods spends anything: leave the limit out")


def _unreadable(message: str) -> RpcError:
    return failure("invalid_restriction", message)
