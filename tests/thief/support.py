"""A thief: what was taken, how it is searched for secrets, and what can be tried with it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from mnemonic import Mnemonic

from customerd.merchants import MerchantAddress
from customersigner.derivation import Wallet, entropy_of, seed_of
from tests.flow.world import World
from tests.recovery.support import Snapshot, dsn_of
from zkchannels import abacus
from zkchannels.abacus import ChannelSecrets
from zkchannels.abacus.keys import points_of
from zkchannels.abacus.signatures import decode_signature, unblind
from zkchannels.devnet.control import ChainRefused
from zkchannels.devnet.network import ETHER, Network
from zkchannels.devnet.service import Service
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.peer import Peer
from zkchannels.jsonrpc.server import connect_tls

PATIENCE = 60.0
_SHORT = 8
"""Values below so many bytes turn up by chance."""


def unprivileged() -> list[str]:
    """The command prefix under which root is an ordinary user for the kernel."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv (util-linux) is needed"
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]


class UnprivilegedNetwork(Network):
    """A network whose programs are started as an ordinary user starts them."""

    def program(self, program: str, name: str = "") -> list[str]:
        """The command line, without root's capabilities."""
        return [*unprivileged(), *super().program(program, name)]


# -- what is secret -------------------------------------------------------------------------------


def signer_secrets(world: World, *labels: str) -> dict[str, bytes | int]:
    """Everything that only the signer may know, by name: of the wallet, and of some channels.

    Of a channel: what belongs to its newest state and to the next one.
    """
    words = world.network.words
    entropy = entropy_of(words)
    wallet = Wallet(entropy)
    found: dict[str, bytes | int] = {
        "words": words.encode(),
        "entropy": entropy,
        "seed": seed_of(words),
        "channel key": wallet._seed_key,
        "account key": wallet.account._key.secret,
        "identity key": wallet._identity._key.secret,
    }
    for label in labels:
        found |= _channel_secrets(world, wallet, label)
    return found


def _channel_secrets(world: World, wallet: Wallet, label: str) -> dict[str, bytes | int]:
    state = newest_state(world, label)
    derived = wallet.channel(state.number)
    blinding = _state_blinding(derived, state)
    names: dict[str, bytes | int] = {
        "nonce": derived.nonce(state.index, state.attempt),
        "revocation secret": derived.secret(state.index, state.attempt),
        "state blinding": blinding,
        "next nonce": derived.nonce(state.index + 1, 0),
        "next revocation secret": derived.secret(state.index + 1, 0),
        "next lock": derived.lock(state.index + 1, 0),
    }
    points = points_of(merchant_key(world))
    signature = decode_signature(points, state.token)
    # The one with factor 1: the open form of exactly this token.
    opened = unblind(points, signature, blinding, 1)
    names["unblinded token"] = opened[128:]
    names["unblinded token, x"] = opened[128 + 16 : 128 + 64]
    return {f"{label}: {name}": value for name, value in names.items()}


def _state_blinding(derived: ChannelSecrets, state: StolenState) -> int:
    if state.index == 0:
        return derived.establish_blindings().state
    return derived.pay_blindings(state.index, state.attempt, state.amount).state


def forms(secret: bytes | int) -> Iterator[bytes]:
    """A secret as a program may hold it: bytes either way round, text, or an integer of Python."""
    value = secret if isinstance(secret, bytes) else secret.to_bytes(32)
    assert len(value) >= _SHORT
    yield value
    yield value[::-1]
    yield value.hex().encode()
    yield base64.b64encode(value)
    number = int.from_bytes(value)
    # CPython keeps an integer as little-endian digits of 30 bits, each in 32.
    digits = range(0, number.bit_length(), 30)
    yield b"".join(((number >> at) % 2**30).to_bytes(4, "little") for at in digits)


def found_in(image: bytes, wanted: Mapping[str, bytes | int]) -> set[str]:
    """Names of the secrets that an image holds in any form."""
    return {name for name, secret in wanted.items() if any(form in image for form in forms(secret))}


# -- what is taken --------------------------------------------------------------------------------


