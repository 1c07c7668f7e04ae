"""What the merchant answers to each method of the protocol (docs/protocol.md, sessions).

The order of look-up, check and write is the specification's. A record that is written counts as
given; a conflict of two writers is resolved by reading the records again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from merchantd.approver import Approval, Approver, ApproverUnavailable, Rejected
from merchantd.decisions import LocalChannel, agreed_terms
from merchantd.store.records import Conflict, Establishment, Payment, ProveStanding, Records
from zkchannels.abacus import (
    CLOSE,
    MAX_BALANCE,
    AbacusError,
    CloseState,
    InvalidEncoding,
    InvalidStatement,
    SecretKey,
    channel_id,
    context,
    decode_scalar,
    lock_of,
    verify_closing,
    verify_establish,
    verify_lock_opening,
    verify_pay,
)
from zkchannels.escrow.ethereum import InvalidEcdsaSignature, PrivateKey, recover
from zkchannels.escrow.record import ChannelRecord, ChannelStatus
from zkchannels.escrow.typed_data import mutual_close_digest, mutual_request_digest, recovery_digest
from zkchannels.recent import Recent
from zkchannels.service.addresses import source_of
from zkchannels.service.logging import get_logger
from zkchannels.service.patience import Patience
from zkchannels.store.database import DatabaseUnavailable
from zkchannels.wire import merchant as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merchantd.config import Limits
    from merchantd.terms import ServedEscrow
    from merchantd.trust import Trust
    from zkchannels.jsonrpc.errors import RpcError
    from zkchannels.jsonrpc.peer import Handlers, Peer

_log = get_logger("merchantd.handlers")
_Params = TypeVar("_Params")
_Result = TypeVar("_Result")
_REMEMBERED_PAYMENTS = 256
_PAY_COMMITMENTS = slice(96, 240)
_ESTABLISH_COMMITMENTS = slice(0, 96)
_LOCK_COMMITMENT = slice(96, 144)
_UNACTIVATED = (ChannelStatus.ABSENT, ChannelStatus.AWAITING_MERCHANT)
_OPEN = (ChannelStatus.OPEN, ChannelStatus.EXPIRING)


@dataclass(frozen=True, slots=True)
class Funding:
    """A channel on chain, at the newest block and at the newest final one."""

    head: ChannelRecord
    final: ChannelRecord
    confirmations: int
    """Blocks on which the channel has been OPEN without a change, 0 if it is not."""


class ChainView(Protocol):
    """What the handlers see of the chain."""

    def fresh(self) -> bool:
        """Whether the view is younger than a quarter of the escrow's delay."""
        ...

    async def funding(self, channel: bytes) -> Funding:
        """Return a channel on chain."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The merchant's two keys."""

    key: SecretKey
    account: PrivateKey


