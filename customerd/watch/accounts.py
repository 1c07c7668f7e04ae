"""The two accounts that send transactions: the wallet's, signed by the signer, and the guard's."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from customerd.config import GUARD_KEY
from customerd.signing.errors import SignerAway, SignerSlow
from customerd.signing.policies import refused_by
from zkchannels.chain.errors import AccountUnavailable
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.escrow.transaction import Transaction
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import get_logger
from zkchannels.service.secretfile import SecretFileError, credential_path, secret, write_secret
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from customerd.signing.gateway import Gateway

log = get_logger("customerd.watch")


class WalletAccount:
    """The customer's account; only the attached signer can sign for it."""

    def __init__(self, gateway: Gateway, address: bytes) -> None:
        self._gateway = gateway
        self.address = address

    async def sign(self, transaction: Transaction) -> bytes:
        """Return the raw signed transaction; raises AccountUnavailable."""
        if transaction.to is None:
            raise AccountUnavailable("the wallet deploys no contract")
        try:
            answer = await self._gateway.request(
                wire.TRANSACTION_SIGN,
                wire.TransactionParams(
                    chain_id=transaction.chain_id,
                    nonce=transaction.nonce,
                    tip=transaction.tip,
                    max_fee=transaction.max_fee,
                    gas=transaction.gas,
                    to=transaction.to,
                    value=transaction.value,
                    data=transaction.data,
                ),
            )
        except (SignerAway, SignerSlow):
            raise AccountUnavailable("no signer is attached") from None
        except RpcError as error:
            log.error("signer_refuses_transaction", reason=error.message)
            raise AccountUnavailable(f"the signer refuses: {refused_by(error)}") from None
        return answer.raw


class GuardAccount:
    """A low-value hot account of the daemon that pays for defensive transactions only."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.address = key.address

    @classmethod
    def from_file(cls, path: Path) -> GuardAccount:
        """Read the guard's key, a credential or a file; the first start makes a file."""
        if not path.exists() and credential_path(GUARD_KEY) is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(path, secrets.token_hex(32).encode())
        try:
            digits = secret(path, GUARD_KEY).decode("ascii").strip()
            return cls(PrivateKey(bytes.fromhex(digits)))
        except ValueError:
            raise SecretFileError(f"{path} holds no private key") from None

    async def sign(self, transaction: Transaction) -> bytes:
        """Return the raw signed transaction."""
        return transaction.with_signature(self._key.sign_digest(transaction.signing_digest()))
