"""A merchant as real processes on a real chain, and an honest customer that talks to it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from merchantd.config import read_settings
from merchantd.initialise import Asset, initialise
from tests.nursery import Forked, is_ours, shared
from zkchannels.abacus import (
    ChannelSecrets,
    EstablishBlindings,
    PayBlindings,
    PublicKey,
    State,
    channel_id,
    check_blinded,
    closing_authorization,
    context,
    encode_scalar,
    prove_establish,
    prove_pay,
)
from zkchannels.devnet.anvil import Anvil
from zkchannels.escrow import calls
from zkchannels.escrow.ethereum import PrivateKey, parse_address
from zkchannels.escrow.record import ChannelRecord
from zkchannels.escrow.typed_data import mutual_request_digest
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.jsonrpc.peer import Peer
from zkchannels.wire import merchant as wire
from zkchannels.wire.errors import kind_of

UNIT = 10**9
DELAY = 4000
MARGIN = 100
WITHIN = 20.0
# Puts a listening socket where systemd would, then becomes the daemon.
_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_T = TypeVar("_T")
_P = TypeVar("_P", bound=msgspec.Struct)
_R = TypeVar("_R")


async def until(probe: Callable[[], Awaitable[_T]], *, within: float = WITHIN) -> _T:
    """Return the first true value of a probe of another process; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            found = await probe()
            if found:
                return found
            await asyncio.sleep(0.02)


@dataclass
class Daemon:
    """A running `merchantd run`."""

    process: subprocess.Popen[bytes] | Forked
    host: str
    port: int

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask for the end; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=WITHIN)


@dataclass
class MerchantSite:
    """Configuration and files of one merchant; `init` was run."""

    folder: Path
    anvil: Anvil
    dsn: str
    escrow: bytes = b""
    fingerprint: str = ""
    running: list[Daemon] = field(default_factory=list)

    def fresh_database(self) -> str:
        """The connection string of another, empty database of the same server."""
        name = "merchant_" + secrets.token_hex(6)
        self.sql(f"CREATE DATABASE {name}")
        return make_conninfo(self.dsn, dbname=name)

    @property
    def config(self) -> Path:
        """Path of the configuration file."""
        return self.folder / "merchantd.toml"

    def write_config(
        self, extra: str = "", *, confirmations: str = "1", margin: int = MARGIN
    ) -> None:
        """Write the configuration file, with more sections at its end."""
        self.config.write_text(
            f"database = {json.dumps(self.dsn)}\n"
            f"margin = {margin}\n"
            "[chain]\n"
            f'endpoints = ["{self.anvil.url}"]\n'
            f"confirmations = {confirmations}\n"
            'poll = "1s"\n'
            "[listen]\n"
            'host = "127.0.0.1"\n'
            "port = 0\n"
            'names = ["localhost", "127.0.0.1"]\n' + extra
        )

    def write_account(self, key_hex: str) -> None:
        """Write the file of the merchant's account."""
        path = self.folder / "account.key"
        path.touch(mode=0o600)
        path.write_text(key_hex)

    def command(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "merchantd", "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def init(self, *arguments: str) -> dict[str, Any]:
        """Run `init` and return what it says."""
        done = self.command("init", "--json", "--delay", str(DELAY) + "s", *arguments)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        self.escrow = parse_address(said["escrow"])
        self.fingerprint = said["certificate"]
        return said

    def init_here(self) -> None:
        """What `init` does, in this process: much quicker than a program's start."""
        asset = Asset(token=bytes(20), symbol="ETH", decimals=18, unit=UNIT, delay=DELAY)
        done = asyncio.run(initialise(read_settings(self.config), asset))
        self.escrow, self.fingerprint = done.escrow.address, done.fingerprint

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run a command with --json and return what it says."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def start(
        self, *, handed_over: socket.socket | None = None, program: str = "merchantd"
    ) -> Daemon:
        """Start `merchantd run`, perhaps on a socket of ours; return when it says it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.folder / f"notify-{secrets.token_hex(4)}"))
            notify.settimeout(WITHIN)
            log = self.folder / "merchantd.log"
            command = [sys.executable, "-m", program, "--config", str(self.config), "run"]
            environment = {**os.environ, "NOTIFY_SOCKET": notify.getsockname()}
            passed: tuple[int, ...] = ()
            if handed_over is not None:
                passed = (handed_over.fileno(),)
                command = [sys.executable, "-c", _AS_SYSTEMD, str(passed[0]), *command[1:]]
            process: subprocess.Popen[bytes] | Forked
            if is_ours(command):
                process = shared().fork(command, environment, log)
            else:
                with log.open("ab") as errors:
                    process = subprocess.Popen(
                        command, env=environment, stderr=errors, pass_fds=passed
                    )
            said = ""
            try:
                while not said.startswith("READY=1"):
                    said = notify.recv(4096).decode()
            except BaseException:
                process.kill()
                process.wait()
                raise
        host, _, port = said.splitlines()[1].rpartition(" ")[2].rpartition(":")
        daemon = Daemon(process, host, int(port))
        self.running.append(daemon)
        return daemon

    def stop_all(self) -> None:
        """End what is still running."""
        for daemon in self.running:
            if daemon.process.poll() is None:
                daemon.stop()

    def tls(self) -> ssl.SSLContext:
        """A customer's TLS settings, with the merchant's certificate pinned."""
        trusting = ssl.create_default_context(cafile=str(self.folder / "certificate.pem"))
        trusting.minimum_version = ssl.TLSVersion.TLSv1_3
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of later Pythons
        return trusting

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement on the merchant's database; the rows, if it gives any."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    async def seen(self, block: int) -> None:
        """Return when the merchant has read a block."""

        async def read() -> bool:
            return bool(self.sql("SELECT true FROM chain_block WHERE number >= %s", block))

        await until(read)

    def channel(self, number: int) -> ChannelRecord:
        """A channel as the contract shows it."""
        return calls.decode_channel(self.anvil.view(self.escrow, calls.channel(number)))


MERCHANT_KEY_HEX = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""The first development account's, see zkchannels.devnet.accounts."""