def dump(world: World) -> bytes:
    """The daemon's whole database, as COPY writes it, its binary columns as hexadecimal digits."""
    return b"\n".join(Snapshot(dsn_of(world)).tables.values())


def memory_of(pid: int) -> bytes:
    """All that a process may write to, as root reads it; the process stands still meanwhile."""
    parts = []
    os.kill(pid, signal.SIGSTOP)
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                addresses, rights, *_ = line.split()
                if not rights.startswith("rw"):
                    continue
                start, end = (int(address, 16) for address in addresses.split("-"))
                memory.seek(start)
                # Text is no shared library's: what is not there (a hole) reads short.
                parts.append(memory.read(end - start))
    finally:
        os.kill(pid, signal.SIGCONT)
    return b"\0".join(parts)


@dataclass(frozen=True, slots=True)
class StolenState:
    """A channel's newest state, as the daemon's database tells it."""

    number: int
    index: int
    attempt: int
    amount: int
    lock: int
    balances: tuple[int, int]
    signature: bytes
    permit: bytes
    token: bytes

    @property
    def close(self) -> bytes:
        """A call of the escrow that closes on it."""
        return calls.Close(self.number, self.lock, *self.balances, self.signature).encode()

    @property
    def defend(self) -> bytes:
        """A guard's call that closes on it."""
        return calls.Defend(
            self.number, self.lock, *self.balances, self.signature, self.permit
        ).encode()


def newest_state(world: World, label: str) -> StolenState:
    """Read what the database has about a channel's newest state."""
    with psycopg.connect(dsn_of(world)) as connection:
        row = connection.execute(
            "select c.channel, s.index, s.attempt, coalesce(o.amount, 0), s.lock,"
            " s.customer_balance, s.merchant_balance, s.signature, s.permit, c.token"
            " from channel c join state s on s.channel = c.channel and s.index = c.authorized"
            " left join attempt a on a.channel = s.channel and a.index = s.index"
            "   and a.attempt = s.attempt"
            " left join operation o on o.operation = a.operation"
            " where c.label = %s",
            (label,),
        ).fetchone()
    assert row is not None
    channel, index, attempt, amount, lock, customer, merchant, signature, permit, token = row
    return StolenState(
        int.from_bytes(channel),
        index,
        attempt,
        amount,
        int.from_bytes(lock),
        (customer, merchant),
        signature,
        permit,
        token,
    )


def merchant_key(world: World) -> abacus.PublicKey:
    """The merchant's key, which the database has too."""
    escrow = world.network.merchants["coffee"].escrow
    with psycopg.connect(dsn_of(world)) as connection:
        row = connection.execute(
            "select g1_half, escrow_key from escrow where escrow = %s", (escrow,)
        ).fetchone()
    assert row is not None
    return abacus.PublicKey.from_escrow(*row)


def guard_key(world: World) -> PrivateKey:
    """The guard's key from its file."""
    return PrivateKey(bytes.fromhex((world.network.directory / "guard.key").read_text().strip()))


def signer_files(world: World) -> dict[str, bytes]:
    """All files of the signer, by name: the seed, the record, and the record's journal."""
    found = world.network.signer_directory.iterdir()
    return {path.name: path.read_bytes() for path in found if path.is_file()}


# -- what is tried --------------------------------------------------------------------------------


