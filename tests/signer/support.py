"""A merchant with a real key and a daemon's side of the link, to drive a signer in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from customersigner.derivation import Wallet
from customersigner.policy import Policy
from customersigner.signer import Signer
from customersigner.store import Store
from zkchannels import abacus
from zkchannels.escrow import typed_data
from zkchannels.escrow.ethereum import PrivateKey, recover
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

CHAIN = 31337
ESCROW = b"\xe5" * 20
TOKEN = b"\x70" * 20
GUARD = b"\x6a" * 20
ENTROPY = bytes(range(16))
UNIT = 10**9
SALT = b"\x5a" * 32

Call = Callable[[Method[Any, Any], Any], Awaitable[Any]]


class Merchant:
    """Signs what it is shown, for one escrow."""

    def __init__(self, *, escrow: bytes = ESCROW, token: bytes = bytes(20)) -> None:
        self.key = abacus.SecretKey.generate()
        self.account = PrivateKey(b"\x33" * 32)
        self.escrow = escrow
        self.token = token
        self.session = b"\x44" * 16

    @property
    def registration(self) -> wire.EscrowParams:
        """What the daemon tells the signer about this merchant's escrow."""
        return wire.EscrowParams(
            CHAIN,
            self.escrow,
            self.account.address,
            self.token,
            UNIT,
            self.key.public.g1_half(),
            self.key.public.to_escrow_key(),
        )

    @property
    def context(self) -> bytes:
        """The context of the proofs of the current session."""
        return abacus.context(CHAIN, self.escrow, self.session)

    def agree(self, channel: bytes, customer: int, merchant: int) -> bytes:
        """Sign a mutual close."""
        digest = typed_data.mutual_close_digest(
            CHAIN, self.escrow, int.from_bytes(channel), customer, merchant
        )
        return self.account.sign_digest(digest)


@dataclass
class Channel:
    """One channel as the daemon sees it, with the merchant's half of every exchange."""

    call: Call
    merchant: Merchant
    account: bytes
    salt: bytes = SALT
    deposits: tuple[int, int] = (1000, 50)
    operation: bytes = b"\x01" * 16
    index: int = 0
    attempt: int = 0
    token: bytes = b""
    balances: list[int] = field(default_factory=list)

    @property
    def id(self) -> bytes:
        """The channel's id."""
        number = abacus.channel_id(CHAIN, self.merchant.escrow, self.account, self.salt)
        return number.to_bytes(32)

    @property
    def establish_params(self) -> wire.EstablishProveParams:
        """The request for the first proof."""
        return wire.EstablishProveParams(
            self.id,
            CHAIN,
            self.merchant.escrow,
            self.salt,
            *self.deposits,
            self.merchant.session,
            self.operation,
        )

    async def prove_establish(self) -> abacus.EstablishCommitments:
        """Ask for the first proof and verify it."""
        answer = await self.call(wire.ESTABLISH_PROVE, self.establish_params)
        return abacus.verify_establish(
            self.merchant.key,
            self.merchant.context,
            int.from_bytes(self.id),
            *self.deposits,
            answer.proof,
        )

    def authorization_params(
        self, index: int, attempt: int, signature: bytes, *, guard: bytes = GUARD
    ) -> wire.AuthorizeParams:
        """The request with a blinded closing authorization."""
        return wire.AuthorizeParams(self.id, index, attempt, signature, guard)

    async def authorize_establish(self) -> wire.Authorization:
        """Go as far as the first closing authorization."""
        commitments = await self.prove_establish()
        signature = self.merchant.key.blind_sign(commitments.close)
        self.token = self.merchant.key.blind_sign(commitments.state)
        self.balances = list(self.deposits)
        answer: wire.Authorization = await self.call(
            wire.ESTABLISH_AUTHORIZE, self.authorization_params(0, 0, signature)
        )
        return answer

    async def establish(self) -> wire.Authorization:
        """Go as far as the first pay token."""
        authorization = await self.authorize_establish()
        await self.call(wire.ESTABLISH_COMPLETE, wire.CompleteParams(self.id, 0, 0, self.token))
        return authorization

    def pay_params(self, amount: int, attempt: int = 0, **changes: Any) -> wire.PayProveParams:
        """The request for the next payment's proof."""
        index = self.index + 1
        operation = bytes([index, attempt]) * 8
        params = wire.PayProveParams(
            self.id, index, attempt, operation, amount, self.merchant.session, self.token
        )
        return msgspec.structs.replace(params, **changes)

    async def prove_pay(
        self, amount: int, attempt: int = 0
    ) -> tuple[wire.PayProof, abacus.PayCommitments]:
        """Ask for a payment's proof and verify it."""
        answer = await self.call(wire.PAY_PROVE, self.pay_params(amount, attempt))
        commitments = abacus.verify_pay(
            self.merchant.key,
            self.merchant.context,
            abacus.decode_scalar(answer.nonce),
            amount,
            answer.proof,
        )
        return answer, commitments

    async def authorize_pay(self, amount: int, attempt: int = 0) -> wire.PayAuthorized:
        """Go as far as the released secret, and check what it opens."""
        proof, commitments = await self.prove_pay(amount, attempt)
        signature = self.merchant.key.blind_sign(commitments.close)
        answer: wire.PayAuthorized = await self.call(
            wire.PAY_AUTHORIZE, self.authorization_params(self.index + 1, attempt, signature)
        )
        assert answer.nonce == proof.nonce
        assert abacus.verify_lock_opening(
            commitments.lock,
            abacus.decode_scalar(answer.lock_blinding),
            abacus.lock_of(answer.secret),
        )
        self.index, self.attempt = self.index + 1, attempt
        self.token = self.merchant.key.blind_sign(commitments.state)
        self.balances = [self.balances[0] - amount, self.balances[1] + amount]
        return answer

    async def pay(self, amount: int, attempt: int = 0) -> wire.PayAuthorized:
        """Make a whole payment."""
        answer = await self.authorize_pay(amount, attempt)
        await self.call(
            wire.PAY_COMPLETE, wire.CompleteParams(self.id, self.index, attempt, self.token)
        )
        return answer

    async def close(self, kind: Any = "unilateral", **changes: Any) -> wire.Authorization:
        """Ask for the authorization to close on the newest state."""
        params = wire.CloseAuthorizeParams(self.id, self.index, kind, GUARD)
        answer: wire.CloseAuthorization = await self.call(
            wire.CLOSE_AUTHORIZE, msgspec.structs.replace(params, **changes)
        )
        request = answer.request
        # Nobody but the customer may ask the merchant to end payments on a state.
        assert (request is not None) == (params.kind == "mutual")
        if request is not None:
            state = (int.from_bytes(answer.lock), answer.customer_balance, answer.merchant_balance)
            number = int.from_bytes(self.id)
            digest = typed_data.mutual_request_digest(CHAIN, self.merchant.escrow, number, *state)
            assert recover(digest, request) == self.account
        return plain(answer)

    async def record(self) -> wire.Record:
        """What the signer has written about this channel."""
        page = await self.call(wire.RECORDS, wire.RecordsParams())
        return next(record for record in page.records if record.channel == self.id)