@contextmanager
def refused(kind: str) -> Iterator[pytest.ExceptionInfo[RpcError]]:
    """Expect the merchant's refusal of this kind."""
    with pytest.raises(RpcError) as caught:
        yield caught
    assert kind_of(caught.value) == kind, caught.value


async def ask(peer: Peer, method: Method[_P, _R], params: _P) -> _R:
    """Request, again as long as the merchant says "later"."""

    async def answered() -> list[_R]:
        try:
            return [await peer.request(method, params)]
        except RpcError as error:
            if kind_of(error) != "later":
                raise
        return []

    return (await until(answered))[0]


async def refusal(call: Awaitable[object]) -> str:
    """The kind of refusal that a request meets, or nothing when it is answered."""
    try:
        await call
    except RpcError as error:
        return kind_of(error)
    return ""


@dataclass
class Step:
    """One payment on its way: everything that a repeat needs."""

    amount: int
    session: bytes
    old: State
    new: State
    blindings: PayBlindings
    request: wire.PayProveParams
    closing: bytes = b""


@dataclass
class Channel:
    """A customer's side of one channel."""

    number: int
    salt: bytes
    secrets: ChannelSecrets
    index: int
    attempt: int
    state: State
    token: bytes = b""
    token_blinding: int = 0
    closing: bytes = b""
    closing_blinding: int = 0

    @property
    def id(self) -> bytes:
        """The channel id on the wire."""
        return self.number.to_bytes(32)