class Thief:
    """An account with coin of its own, and ways to use what was taken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.key = PrivateKey(secrets.token_bytes(32))
        world.network.chain.faucet(self.key.address, ETHER)

    @property
    def escrow(self) -> bytes:
        """The escrow of the merchant."""
        return self._world.network.merchants["coffee"].escrow

    def refused(self, data: bytes, *, key: PrivateKey | None = None) -> str:
        """Send a call of the escrow, which must fail; return the contract's reason."""
        key, chain = key or self.key, self._world.network.chain
        try:
            chain.view(self.escrow, data, sender=key.address)
        except ChainRefused as refusal:
            reason = refusal.reason
        else:
            raise AssertionError("the escrow would take this call")
        assert not chain.send(key, self.escrow, data).succeeded
        return reason

    def take_coin(self, key: PrivateKey) -> int:
        """Send what an account has to the thief's own; return how much came."""
        chain = self._world.network.chain
        before = chain.balance(self.key.address)
        rest = chain.balance(key.address) - ETHER // 10_000
        assert chain.send(key, self.key.address, b"", value=rest, gas=21_000).succeeded
        return chain.balance(self.key.address) - before

    @asynccontextmanager
    async def merchant(self) -> AsyncIterator[Peer]:
        """A connection to the merchant, which anybody may have."""
        part = self._world.network.merchants["coffee"]
        address = MerchantAddress.parse(part.address)
        context = ssl.create_default_context(
            cafile=str(self._world.network.directory / "merchants.pem")
        )
        peer = await connect_tls(address.host, address.port, context, name="merchant")
        try:
            yield peer
        finally:
            peer.close()
            await peer.wait_closed()

    @contextmanager
    def daemon(self, directory: Path) -> Iterator[CopiedDaemon]:
        """A daemon of the thief's own on a copy of the stolen database."""
        copied = CopiedDaemon(self._world, directory)
        try:
            copied.start()
            yield copied
        finally:
            copied.stop()


class CopiedDaemon:
    """customerd on a copy of another daemon's database, with a guard's key of its own."""

    def __init__(self, world: World, directory: Path) -> None:
        network = world.network
        self._world = world
        self._name = f"copy_{secrets.token_hex(4)}"
        self._directory = directory
        self.socket = directory / "customerd.sock"
        self.signer_socket = directory / "signer.sock"
        self.config = directory / "customerd.toml"
        text = network.config.read_text()
        for old, new in (
            (str(network.socket), str(self.socket)),
            (str(network.signer_socket), str(self.signer_socket)),
            (str(network.directory / "monitor.sock"), str(directory / "monitor.sock")),
            (dsn_of(world), network.cluster.dsn(self._name)),
            (str(network.directory / "guard.key"), str(directory / "guard.key")),
        ):
            text = text.replace(old, new)
        self.config.write_text(text)
        command = [*network.program("customerd"), "--config", str(self.config)]
        self.service = Service("copy", command, log=directory / "customerd.log")

    def start(self) -> None:
        """Load the dump into a database of its own, and run a daemon there."""
        cluster, stolen = self._world.network.cluster, Snapshot(dsn_of(self._world))
        cluster.create_database(self._name)
        # The daemon makes the tables; then it is stopped to fill them.
        self.service.start()
        self.service.stop()
        stolen.restore(cluster.dsn(self._name))
        self.service.start()

    def stop(self) -> None:
        """End it."""
        self.service.stop()

    def attach_other_signer(self) -> None:
        """Dial in with a signer of another seed; return when it was turned away."""
        state = self._directory / "signer"
        passphrase = self._directory / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(24))
        log = self._directory / "signer.log"
        assert turned_away(state, passphrase, self.signer_socket, log) == "wrong_wallet"

    def rpc(self, method: str, /, **params: Any) -> Any:
        """Call it as its owner."""
        with BlockingClient(str(self.socket), timeout=60) as client:
            return client.call(method, params)


def turned_away(state: Path, passphrase: Path, socket: Path, log: Path) -> str:
    """Run a signer with a new seed on a daemon's socket; return the kind of the refusal."""
    command = [*unprivileged(), sys.executable, "-m", "customersigner"]
    command += ["--state-directory", str(state)]
    secret = ["--passphrase-file", str(passphrase)]
    words = Mnemonic("english").generate(128)
    subprocess.run(
        [*command, "init", "--restore", *secret],
        input=words,
        text=True,
        check=True,
        capture_output=True,
    )
    signer = Service("rogue", [*command, "run", *secret, "--socket", str(socket)], log=log)
    signer.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while "daemon_refused" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            assert signer.running
    finally:
        signer.stop()
    line = next(line for line in log.read_text().splitlines() if "daemon_refused" in line)
    return str(json.loads(line)["kind"])
