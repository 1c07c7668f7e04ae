"""Reading an escrow from the chain: nothing about it is taken from the merchant's word."""

from __future__ import annotations

from customerd.channels.record import Escrow
from zkchannels.chain.client import ChainClient
from zkchannels.chain.errors import ChainError
from zkchannels.escrow import abi, calls
from zkchannels.escrow.artefact import matches_artefact
from zkchannels.escrow.ethereum import ZERO_ADDRESS, checksum

NATIVE_DECIMALS = 18
_SYMBOL = abi.selector("symbol", ())
_DECIMALS = abi.selector("decimals", ())


class NotAnEscrow(Exception):
    """The code at the address is not the escrow contract of this program."""


async def read_escrow(
    client: ChainClient, address: bytes, *, g1_half: bytes, native_symbol: str
) -> Escrow:
    """Read an escrow's terms and key; raises NotAnEscrow, ChainUnavailable."""
    if not matches_artefact(await client.code(address)):
        raise NotAnEscrow(f"there is no escrow contract at {checksum(address)}")
    token = calls.decode_address(await client.eth_call(address, calls.asset()))
    return Escrow(
        escrow=address,
        chain_id=await client.chain_id(),
        merchant=calls.decode_address(await client.eth_call(address, calls.merchant())),
        token=token,
        symbol=native_symbol if token == ZERO_ADDRESS else await _symbol(client, token),
        decimals=NATIVE_DECIMALS if token == ZERO_ADDRESS else await _decimals(client, token),
        unit=calls.decode_number(await client.eth_call(address, calls.unit())),
        delay=calls.decode_number(await client.eth_call(address, calls.delay())),
        g1_half=g1_half,
        escrow_key=calls.decode_bytes(await client.eth_call(address, calls.key())),
    )


async def _symbol(client: ChainClient, token: bytes) -> str:
    """Return a token's symbol; one that says none, or prints badly, is named by its address."""
    try:
        text = calls.decode_bytes(await client.eth_call(token, _SYMBOL)).decode()
    except (ChainError, ValueError):
        text = ""
    if text.isascii() and text.isalnum() and text[0].isalpha() and len(text) <= 11:
        return text
    return "T" + token.hex()[:8].upper()


async def _decimals(client: ChainClient, token: bytes) -> int:
    try:
        decimals = calls.decode_number(await client.eth_call(token, _DECIMALS))
    except (ChainError, ValueError):
        return 0
    return decimals if decimals <= 255 else 0
