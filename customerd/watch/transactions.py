"""One method per transaction about a channel: what it says, who sends it, and under which purpose.

A purpose names an intention once: submitting it again while it is pending or included does
nothing, so the watcher may act on the same situation as often as it sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from customerd.channels.record import Channel, Escrow, State
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import ChainError
from zkchannels.chain.lane import Lane, TransactionStatus
from zkchannels.escrow import abi, calls, typed_data
from zkchannels.escrow.ethereum import ZERO_ADDRESS
from zkchannels.escrow.record import ChannelRecord
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.service.logging import get_logger
from zkchannels.wire import signer as wire

if TYPE_CHECKING:
    from customerd.signing.gateway import Gateway

log = get_logger("customerd.watch")

PERMIT_LIFETIME = 7 * 24 * 3600
"""Seconds an EIP-2612 permit for a deposit stays valid: long enough to be re-broadcast."""
PERMIT_VERSION = "1"
_NAME = abi.selector("name", ())
_UNDER_WAY = (TransactionStatus.PENDING, TransactionStatus.INCLUDED, TransactionStatus.FINAL)


_CAUSES = {"open": "establish", "approve": "establish", "close": "close", "mutual": "close"}


def cause_and_channel(purpose: str) -> tuple[str, bytes]:
    """Return the kind of operation that has such a transaction sent, and the channel.

    The kind is empty for what the watcher decides by itself, the channel for other purposes.
    """
    what, _, number = purpose.rpartition(":")
    try:
        return _CAUSES.get(what.partition("/")[0], ""), bytes.fromhex(number)
    except ValueError:
        return "", b""


@dataclass(frozen=True, slots=True)
class Transactions:
    """Transactions about one channel."""

    client: ChainClient
    gateway: Gateway
    wallet: Lane | None
    guard: Lane
    channel: Channel
    escrow: Escrow
    now: int
    """The chain's time, Unix seconds: contracts compare with it, not with the local clock."""

    @property
    def _id(self) -> int:
        return int.from_bytes(self.channel.channel)

    def _purpose(self, what: str) -> str:
        return f"{what}:{self.channel.channel.hex()}"

    async def _send(
        self,
        lane: Lane | None,
        what: str,
        data: bytes,
        *,
        to: bytes | None = None,
        value: int = 0,
        deadline: int | None = None,
    ) -> None:
        if lane is None:
            return
        await lane.submit(
            self._purpose(what),
            to=self.escrow.escrow if to is None else to,
            value=value,
            data=data,
            deadline=deadline,
        )

    async def open_channel(self) -> None:
        """Send the deposit; for a token after a permit or an approval."""
        deposit = self.channel.customer_deposit * self.escrow.unit
        if self.escrow.token == ZERO_ADDRESS:
            data = calls.open_(self.channel.salt, self.channel.merchant_deposit)
            await self._send(self.wallet, "open", data, value=deposit)
            return
        if self.wallet is None or await self._state("open") in _UNDER_WAY:
            return
        permit = await self._permit(deposit)
        if permit is not None:
            deadline, signature = permit
            data = calls.open_permit(
                self.channel.salt,
                self.channel.customer_deposit,
                self.channel.merchant_deposit,
                deadline,
                signature,
            )
            await self._send(self.wallet, "open", data)
            return
        owner = self.gateway.account
        assert owner is not None
        answer = await self.client.eth_call(
            self.escrow.token, calls.allowance(owner, self.escrow.escrow)
        )
        if calls.decode_number(answer) >= deposit:
            data = calls.open_token(
                self.channel.salt, self.channel.customer_deposit, self.channel.merchant_deposit
            )
            await self._send(self.wallet, "open", data)
            return
        # An approval may have been used up by another channel's deposit: then one more.
        number = 1
        while (state := await self._state(f"approve/{number}")) in _UNDER_WAY:
            if state is TransactionStatus.PENDING:
                return
            number += 1
        await self._send(
            self.wallet,
            f"approve/{number}",
            calls.approve(self.escrow.escrow, deposit),
            to=self.escrow.token,
        )

    async def _state(self, what: str) -> TransactionStatus | None:
        assert self.wallet is not None
        return await self.wallet.state(self._purpose(what))

    async def _permit(self, value: int) -> tuple[int, bytes] | None:
        """Have a permit signed, if the token knows EIP-2612 under its own name and version 1."""
        owner = self.gateway.account
        assert owner is not None
        token = self.escrow.token
        try:
            name = calls.decode_bytes(await self.client.eth_call(token, _NAME))
            separator = await self.client.eth_call(token, calls.domain_separator())
            nonce = calls.decode_number(await self.client.eth_call(token, calls.nonces(owner)))
            text = name.decode()
        except (ChainError, ValueError):
            return None
        domain = typed_data.domain_separator(text, PERMIT_VERSION, self.escrow.chain_id, token)
        if domain != separator:
            return None
        deadline = self.now + PERMIT_LIFETIME
        try:
            answer = await self.gateway.request(
                wire.TOKEN_PERMIT,
                wire.TokenPermitParams(
                    chain_id=self.escrow.chain_id,
                    escrow=self.escrow.escrow,
                    token=token,
                    token_name=text,
                    token_version=PERMIT_VERSION,
                    value=value,
                    nonce=nonce,
                    deadline=deadline,
                ),
            )
        except RpcError as error:
            log.warning("signer_refuses_permit", channel=self.channel.label, reason=error.message)
            return None
        return deadline, answer.signature

    async def close(self, state: State, deadline: int | None) -> None:
        """Close with the customer's key on the newest state."""
        assert state.signature is not None
        data = calls.close(
            self._id,
            int.from_bytes(state.lock),
            state.customer_balance,
            state.merchant_balance,
            state.signature,
        )
        await self._send(self.wallet, f"close/{state.index}", data, deadline=deadline)

    async def mutual_close(self, state: State, agreement: bytes, deadline: int | None) -> None:
        """Close at once with the merchant's agreement."""
        data = calls.mutual_close(
            self._id, state.customer_balance, state.merchant_balance, agreement
        )
        await self._send(self.wallet, "mutual", data, deadline=deadline)

    async def defend(self, state: State, deadline: int | None) -> None:
        """Answer an expire with the guard's key and the customer's permit."""
        assert state.signature is not None
        assert state.permit is not None
        data = calls.defend(
            self._id,
            int.from_bytes(state.lock),
            state.customer_balance,
            state.merchant_balance,
            state.signature,
            state.permit,
        )
        await self._send(self.guard, f"defend/{state.index}", data, deadline=deadline)

    async def claim(self, record: ChannelRecord) -> None:
        """End a close whose deadline has passed; anybody may, so the guard pays for it."""
        await self._send(self.guard, f"claim/{record.deadline}", calls.claim(self._id))

    async def reclaim(self) -> None:
        """Take the deposit back that the merchant did not match."""
        await self._send(self.guard, "reclaim", calls.reclaim(self._id))

    async def dispute(self, secret: bytes, deadline: int | None) -> None:
        """Void a stale close by the guard."""
        await self._send(self.guard, "dispute", calls.dispute(self._id, secret), deadline=deadline)
