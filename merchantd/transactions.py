"""The merchant's account as a lane of transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkchannels.chain.lane import FeePolicy, Lane

if TYPE_CHECKING:
    from merchantd.config import Settings
    from zkchannels.chain.client import ChainClient
    from zkchannels.escrow.ethereum import PrivateKey
    from zkchannels.escrow.transaction import Transaction
    from zkchannels.store.database import Database

_LANE = "merchant"


class LocalAccount:
    """An account whose key is in this process."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @property
    def address(self) -> bytes:
        """The account's address, 20 bytes."""
        return self._key.address

    async def sign(self, transaction: Transaction) -> bytes:
        """Return the raw signed transaction."""
        return transaction.with_signature(self._key.sign_digest(transaction.signing_digest()))


def make_lane(
    settings: Settings, client: ChainClient, database: Database, account: PrivateKey
) -> Lane:
    """Return the one lane of the merchant's account."""
    policy = FeePolicy(
        tip_floor=settings.chain.minimum_tip,
        max_fee_cap=settings.chain.maximum_fee,
        urgent=int(settings.margin),
    )
    return Lane(client, database, LocalAccount(account), name=_LANE, policy=policy)
