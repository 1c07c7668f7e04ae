"""The tokens of this daemon: made, presented, revoked.

The root key of each is derived from a key in a file, mode 0600, and the token's id; the database
knows ids alone. So a thief of the database can present nothing, and without the file no token is
valid any more.
"""

from __future__ import annotations

import hmac
import secrets
import time
from pathlib import Path

from customerd.config import TOKENS_KEY
from customerd.store.events import Store
from customerd.store.writes import Writes
from customerd.tokens import queries
from customerd.tokens.grant import Grant
from customerd.tokens.queries import TokenRow
from zkchannels.caveats import CaveatError, read
from zkchannels.macaroon import Macaroon, MacaroonError
from zkchannels.service.secretfile import SecretFileError, credential_path, secret, write_secret
from zkchannels.store.database import DatabaseUnavailable

_PURPOSE = b"zkchannels/token/1"


class TokenRefused(Exception):
    """The token is worth nothing here; the message says why, and nothing about its secret."""


class NotLoaded(Exception):
    """The tokens are not read from the database yet."""


class Tokens:
    """Every token, in memory: monitoring goes on while PostgreSQL is away."""

    def __init__(self, key: Path, store: Store) -> None:
        self._key = _key_from(key)
        self._store = store
        self._rows: dict[bytes, TokenRow] | None = None

    def __repr__(self) -> str:
        return "Tokens()"

    async def load(self) -> None:
        """Read what the database knows; raises DatabaseUnavailable."""
        self._rows = {row.token: row for row in await queries.tokens(self._store.database)}

    def forget(self) -> None:
        """Trust nothing that was read: another daemon may have acted."""
        self._rows = None

    async def make(self, *, note: str, caveats: list[str]) -> tuple[bytes, Macaroon]:
        """Write a new token and return its id and its secret; the caveats were checked."""
        token = secrets.token_bytes(16)
        writes = Writes()
        spends = bool(read(caveats).spends)
        queries.insert_token(writes, token=token, note=note, caveats=caveats, spends=spends)
        await self._store.write(writes)
        await self.load()
        return token, Macaroon.mint(self._root_key(token), token, caveats)

    async def revoke(self, token: bytes) -> bool:
        """End a token for good; tell whether there is such a token."""
        rows = {row.token for row in await queries.tokens(self._store.database)}
        if token not in rows:
            return False
        writes = Writes()
        queries.revoke(writes, token)
        try:
            await self._store.write(writes)
        finally:
            # Whether or not it is written: until it is read back, nobody gets in.
            self.forget()
        await self.load()
        return True

    def present(self, text: str) -> Grant:
        """Judge a presented token; raises TokenRefused, NotLoaded."""
        try:
            macaroon = Macaroon.decode(text)
            accounts = macaroon.verify(self._root_key(macaroon.identifier))
            if accounts is None:
                raise TokenRefused("the token is not one of this daemon, or was changed")
            restrictions = read(macaroon.caveats, accounts)
        except (MacaroonError, CaveatError) as error:
            raise TokenRefused(str(error)) from None
        row = self._row(macaroon.identifier)
        if list(macaroon.caveats[: len(row.caveats)]) != row.caveats:
            # Signed with our key, but not by us: a thief of the file may not make wider ones.
            raise TokenRefused("the token is not one of this daemon, or was changed")
        grant = Grant(row.token, restrictions, row.spends)
        self.check(grant)
        return grant

    def check(self, grant: Grant) -> None:
        """Raise TokenRefused when a token has ended since it was presented; NotLoaded."""
        if self._row(grant.token).revoked is not None:
            raise TokenRefused("the token was revoked")
        if grant.expired(time.time()):
            raise TokenRefused("the token has expired")

    def _row(self, token: bytes) -> TokenRow:
        if self._rows is None:
            raise NotLoaded
        row = self._rows.get(token)
        if row is None:
            raise TokenRefused("the token is not known here (any more)")
        return row

    def account(self, token: bytes, caveats: list[str]) -> list[bytes]:
        """Return what the limits among a token's own caveats are counted on."""
        root_key = self._root_key(token)
        accounts = Macaroon.mint(root_key, token, caveats).verify(root_key)
        assert accounts is not None
        return accounts

    def _root_key(self, token: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + token, "sha256")


async def reload(tokens: Tokens) -> None:
    """Read the tokens again; while that is not possible nobody gets in."""
    tokens.forget()
    try:
        await tokens.load()
    except DatabaseUnavailable:
        return


def _key_from(path: Path) -> bytes:
    """Read the key, a credential or a file; the first start makes a file."""
    if not path.exists() and credential_path(TOKENS_KEY) is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, secrets.token_hex(32).encode())
    try:
        key = bytes.fromhex(secret(path, TOKENS_KEY).decode("ascii").strip())
    except ValueError:
        raise SecretFileError(f"{path} holds no key") from None
    if len(key) != 32:
        raise SecretFileError(f"{path} holds no key of 32 bytes")
    return key