def plain(answer: wire.CloseAuthorization) -> wire.Authorization:
    """The authorization to close on, without the request to the merchant."""
    fields = msgspec.structs.asdict(answer)
    del fields["request"]
    return wire.Authorization(**fields)


class Desk:
    """A signer without a link: its methods are called directly."""

    def __init__(
        self, folder: Path, *, policy: Policy | None = None, entropy: bytes = ENTROPY
    ) -> None:
        self.folder = folder
        self.wallet = Wallet(entropy)
        self.policy = policy or Policy()
        self.open()

    def open(self) -> None:
        """Start on what is in the store."""
        self.store = Store.open(self.folder / "signer.sqlite", self.wallet.identity)
        self.signer = Signer(self.wallet, self.store, self.policy)
        self._methods = self.signer.methods()

    def close(self) -> None:
        """Stop."""
        self.store.close()

    async def call(self, method: Method[Any, Any], params: Any) -> Any:
        """Call a method as the link does: parameters and result go through JSON.

        An error must be one that the method is documented to give.
        """
        decoded = method.decode_params(msgspec.Raw(msgspec.json.encode(params)))
        try:
            answer = self._methods[method](decoded)
        except RpcError as error:
            if kind_of(error) not in method.errors:
                raise AssertionError(f"{method.name} gives {error.data}") from error
            raise
        return method.decode_result(msgspec.json.encode(answer))

    async def channel(self, merchant: Merchant | None = None, **options: Any) -> Channel:
        """A channel in a registered escrow, nothing proved yet."""
        merchant = merchant or Merchant()
        await self.call(wire.ESCROW, merchant.registration)
        return Channel(self.call, merchant, self.wallet.account.address, **options)


def now(answer: Coroutine[None, None, Any]) -> Any:
    """The answer of a desk, which never waits for anything and needs no event loop."""
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a desk never waits")


async def refused(asked: Awaitable[Any]) -> str:
    """The kind of the error that an answer is; fails when it is none."""
    with pytest.raises(RpcError) as caught:
        await asked
    assert kind_of(caught.value) in wire.ERRORS
    return kind_of(caught.value)
