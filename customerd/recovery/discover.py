"""Finding the wallet's channels on the chain, when nothing but the twelve words is left."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from customerd.channels import queries as channels
from customerd.channels.record import Channel, Escrow
from customerd.recovery import queries as recovery
from customerd.store.events import Store
from customerd.store.writes import Writes
from customerd.watch.watcher import Watcher
from zkchannels.chain.store import SeenEvent
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import EthereumError
from zkchannels.escrow.events import Opened
from zkchannels.escrow.record import ChannelStatus
from zkchannels.service.logging import get_logger

log = get_logger("customerd.recovery")

_ENDED = (ChannelStatus.CLOSED, ChannelStatus.RECLAIMED)


@dataclass(frozen=True, slots=True)
class Found:
    """A channel on chain that this database does not know."""

    opened: Opened
    escrow: Escrow
    salt: bytes

    @property
    def channel(self) -> bytes:
        """The channel's id, 32 bytes."""
        return self.opened.channel.to_bytes(32)


async def read_history(watcher: Watcher, escrow: bytes, *, since: int) -> None:
    """Return once all events of an escrow from a block on are stored.

    Whoever limits the time may ask again: what was read is not read twice.
    """
    await watcher.chain_store.watch(escrow, since=since)
    await watcher.reload_escrows()
    watcher.follower.look()

    async def is_read() -> bool:
        return await watcher.chain_store.caught_up(escrow)

    await watcher.follower.wait_for(is_read)


async def unknown_channels(
    watcher: Watcher, store: Store, escrow: Escrow, account: bytes
) -> list[Found]:
    """Return the wallet's channels in an escrow that are on chain, not ended, and not known here.

    Raises ChainFailure. The salt is in the transaction that opened the channel.
    """
    found = []
    for seen in await watcher.chain_store.opened_by(escrow.escrow, account):
        opened = seen.event
        assert isinstance(opened, Opened)
        channel = opened.channel.to_bytes(32)
        if await channels.channel_by_id(store.database, channel) is not None:
            continue
        if (await watcher.record(channel)).status in _ENDED:
            continue
        salt = await _salt(watcher, seen, escrow, account)
        if salt is None:
            log.error("channel_not_understood", channel_id=channel.hex())
            continue
        found.append(Found(opened, escrow, salt))
    return found


async def _salt(watcher: Watcher, seen: SeenEvent, escrow: Escrow, account: bytes) -> bytes | None:
    """Return the salt, from a call of the escrow that gives exactly this channel's id."""
    from zkchannels.abacus import channel_id  # noqa: PLC0415 - not needed for READY

    transaction = await watcher.client.call(
        "eth_getTransactionByHash", "0x" + seen.transaction_hash.hex()
    )
    try:
        call = calls.decode_call(bytes.fromhex(transaction["input"].removeprefix("0x")))
    except (EthereumError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(call, calls.Open | calls.OpenToken | calls.OpenPermit):
        return None
    made = channel_id(escrow.chain_id, escrow.escrow, account, call.salt)
    return call.salt if made == seen.event.channel else None


async def insert(store: Store, found: Found, *, host: str, port: int, restored: bool) -> Channel:
    """Record a channel that was found: nothing is known of it but its terms.

    `restored`: no record of it is left with the signer either.
    """

    for digits in (8, 16, 54):
        writes, label = Writes(), f"recovered-{found.channel.hex()[:digits]}"
        statement = recovery.insertion(
            channel=found.channel,
            label=label,
            escrow=found.escrow.escrow,
            host=host,
            port=port,
            salt=found.salt,
            customer_deposit=found.opened.customer_deposit,
            merchant_deposit=found.opened.merchant_deposit,
            restored=restored,
        )
        writes.add(statement)
        writes.event("channel", "found_on_chain", channel=found.channel, label=label)
        try:
            await store.write(writes)
        except psycopg.errors.UniqueViolation:
            continue
        break
    row = await channels.channel_by_id(store.database, found.channel)
    assert row is not None
    return row