class MerchantHandlers:
    """The methods of the protocol over one merchant's records."""

    def __init__(
        self,
        *,
        escrow: ServedEscrow,
        identity: Identity,
        records: Records,
        view: ChainView,
        trust: Trust,
        approver: Approver,
        limits: Limits,
        confirmations: int,
    ) -> None:
        """Take part in nothing yet; `confirmations` is 0 for the chain's `finalized` tag."""
        self._escrow = escrow
        self._terms = escrow.terms
        self._key = identity.key
        self._account = identity.account
        self._records = records
        self._view = view
        self._trust = trust
        self._approver = approver
        self._limits = limits
        self._confirmations = confirmations
        self._proposing: Counter[str] = Counter()
        self._bound: Recent[Payment] = Recent(_REMEMBERED_PAYMENTS)
        self._agreed: Recent[int] = Recent(_REMEMBERED_PAYMENTS)
        self._tokens: Recent[bytes] = Recent(_REMEMBERED_PAYMENTS)
        self._patience = Patience(limits.strikes_per_address)

    def register(self, handlers: Handlers) -> None:
        """Offer every method of the protocol."""
        handlers.register(wire.HELLO, self.hello)
        handlers.register(wire.ESTABLISH_PROPOSE, _reachable(self.establish_propose))
        handlers.register(wire.ESTABLISH_PROVE, _reachable(self.establish_prove))
        handlers.register(wire.ESTABLISH_ACTIVATE, _reachable(self.establish_activate))
        handlers.register(wire.PAY_PROPOSE, _reachable(self.pay_propose))
        handlers.register(wire.PAY_PROVE, _reachable(self.pay_prove))
        handlers.register(wire.PAY_REVOKE, _reachable(self.pay_revoke))
        handlers.register(wire.CLOSE_MUTUAL, _reachable(self.close_mutual))
        handlers.register(wire.ESTABLISH_RECOVER, _reachable(self.establish_recover))
        handlers.register(wire.PAY_RECOVER, _reachable(self.pay_recover))

    # Terms

    def hello(self, params: wire.HelloParams, _peer: Peer) -> wire.Welcome:
        """Say what the escrow's terms are."""
        if params.version != wire.PROTOCOL_VERSION:
            raise _refusal("version_unsupported", f"this is version {wire.PROTOCOL_VERSION}")
        if params.escrow != self._escrow.address:
            raise _refusal("escrow_unknown", "this merchant does not serve that escrow")
        terms = self._terms
        return wire.Welcome(
            version=wire.PROTOCOL_VERSION,
            chain_id=terms.chain_id,
            token=terms.token,
            symbol=terms.symbol,
            decimals=terms.decimals,
            unit=terms.unit,
            delay=terms.delay,
            confirmations=self._confirmations,
            minimum_deposit=self._limits.minimum_deposit,
            maximum_deposit=self._limits.maximum_deposit,
            g1_half=self._key.public.g1_half(),
        )

    # Establish

    async def establish_propose(
        self, params: wire.EstablishProposeParams, peer: Peer
    ) -> wire.Proposal:
        """Approve a new channel, or say why not."""
        self._check_records()
        self._check_deposits(params.customer_deposit, params.merchant_deposit)
        source = _source(peer)
        with self._one_more_proposal(source):
            await self._check_room(source)
            approval = await _asked(
                self._approver.establish(
                    params.customer_deposit, params.merchant_deposit, params.note
                )
            )
            session = secrets.token_bytes(16)
            await self._records.open_establish_session(
                session,
                source=source,
                lifetime=self._limits.session_lifetime,
                customer=params.customer,
                salt=params.salt,
                customer_deposit=params.customer_deposit,
                merchant_deposit=params.merchant_deposit,
                note=params.note,
                resource=approval.resource,
            )
        return self._proposal(session)

    def _check_deposits(self, customer_deposit: int, merchant_deposit: int) -> None:
        limits = self._limits
        if not limits.minimum_deposit <= customer_deposit <= limits.maximum_deposit:
            raise _refusal("rejected", "the deposit is outside of this merchant's limits")
        if merchant_deposit > limits.maximum_merchant_deposit:
            raise _refusal("rejected", "this merchant does not deposit so much")
        if customer_deposit + merchant_deposit > MAX_BALANCE:
            raise _refusal("rejected", "the deposits add up to 2**63 or more")

    async def establish_prove(
        self, params: wire.EstablishProveParams, peer: Peer
    ) -> wire.BlindedAuthorization:
        """Record a channel with its first commitments and sign its first close state."""
        source = _source(peer)
        return await _until_settled(lambda: self._establish_prove(params, source))

    async def _establish_prove(
        self, params: wire.EstablishProveParams, source: str
    ) -> wire.BlindedAuthorization:
        commitments = params.proof[_ESTABLISH_COMMITMENTS]
        known = await self._records.channel_of_session(params.session)
        if known is not None:
            return _same_establishment(known, commitments, None)
        if await self._records.refused_in_session(params.session, commitments):
            raise _bad_proof()
        proposal = await self._records.establish_session(params.session)
        if proposal is None or not proposal.live:
            raise await self._session_unknown(params.session)
        number = channel_id(
            self._terms.chain_id, self._escrow.address, proposal.customer, proposal.salt
        )
        channel = number.to_bytes(32)
        known = await self._records.channel(channel)
        if known is not None:
            deposits = (proposal.customer_deposit, proposal.merchant_deposit)
            answer = _same_establishment(known, commitments, deposits)
            await self._records.cancel_session(params.session)
            return answer
        if await self._records.refused(channel, commitments):
            raise _bad_proof()
        self._check_records()
        try:
            accepted = verify_establish(
                self._key,
                self._context(params.session),
                number,
                proposal.customer_deposit,
                proposal.merchant_deposit,
                params.proof,
            )
        except AbacusError:
            await self._records.refuse(channel, commitments, params.session)
            self._patience.strike(source)
            raise _bad_proof() from None
        signature = self._key.blind_sign(accepted.close)
        await self._records.establish(channel, commitments, params.session, signature)
        self._patience.strike(source)
        _log.info("channel_established", channel=channel.hex())
        return wire.BlindedAuthorization(signature)

    async def establish_activate(
        self, params: wire.EstablishActivateParams, _peer: Peer
    ) -> wire.Activation:
        """Give the first pay token once the funding is final."""
        return await _until_settled(lambda: self._establish_activate(params))

    async def _establish_activate(self, params: wire.EstablishActivateParams) -> wire.Activation:
        known = await self._known_channel(params.channel)
        if known.token_answer is not None:
            return wire.Activation(known.token_answer, self._confirmations, self._confirmations)
        self._check_fresh()
        funding = await self._view.funding(params.channel)
        local = _local(known)
        if funding.head.status is not ChannelStatus.ABSENT and not agreed_terms(
            local, funding.head
        ):
            raise _refusal("channel_unusable", "the escrow does not hold what was agreed")
        if funding.head.status in _UNACTIVATED:
            return wire.Activation(None, 0, self._confirmations)
        if funding.head.status is not ChannelStatus.OPEN:
            raise _refusal("channel_unusable", "the channel is closing or closed")
        if funding.final.status is not ChannelStatus.OPEN or not agreed_terms(local, funding.final):
            return wire.Activation(None, funding.confirmations, self._confirmations)
        token = self._key.blind_sign(known.commitments[:48])
        await self._records.activate(params.channel, token)
        _log.info("channel_activated", channel=params.channel.hex())
        return wire.Activation(token, funding.confirmations, self._confirmations)

    # Pay

    async def pay_propose(self, params: wire.PayProposeParams, peer: Peer) -> wire.Proposal:
        """Approve a payment or a refund, or say why not."""
        self._check_fresh()
        source = _source(peer)
        with self._one_more_proposal(source):
            # Nobody is asked in vain; where nobody is, the write looks by itself.
            await self._check_room(source, count=self._approver.asks)
            question = (
                self._approver.refund(-params.amount, params.note)
                if params.amount < 0
                else self._approver.pay(params.amount, params.note)
            )
            approval = await _asked(question)
            session = secrets.token_bytes(16)
            try:
                await self._records.open_pay_session(
                    session,
                    source=source,
                    lifetime=self._limits.session_lifetime,
                    amount=params.amount,
                    note=params.note,
                    resource=approval.resource,
                    room=self._limits.sessions_per_address - self._proposing[source],
                )
            except Conflict:
                raise self._no_room() from None
        self._agreed.keep(session, params.amount)
        return self._proposal(session)

    async def pay_prove(self, params: wire.PayProveParams, peer: Peer) -> wire.BlindedAuthorization:
        """Bind a nonce to commitments and sign the new close state."""
        source = _source(peer)
        return await _until_settled(lambda: self._pay_prove(params, source))

    async def _pay_prove(
        self, params: wire.PayProveParams, source: str
    ) -> wire.BlindedAuthorization:
        commitments = params.proof[_PAY_COMMITMENTS]
        try:
            nonce = decode_scalar(params.nonce)
        except InvalidEncoding:
            raise _bad_proof() from None
        if nonce == CLOSE:
            raise _bad_proof()
        # What this process agreed to itself it need not read, once: where something else is known
        # of nonce, commitments or session, the write is a conflict, and then it does.
        amount = self._agreed.take(params.session)
        if amount is None:
            standing = await self._records.prove_standing(params.nonce, commitments, params.session)
            if standing.closing_answer is not None:
                return await self._repeat_prove(params.session, commitments, standing)
            if standing.refused:
                raise _bad_proof()
            if standing.session_amount is None or not standing.session_live:
                raise await self._session_unknown(params.session)
            amount = standing.session_amount
        self._check_fresh()
        try:
            accepted = verify_pay(
                self._key, self._context(params.session), nonce, amount, params.proof
            )
        except AbacusError:
            await self._records.refuse(params.nonce, commitments, params.session)
            self._patience.strike(source)
            raise _bad_proof() from None
        signature = self._key.blind_sign(accepted.close)
        # While the database is at work there is time for what will be signed next.
        asyncio.get_running_loop().call_soon(self._sign_ahead, accepted.state)
        payment = await self._records.bind(params.nonce, commitments, params.session, signature)
        self._bound.keep(params.nonce, payment)
        return wire.BlindedAuthorization(signature)

    def _sign_ahead(self, state: bytes) -> None:
        """Make a pay token; it stays here until the lock of the state before is entered."""
        self._tokens.keep(state, self._key.blind_sign(state))

    async def _repeat_prove(
        self, session: bytes, commitments: bytes, standing: ProveStanding
    ) -> wire.BlindedAuthorization:
        assert standing.closing_answer is not None
        other = standing.session_amount if standing.session_live else None
        if standing.commitments != commitments or other not in (None, standing.amount):
            raise _refusal("nonce_bound", "this nonce is bound to another payment")
        if other is not None:
            # The payment has its session already: an approval is never left to be used twice.
            await self._records.cancel_session(session)
        return wire.BlindedAuthorization(standing.closing_answer)

    async def pay_revoke(self, params: wire.PayRevokeParams, _peer: Peer) -> wire.PayToken:
        """Enter the old state's lock and give the token on the new state."""
        return await _until_settled(lambda: self._pay_revoke(params))

    async def _pay_revoke(self, params: wire.PayRevokeParams) -> wire.PayToken:
        # What this process bound itself it need not read, once: after a conflict it does.
        payment = self._bound.take(params.nonce) or await self._known_payment(params.nonce)
        number = lock_of(params.secret)
        if not _opens(payment.commitments[_LOCK_COMMITMENT], params.lock_blinding, number):
            raise _refusal("bad_opening", "secret and blinding do not open the lock commitment")
        if payment.token_answer is not None:
            return await self._pay_token(params.nonce, payment, payment.token_answer)
        self._check_fresh()
        lock = number.to_bytes(32)
        state = payment.commitments[:48]
        token = self._tokens.take(state) or self._key.blind_sign(state)
        # Without a service to ask there is nothing that a later answer could add.
        note = "" if payment.resource is None else None
        try:
            await self._records.revoke(params.nonce, lock, params.secret, token, service_note=note)
        except Conflict:
            await self._refuse_used_lock(params.nonce, lock, params.secret)
            raise
        if note is not None:
            return wire.PayToken(token, note)
        return await self._pay_token(params.nonce, payment, token)

    async def _refuse_used_lock(self, nonce: bytes, lock: bytes, secret: bytes) -> None:
        """Refuse a lock that cannot be revoked any more, unless this payment just revoked it."""
        used = await self._records.lock(lock)
        if used is None or used.nonce == nonce:
            return
        if used.secret is None:
            await self._records.learn_secret(lock, secret)
            _log.warning("payment_from_closed_channel_refused")
        raise _refusal("lock_used", "this lock is revoked or its channel was closed")

    async def _pay_token(self, nonce: bytes, payment: Payment, token: bytes) -> wire.PayToken:
        return wire.PayToken(token, await self._service_note(nonce, payment))

    async def _service_note(self, nonce: bytes, payment: Payment) -> str:
        """Return the note of a payment that is made, asked for once and then kept."""
        if payment.service_note is not None:
            return payment.service_note
        note = ""
        if payment.resource is not None:
            try:
                note = await self._approver.service_note(payment.resource)
            except ApproverUnavailable as error:
                _log.warning("service_note_unavailable", reason=str(error))
                raise _refusal("later", "the merchant's service does not answer") from None
        return await self._records.deliver_note(nonce, note)

    # Close and recover

    async def close_mutual(
        self, params: wire.CloseMutualParams, _peer: Peer
    ) -> wire.MutualAuthorization:
        """Burn the lock of the newest state and agree to close on it."""
        known = await self._known_channel(params.channel)
        balances = (params.customer_balance, params.merchant_balance)
        self._check_fresh()
        funding = await self._view.funding(params.channel)
        if funding.head.status not in _OPEN or not agreed_terms(_local(known), funding.head):
            raise _refusal("channel_unusable", "the channel is not open")
        if sum(balances) != known.customer_deposit + known.merchant_deposit:
            raise _refusal("bad_signature", "the balances do not add up to the deposits")
        self._check_customer(params, known.customer)
        self._check_closing(params)
        entered = await self._records.enter_mutual_lock(
            params.lock,
            channel=params.channel,
            customer_balance=params.customer_balance,
            merchant_balance=params.merchant_balance,
        )
        agreed = (entered.channel, entered.customer_balance, entered.merchant_balance)
        if entered.origin != "mutual" or agreed != (params.channel, *balances):
            raise _refusal("lock_used", "this state was revoked or closed on before")
        digest = mutual_close_digest(
            self._terms.chain_id,
            self._escrow.address,
            int.from_bytes(params.channel),
            *balances,
        )
        _log.info("mutual_close_agreed", channel=params.channel.hex())
        return wire.MutualAuthorization(self._account.sign_digest(digest))

    def _check_customer(self, params: wire.CloseMutualParams, customer: bytes) -> None:
        digest = mutual_request_digest(
            self._terms.chain_id,
            self._escrow.address,
            int.from_bytes(params.channel),
            int.from_bytes(params.lock),
            params.customer_balance,
            params.merchant_balance,
        )
        self._require_signed(digest, params.request, customer)

    @staticmethod
    def _require_signed(digest: bytes, signature: bytes, customer: bytes) -> None:
        try:
            signer = recover(digest, signature)
        except InvalidEcdsaSignature:
            signer = b""
        if signer != customer:
            raise _refusal("bad_signature", "this is not the customer's signature")

    def _check_closing(self, params: wire.CloseMutualParams) -> None:
        try:
            state = CloseState(
                int.from_bytes(params.channel),
                int.from_bytes(params.lock),
                params.customer_balance,
                params.merchant_balance,
            )
        except InvalidStatement:
            raise _refusal("bad_signature", "no close state has such a lock") from None
        if not verify_closing(self._key.public, state, params.signature):
            raise _refusal("bad_signature", "the closing authorization does not verify")

    async def establish_recover(
        self, params: wire.EstablishRecoverParams, _peer: Peer
    ) -> wire.EstablishRecord:
        """Give back what was recorded at establish to whoever holds the customer's account."""
        known = await self._known_channel(params.channel)
        digest = recovery_digest(
            self._terms.chain_id, self._escrow.address, int.from_bytes(params.channel)
        )
        self._require_signed(digest, params.signature, known.customer)
        return wire.EstablishRecord(
            customer_deposit=known.customer_deposit,
            merchant_deposit=known.merchant_deposit,
            state_commitment=known.commitments[:48],
            close_commitment=known.commitments[48:],
            authorization=known.closing_answer,
            token=known.token_answer,
        )

    async def pay_recover(self, params: wire.PayRecoverParams, _peer: Peer) -> wire.PaymentRecord:
        """Give back what was recorded for a payment to whoever knows its nonce."""
        payment = await self._known_payment(params.nonce)
        note = ""
        if payment.token_answer is not None:
            note = await self._service_note(params.nonce, payment)
        return wire.PaymentRecord(
            amount=payment.amount,
            state_commitment=payment.commitments[:48],
            close_commitment=payment.commitments[48:96],
            lock_commitment=payment.commitments[_LOCK_COMMITMENT],
            authorization=payment.closing_answer,
            token=payment.token_answer,
            note=note,
        )

    # Parts

    def _context(self, session: bytes) -> bytes:
        return context(self._terms.chain_id, self._escrow.address, session)

    def _proposal(self, session: bytes) -> wire.Proposal:
        return wire.Proposal(session, int(self._limits.session_lifetime))

    def _check_records(self) -> None:
        """Sign nothing new on records that went back in time."""
        if self._trust.reason:
            raise _refusal("later", "the merchant's records are incomplete")

    def _check_fresh(self) -> None:
        self._check_records()
        if not self._view.fresh():
            raise _refusal("later", "the merchant's view of the chain lags behind")

    @contextmanager
    def _one_more_proposal(self, source: str) -> Iterator[None]:
        """Count a proposal that waits for approval as an open session."""
        self._proposing[source] += 1
        try:
            yield
        finally:
            self._proposing[source] -= 1
            if not self._proposing[source]:
                del self._proposing[source]

    async def _check_room(self, source: str, *, count: bool = True) -> None:
        if self._patience.exhausted(source):
            raise _refusal("too_many_sessions", "too many channels or bad proofs in this hour")
        waiting = self._proposing[source]
        limit = self._limits.sessions_per_address
        if waiting > limit or (
            count and waiting + await self._records.open_sessions(source) > limit
        ):
            raise self._no_room()

    def _no_room(self) -> RpcError:
        limit = self._limits.sessions_per_address
        return _refusal("too_many_sessions", f"at most {limit} sessions are open at once")

    async def _session_unknown(self, session: bytes) -> RpcError:
        # Written, so that a clock set back cannot make a refused session usable.
        await self._records.cancel_session(session)
        return _refusal("session_unknown", "no such session, or its time is over")

    async def _known_channel(self, channel: bytes) -> Establishment:
        known = await self._records.channel(channel)
        if known is None:
            raise _refusal("channel_unknown", "no such channel was established")
        return known

    async def _known_payment(self, nonce: bytes) -> Payment:
        payment = await self._records.payment(nonce)
        if payment is None:
            raise _refusal("nonce_unknown", "no payment revealed this nonce")
        return payment


