"""`merchantd init`: keys, certificate, schema and the escrow contract, each step done once.

Every step looks for its own result first, so that a run that was interrupted anywhere is completed
by the next one, with the same key, account, terms and contract.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merchantd.config import ACCOUNT_KEY, PASSWORD, check_margin
from merchantd.errors import ImpossibleAsset, KeyMismatch, MerchantError, Unfunded
from merchantd.keyfile import create_key
from merchantd.store.escrow import prepare_escrow, record_address, record_key
from merchantd.store.lease import Lease
from merchantd.store.schema import migrate_all
from merchantd.terms import ServedEscrow, Terms
from merchantd.transactions import make_lane
from zkchannels.chain.client import ChainClient
from zkchannels.chain.store import ChainStore
from zkchannels.escrow import calls
from zkchannels.escrow.artefact import deployment_data, matches_artefact
from zkchannels.escrow.ethereum import PrivateKey, checksum
from zkchannels.service.certificate import ensure_certificate
from zkchannels.service.secretfile import credential, credential_path, secret, write_secret
from zkchannels.service.tls import fingerprint
from zkchannels.store.database import Database

if TYPE_CHECKING:
    from merchantd.config import Settings
    from zkchannels.abacus import PublicKey
    from zkchannels.chain.lane import Lane

DEPLOYMENT = "deploy"
_POLL = 0.5
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,15}")
_MOST_DECIMALS = 77
_LARGEST_UNIT = 2**128
_LONGEST_DELAY = 366 * 86_400
_SAFE_DISTANCE = 256
"""Blocks that are read again before the deployment: more than a reorganisation moves it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """What the escrow is to hold, and how long each side has to answer, in seconds."""

    token: bytes
    symbol: str
    decimals: int
    unit: int
    delay: int

    def check(self) -> None:
        """Raise ImpossibleAsset where the contract, or the customers' commands, would refuse."""
        if not _SYMBOL.fullmatch(self.symbol):
            raise ImpossibleAsset("a symbol is a letter, then letters, digits, _ and dots")
        if not 0 <= self.decimals <= _MOST_DECIMALS:
            raise ImpossibleAsset(f"an asset has 0 to {_MOST_DECIMALS} decimals")
        if not 0 < self.unit <= _LARGEST_UNIT:
            raise ImpossibleAsset("a unit is 1 to 2^128 of the asset's smallest denomination")
        if not 0 < self.delay <= _LONGEST_DELAY:
            raise ImpossibleAsset("the delay is 1 second to 366 days")


@dataclass(frozen=True, slots=True)
class Initialised:
    """What the operator has to know and to publish."""

    escrow: ServedEscrow
    fingerprint: str


async def initialise(settings: Settings, asset: Asset) -> Initialised:
    """Do what is left to do; raises MerchantError, or what the chain or the database raises."""
    asset.check()
    check_margin(settings, asset.delay)
    certificate = Path(settings.listen.certificate)
    ensure_certificate(certificate, Path(settings.listen.private_key), settings.listen.names)
    account = load_or_create_account(Path(settings.keys.account))
    database = Database(
        settings.database, application_name="merchantd init", password=credential(PASSWORD)
    )
    lease = Lease(database)
    client = ChainClient(settings.chain.endpoints)
    try:
        await database.connect()
        await migrate_all(database)
        terms = Terms(
            chain_id=await client.chain_id(),
            merchant=account.address,
            token=asset.token,
            symbol=asset.symbol,
            decimals=asset.decimals,
            unit=asset.unit,
            delay=asset.delay,
        )
        if not terms.native and not await client.code(terms.token):
            raise ImpossibleAsset(f"there is no token contract at {checksum(terms.token)}")
        row = await prepare_escrow(database, terms)
        key = create_key(Path(settings.keys.merchant), row.installation)
        await record_key(database, key.public.digest)
        address = row.address
        if address is None:
            await lease.take()
            lane = make_lane(settings, client, database, account)
            address = await _deploy(client, database, lane, terms, key.public)
        escrow = ServedEscrow(terms, address)
        await check_deployment(client, escrow, key.public)
        return Initialised(escrow, fingerprint(certificate))
    finally:
        await lease.release()
        await client.aclose()
        await database.aclose()


def load_or_create_account(path: Path) -> PrivateKey:
    """Return the account in a file of 64 hexadecimal digits; a new one if there is no file."""
    if not path.exists() and credential_path(ACCOUNT_KEY) is None:
        write_secret(path, secrets.token_hex(32).encode())
    return load_account(path)


def load_account(path: Path) -> PrivateKey:
    """Return the account in a credential or a file; raises KeyMismatch when it holds no key."""
    try:
        return PrivateKey(bytes.fromhex(secret(path, ACCOUNT_KEY).decode("ascii").strip()))
    except ValueError:
        raise KeyMismatch(f"{path} holds no private key of 64 hexadecimal digits") from None


async def check_deployment(client: ChainClient, escrow: ServedEscrow, key: PublicKey) -> None:
    """Compare the contract with the records; raises KeyMismatch when anything differs."""
    address, terms = escrow.address, escrow.terms
    where = checksum(address)
    if not matches_artefact(await client.code(address)):
        raise KeyMismatch(f"at {where} there is no escrow of this version")
    found = (
        calls.decode_bytes(await client.eth_call(address, calls.key())),
        calls.decode_address(await client.eth_call(address, calls.merchant())),
        calls.decode_address(await client.eth_call(address, calls.asset())),
        calls.decode_number(await client.eth_call(address, calls.unit())),
        calls.decode_number(await client.eth_call(address, calls.delay())),
    )
    expected = (key.to_escrow_key(), terms.merchant, terms.token, terms.unit, terms.delay)
    if found != expected:
        raise KeyMismatch(f"the escrow at {where} has another key or other terms")


async def _deploy(
    client: ChainClient, database: Database, lane: Lane, terms: Terms, key: PublicKey
) -> bytes:
    data = deployment_data(
        terms.merchant, terms.token, terms.unit, terms.delay, key.to_escrow_key()
    )
    if await lane.find(DEPLOYMENT) is None and await client.balance(terms.merchant) == 0:
        raise Unfunded(
            f"send coin for the deployment to {checksum(terms.merchant)} and run init again"
        )
    await lane.submit(DEPLOYMENT, to=None, value=0, data=data)
    address, block = await _deployed(client, lane)
    await ChainStore(database).watch(address, since=max(block - _SAFE_DISTANCE, 0))
    await record_address(database, address)
    return address


async def _deployed(client: ChainClient, lane: Lane) -> tuple[bytes, int]:
    """Return address and block of the contract as soon as it is included anywhere."""
    while True:
        head = await client.block("latest")
        if head is not None:
            await lane.on_head(head, -1)
        row = await lane.find(DEPLOYMENT)
        assert row is not None
        for transaction in row.hashes:
            receipt = await client.receipt(transaction)
            if receipt is None:
                continue
            if not receipt.succeeded or receipt.contract is None:
                raise MerchantError("the deployment reverted: does this chain have EIP-2537?")
            return receipt.contract, receipt.block_number
        await asyncio.sleep(_POLL)