class _Deaf(asyncio.Protocol):
    """Reads nothing of what comes."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


class Customer:
    """An honest customer with its own account; single steps are there for tests to misuse."""

    def __init__(self, site: MerchantSite, account: PrivateKey) -> None:
        self.site = site
        self.account = account
        self.seed = secrets.token_bytes(64)
        # An address of its own: the merchant counts sessions by address.
        self.source = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
        self._key: PublicKey | None = None

    @property
    def chain_id(self) -> int:
        """The chain's id."""
        return self.site.anvil.chain_id

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Peer]:
        """Connect to the daemon that was started last."""
        peer = Peer(name="merchant")
        await self._dial(lambda: peer)
        try:
            yield peer
        finally:
            peer.close()
            await peer.wait_closed()

    @asynccontextmanager
    async def unheard(
        self, method: Method[Any, Any], params: msgspec.Struct
    ) -> AsyncIterator[None]:
        """Send a request on a connection of its own whose answer nobody reads."""
        deaf = _Deaf()
        transport = await self._dial(lambda: deaf)
        request = {"jsonrpc": "2.0", "id": 1, "method": method.name, "params": params}
        transport.write(msgspec.json.encode(request) + b"\n")
        try:
            yield
        finally:
            transport.abort()
            await deaf.ended.wait()

    async def _dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        daemon = self.site.running[-1]
        transport, _ = await asyncio.get_running_loop().create_connection(
            factory,
            daemon.host,
            daemon.port,
            ssl=self.site.tls(),
            server_hostname="localhost",
            local_addr=(self.source, 0),
        )
        return transport

    async def key(self, peer: Peer) -> PublicKey:
        """The merchant's key: half from the merchant, half from the contract, compared."""
        if self._key is None:
            params = wire.HelloParams(version=wire.PROTOCOL_VERSION, escrow=self.site.escrow)
            welcome = await peer.request(wire.HELLO, params)
            on_chain = calls.decode_bytes(self.site.anvil.view(self.site.escrow, calls.key()))
            self._key = PublicKey.from_escrow(welcome.g1_half, on_chain)
        return self._key

    def context(self, session: bytes) -> bytes:
        """What a proof in a session is bound to."""
        return context(self.chain_id, self.site.escrow, session)

    # Establish

    def new_channel(self, customer_deposit: int, merchant_deposit: int = 0) -> Channel:
        """A channel of which nobody else knows yet."""
        salt = secrets.token_bytes(32)
        number = channel_id(self.chain_id, self.site.escrow, self.account.address, salt)
        derived = ChannelSecrets(self.seed, number)
        state = derived.state(0, 0, customer_deposit, merchant_deposit)
        return Channel(number, salt, derived, 0, 0, state)

    async def propose(self, peer: Peer, channel: Channel, *, note: str = "") -> bytes:
        """Propose a channel; the session."""
        proposal = await ask(
            peer,
            wire.ESTABLISH_PROPOSE,
            wire.EstablishProposeParams(
                customer=self.account.address,
                salt=channel.salt,
                customer_deposit=channel.state.customer_balance,
                merchant_deposit=channel.state.merchant_balance,
                note=note,
            ),
        )
        return proposal.session

    async def establish_proof(
        self,
        peer: Peer,
        channel: Channel,
        session: bytes,
        blindings: EstablishBlindings | None = None,
    ) -> wire.EstablishProveParams:
        """The request that proves the first state."""
        proof = prove_establish(
            await self.key(peer),
            self.context(session),
            channel.state,
            blindings or channel.secrets.establish_blindings(),
        )
        return wire.EstablishProveParams(session=session, proof=proof)

    async def agree(self, peer: Peer, channel: Channel) -> wire.EstablishProveParams:
        """Propose and prove a channel; keep the first closing authorization."""
        session = await self.propose(peer, channel)
        request = await self.establish_proof(peer, channel, session)
        answer = await ask(peer, wire.ESTABLISH_PROVE, request)
        blindings = channel.secrets.establish_blindings()
        key = await self.key(peer)
        check_blinded(key, answer.signature, channel.state.close_state(), blindings.close)
        channel.closing, channel.closing_blinding = answer.signature, blindings.close
        return request

    def open(self, channel: Channel) -> None:
        """Pay the deposit into the escrow."""
        receipt = self.site.anvil.send(
            self.account,
            self.site.escrow,
            calls.open_(channel.salt, channel.state.merchant_balance),
            value=channel.state.customer_balance * UNIT,
        )
        assert receipt.succeeded

    async def activate(self, peer: Peer, channel: Channel) -> None:
        """Wait for the first token."""
        params = wire.EstablishActivateParams(channel=channel.id)

        async def given() -> bytes | None:
            return (await ask(peer, wire.ESTABLISH_ACTIVATE, params)).token

        token = await until(given)
        assert token is not None
        blinding = channel.secrets.establish_blindings().state
        check_blinded(await self.key(peer), token, channel.state, blinding)
        channel.token, channel.token_blinding = token, blinding

    async def establish(
        self, peer: Peer, customer_deposit: int, merchant_deposit: int = 0
    ) -> Channel:
        """A channel that is ready to pay."""
        channel = self.new_channel(customer_deposit, merchant_deposit)
        await self.agree(peer, channel)
        self.open(channel)
        await self.activate(peer, channel)
        return channel

    # Pay

    async def propose_pay(self, peer: Peer, amount: int, *, note: str = "") -> bytes:
        """Propose a payment or refund; the session."""
        params = wire.PayProposeParams(amount=amount, note=note)
        return (await ask(peer, wire.PAY_PROPOSE, params)).session

    async def pay_step(
        self, peer: Peer, channel: Channel, amount: int, session: bytes, *, attempt: int = 0
    ) -> Step:
        """A payment from the channel's present state, with its proof."""
        old, index = channel.state, channel.index + 1
        new = channel.secrets.state(
            index, attempt, old.customer_balance - amount, old.merchant_balance + amount
        )
        blindings = channel.secrets.pay_blindings(index, attempt, amount)
        proof = prove_pay(
            await self.key(peer),
            self.context(session),
            old,
            channel.token,
            channel.token_blinding,
            new,
            amount,
            blindings,
        )
        request = wire.PayProveParams(session=session, nonce=encode_scalar(old.nonce), proof=proof)
        return Step(amount, session, old, new, blindings, request)

    async def prove(self, peer: Peer, step: Step) -> bytes:
        """Send the proof and check the new closing authorization; the answer."""
        answer = await ask(peer, wire.PAY_PROVE, step.request)
        key = await self.key(peer)
        check_blinded(key, answer.signature, step.new.close_state(), step.blindings.close)
        step.closing = answer.signature
        return answer.signature

    def revocation(self, channel: Channel, step: Step) -> wire.PayRevokeParams:
        """The request that revokes the old state of a payment."""
        return wire.PayRevokeParams(
            nonce=step.request.nonce,
            secret=channel.secrets.secret(channel.index, channel.attempt),
            lock_blinding=encode_scalar(step.blindings.lock),
        )

    async def revoke(self, peer: Peer, channel: Channel, step: Step) -> wire.PayToken:
        """Revoke the old state, check the token and move the channel on."""
        answer = await ask(peer, wire.PAY_REVOKE, self.revocation(channel, step))
        check_blinded(await self.key(peer), answer.token, step.new, step.blindings.state)
        channel.state, channel.index, channel.attempt = step.new, channel.index + 1, 0
        channel.token, channel.token_blinding = answer.token, step.blindings.state
        channel.closing, channel.closing_blinding = step.closing, step.blindings.close
        return answer

    async def pay(self, peer: Peer, channel: Channel, amount: int) -> Step:
        """A whole payment (or refund, when negative)."""
        session = await self.propose_pay(peer, amount)
        step = await self.pay_step(peer, channel, amount, session)
        await self.prove(peer, step)
        await self.revoke(peer, channel, step)
        return step

    # Close

    async def authorization(self, peer: Peer, channel: Channel) -> bytes:
        """The closing authorization for the chain."""
        return closing_authorization(
            await self.key(peer),
            channel.closing,
            channel.closing_blinding,
            channel.state.close_state(),
        )

    def close(self, state: State, signature: bytes) -> bool:
        """Close on chain; whether the contract took it."""
        return self.site.anvil.send(
            self.account,
            self.site.escrow,
            calls.close(
                state.channel_id,
                state.lock,
                state.customer_balance,
                state.merchant_balance,
                signature,
            ),
        ).succeeded

    async def mutual(self, peer: Peer, channel: Channel) -> wire.CloseMutualParams:
        """The request for a mutual close on the newest state."""
        state = channel.state
        params = wire.CloseMutualParams(
            channel=channel.id,
            lock=state.lock.to_bytes(32),
            customer_balance=state.customer_balance,
            merchant_balance=state.merchant_balance,
            signature=await self.authorization(peer, channel),
            request=bytes(65),
        )
        return self.asking(params)

    def asking(self, params: wire.CloseMutualParams) -> wire.CloseMutualParams:
        """A request for a mutual close with the customer's signature on it."""
        digest = mutual_request_digest(
            self.chain_id,
            self.site.escrow,
            int.from_bytes(params.channel),
            int.from_bytes(params.lock),
            params.customer_balance,
            params.merchant_balance,
        )
        return msgspec.structs.replace(params, request=self.account.sign_digest(digest))