def _reachable(
    handler: Callable[[_Params, Peer], Awaitable[_Result]],
) -> Callable[[_Params, Peer], Awaitable[_Result]]:
    """Return the handler with a database that is away turned into "later".

    That is also right when a commit's outcome is unknown: the repeat finds what was written.
    """

    async def answer(params: _Params, peer: Peer) -> _Result:
        try:
            return await handler(params, peer)
        except DatabaseUnavailable:
            raise _refusal("later", "the merchant's records are out of reach") from None

    return answer


async def _until_settled(attempt: Callable[[], Awaitable[_Result]]) -> _Result:
    """Decide again as long as somebody else's write was first.

    Every conflict leaves a row behind that the next attempt finds, so this ends.
    """
    while True:
        try:
            return await attempt()
        except Conflict:
            await asyncio.sleep(0)


async def _asked(question: Awaitable[Approval]) -> Approval:
    try:
        return await question
    except Rejected as reason:
        raise _refusal("rejected", str(reason)) from None
    except ApproverUnavailable as error:
        _log.warning("approver_unavailable", reason=str(error))
        raise _refusal("later", "the merchant cannot decide now") from None


def _same_establishment(
    known: Establishment, commitments: bytes, deposits: tuple[int, int] | None
) -> wire.BlindedAuthorization:
    recorded = (known.customer_deposit, known.merchant_deposit)
    if known.commitments != commitments or deposits not in (None, recorded):
        raise _refusal("channel_exists", "this channel was established with other values")
    return wire.BlindedAuthorization(known.closing_answer)


def _local(known: Establishment) -> LocalChannel:
    return LocalChannel(
        customer=known.customer,
        customer_deposit=known.customer_deposit,
        merchant_deposit=known.merchant_deposit,
        expire_requested=False,
        ended=False,
    )


def _opens(commitment: bytes, blinding: bytes, lock: int) -> bool:
    try:
        return verify_lock_opening(commitment, decode_scalar(blinding), lock)
    except InvalidEncoding:
        return False


def _source(peer: Peer) -> str:
    source = source_of(peer.transport.get_extra_info("peername"))
    if source is None:
        raise _refusal("later", "the connection is gone")
    return source


def _bad_proof() -> RpcError:
    return _refusal("bad_proof", "the proof does not verify")


def _refusal(kind: str, message: str) -> RpcError:
    return wire.ERRORS.error(kind, message)
