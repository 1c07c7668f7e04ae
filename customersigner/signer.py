"""The signer's methods: check, decide, write, and only then answer.

One thread at a time. Each method is one entry of zkchannels.wire.signer.METHODS and may be
repeated; decisions are in `decide`, what transactions may say in `transactions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

import msgspec

from customersigner import decide, transactions
from customersigner.derivation import Wallet
from customersigner.errors import StoreUnavailable
from customersigner.policy import COIN, Policy
from customersigner.questions import Question, Questions
from customersigner.record import Accepted, Channel, Escrow, Step, Terms
from customersigner.store import Store
from customersigner.usage import Clock, Entry, Kind, Usage
from zkchannels import abacus
from zkchannels.abacus import (
    AbacusError,
    ChannelSecrets,
    CloseState,
    InvalidSignature,
    PublicKey,
    State,
)
from zkchannels.escrow import typed_data
from zkchannels.escrow.transaction import Transaction
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method
from zkchannels.wire import signer as wire

Count = tuple[Entry, Entry | None]
"""What is to be counted, and what was counted before in its place."""


class Signer:
    """Answers the daemon for one wallet; all its methods raise RpcError with a kind of the link.

    Beside the errors listed with each method, all but ping raise `unavailable` when the store
    cannot be used: then nothing was given away.
    """

    def __init__(
        self,
        wallet: Wallet,
        store: Store,
        policy: Policy,
        *,
        questions: Questions | None = None,
        clock: Callable[[int], Clock] = Clock,
    ) -> None:
        self.wallet = wallet
        self.policy = policy
        self.questions = questions or Questions()
        self._store = store
        counted = store.usage()
        self._clock = clock(counted[-1].at if counted else 0)
        self._usage = Usage(counted)
        self._keys: dict[tuple[int, bytes], PublicKey] = {}
        self._prepared: dict[tuple[int, bytes], abacus.PreparedPay] = {}
        self._expected: list[tuple[PublicKey, State | CloseState, int]] = []
        self._received: tuple[tuple[int, bytes], bytes, int] | None = None

    def methods(self) -> dict[Method[Any, Any], Callable[[Any], msgspec.Struct]]:
        """Each method but the ping, which needs nothing, and what answers it."""
        answers: dict[Method[Any, Any], Callable[[Any], msgspec.Struct]] = {
            wire.RECORDS: self.records,
            wire.ADOPT: self.adopt,
            wire.ESCROW: self.register_escrow,
            wire.ESTABLISH_PROVE: self.prove_establish,
            wire.ESTABLISH_AUTHORIZE: self.authorize_establish,
            wire.ESTABLISH_COMPLETE: self.complete_establish,
            wire.PAY_PROVE: self.prove_pay,
            wire.PAY_AUTHORIZE: self.authorize_pay,
            wire.PAY_COMPLETE: self.complete_pay,
            wire.CLOSE_AUTHORIZE: self.authorize_close,
            wire.TRANSACTION_SIGN: self.sign_transaction,
            wire.TOKEN_PERMIT: self.permit_token,
            wire.DISPUTE_SECRET: self.dispute_secret,
            wire.RECOVER_SIGN: self.sign_recovery,
            wire.RECOVER_NONCE: self.recover_nonce,
            wire.RECOVER_ESTABLISH: self.recover_establish,
            wire.RECOVER_PAY: self.recover_pay,
            wire.BACKUP_KEY: self.backup_key,
            wire.POLICY_STATES: self.policy_states,
        }
        return {method: _answering(answer) for method, answer in answers.items()}

    def escrows(self) -> list[Escrow]:
        """The registered escrows. Raises StoreUnavailable."""
        return self._store.escrows()

    def warm(self, escrow: Escrow) -> None:
        """Load an escrow's key and build its tables, ahead of the first payment.

        Tables are made by use: a proof of a state that no channel has, and a check of its two
        commitments taken for a signature, touch all those of a key.
        """
        secrets = self.wallet.channel(0)
        state, blindings = secrets.state(0, 0, 0, 0), secrets.establish_blindings()
        key = self._key(escrow)
        session = abacus.context(escrow.chain_id, escrow.escrow, bytes(16))
        proof = abacus.prove_establish(key, session, state, blindings)
        with suppress(InvalidSignature):
            abacus.check_blinded(key, proof[:96], state, blindings.state)

    def expect(self) -> None:
        """Do half of the checks of what the merchant signs in the payment that was proved last."""
        while self._expected:
            abacus.expect_signature(*self._expected.pop(0))

    def prepare(self) -> None:
        """Do most of the next payment's proof ahead, at every key in use that lacks it.

        Once a token was received, that it will show this token, too.
        """
        for name, key in self._keys.items():
            if name not in self._prepared:
                self._prepared[name] = abacus.prepare_pay(key)
        if self._received is not None:
            name, token, blinding = self._received
            self._received = None
            self._prepared[name].show(token, blinding)

    @staticmethod
    def practise() -> None:
        """Build the tables that all keys share, by a payment under a key made for it."""
        key, secrets = abacus.SecretKey.generate(), ChannelSecrets(bytes(32), 0)
        old, new = secrets.state(0, 0, 0, 0), secrets.state(1, 0, 0, 0)
        session = abacus.context(0, bytes(20), bytes(16))
        token, blindings = key.sign(old), secrets.pay_blindings(1, 0, 0)
        abacus.prove_pay(key.public, session, old, token, 0, new, 0, blindings)

    # -- records ----------------------------------------------------------------------------------

    def records(self, params: wire.RecordsParams) -> wire.Records:
        """A page of records."""
        page = self._store.channels(params.after, params.limit)
        return wire.Records([_wire_record(channel) for channel in page])

    def adopt(self, params: wire.AdoptParams) -> wire.Done:
        """Join the daemon's newer record, after verifying its closing authorization."""
        escrow = self._escrow(params.chain_id, params.escrow)
        terms = self._terms(params)
        stated = params.authorization
        step, previous, proved = _adopted_steps(params)
        secrets = self._secrets(terms.channel)
        lock = secrets.lock(step.index, step.attempt)
        state = abacus.CloseState(
            _number(terms.channel), lock, step.customer_balance, step.merchant_balance
        )
        if stated.lock != lock.to_bytes(32) or not abacus.verify_closing(
            self._key(escrow), state, stated.signature
        ):
            raise _bad_signature()
        self._require_own(escrow, secrets, step, proved, params.proved)
        accepted = Accepted(step, previous, lock, stated.signature, stated.guard, b"")
        accepted = replace(accepted, permit=self._permit(terms, accepted))
        self._store.put(
            decide.adopt(
                self._store.channel(terms.channel),
                terms,
                accepted,
                proved=proved,
                released=params.released,
                completed=params.completed,
                closing=params.closing,
            )
        )
        return wire.Done()

    def _require_own(
        self,
        escrow: Escrow,
        secrets: ChannelSecrets,
        old: Step,
        new: Step | None,
        stated: wire.ProvedWith | None,
    ) -> None:
        """Raise unless a proof that the daemon tells of left this wallet.

        What was proved passed the policy then, and is finished without asking it again: a daemon
        that could name payments of its own here would be bound by no limit.
        """
        if new is not None and stated is not None:
            shown = (stated.state_commitment, stated.close_commitment, stated.lock_commitment)
            if shown != self._commitments(escrow, secrets, old, new):
                raise _foreign()

    def _commitments(
        self, escrow: Escrow, secrets: ChannelSecrets, old: Step, new: Step
    ) -> tuple[bytes, bytes, bytes]:
        """The commitments to state, close state and lock in the proof of a payment."""
        made = abacus.pay_commitments(
            self._key(escrow),
            secrets.lock(old.index, old.attempt),
            _state(secrets, new),
            secrets.pay_blindings(new.index, new.attempt, new.amount),
        )
        return made.state, made.close, made.lock

    def register_escrow(self, params: wire.EscrowParams) -> wire.Done:
        """Check a merchant's key once and keep it for this escrow for good."""
        escrow = Escrow(
            params.chain_id,
            params.escrow,
            params.merchant,
            params.token,
            params.unit,
            params.g1_half,
            params.escrow_key,
        )
        known = self._store.escrow(params.chain_id, params.escrow)
        if known is not None:
            if known != escrow:
                raise _refusal("already_different", "this escrow was registered with other terms")
            return wire.Done()
        self.policy.check_escrow(escrow)
        if params.unit > 2**128:  # what the contract admits
            raise _refusal("bad_key", "the unit is out of range")
        try:
            key = PublicKey.from_escrow(escrow.g1_half, escrow.escrow_key)
        except AbacusError as error:
            raise _refusal("bad_key", str(error)) from None
        self._store.put_escrow(escrow)
        self._keys[escrow.chain_id, escrow.escrow] = key
        return wire.Done()

    # -- establish --------------------------------------------------------------------------------

    def prove_establish(self, params: wire.EstablishProveParams) -> wire.EstablishProof:
        """Bind a new channel to its terms, then prove its first state."""
        escrow = self._escrow(params.chain_id, params.escrow)
        self.policy.check_escrow(escrow)
        terms = self._terms(params)
        known = self._store.channel(terms.channel)
        channel = decide.establish(known, terms, params.operation)
        counts: list[Count] = []
        if known is None:
            deposit = params.customer_deposit * escrow.unit
            counts = self._count("deposit", terms.channel, escrow.token, deposit, new=True)
            self._confirm("deposit", escrow, deposit, params)
        step, secrets = _first_step(channel), self._secrets(terms.channel)
        proof = abacus.prove_establish(
            self._key(escrow),
            abacus.context(terms.chain_id, terms.escrow, params.session),
            _state(secrets, step),
            secrets.establish_blindings(),
        )
        self._write(known, channel, counts)
        return wire.EstablishProof(proof)

    def authorize_establish(self, params: wire.AuthorizeParams) -> wire.Authorization:
        """Verify and keep closing authorization 0."""
        _expect_establish(params.index)
        return _authorization(self._authorize(params))

    def complete_establish(self, params: wire.CompleteParams) -> wire.Done:
        """Check the first pay token."""
        _expect_establish(params.index)
        return self._complete(params)

    # -- pay --------------------------------------------------------------------------------------

    def prove_pay(self, params: wire.PayProveParams) -> wire.PayProof:
        """Bind an attempt to its operation and amount, then prove the payment.

        The token is checked on the way and binds nothing when it is wrong.
        """
        known = self._channel(params.channel)
        payment = decide.pay(
            known,
            index=params.index,
            attempt=params.attempt,
            operation=params.operation,
            amount=params.amount,
        )
        terms, secrets = known.terms, self._secrets(params.channel)
        escrow = self._escrow(terms.chain_id, terms.escrow)
        counts: list[Count] = []
        if payment.channel != known:
            self.policy.check_escrow(escrow)
            amount = params.amount * escrow.unit
            state = params.channel + params.index.to_bytes(8)
            first = not known.attempts
            counts = self._count("payment", state, escrow.token, amount, new=first)
            self._confirm("payment", escrow, amount, params)
        key, old, new = (
            self._key(escrow),
            _state(secrets, payment.old),
            _state(secrets, payment.new),
        )
        blindings = secrets.pay_blindings(params.index, params.attempt, params.amount)
        proof = abacus.prove_pay(
            key,
            abacus.context(terms.chain_id, terms.escrow, params.session),
            old,
            params.token,
            _state_blinding(secrets, payment.old),
            new,
            params.amount,
            blindings,
            prepared=self._prepared.pop((terms.chain_id, terms.escrow), None),
        )
        self._write(known, payment.channel, counts)
        self._expected = [(key, new.close_state(), blindings.close), (key, new, blindings.state)]
        self._received = None
        return wire.PayProof(abacus.encode_scalar(old.nonce), proof)

    def authorize_pay(self, params: wire.AuthorizeParams) -> wire.PayAuthorized:
        """Verify and keep the new closing authorization, then let the old state's secret go."""
        if params.index == 0:
            raise _refusal("out_of_order", "state 0 is reached by establish")
        channel = self._authorize(params)
        accepted, secrets = channel.accepted, self._secrets(params.channel)
        assert accepted is not None
        assert accepted.previous is not None
        old, new = accepted.previous, accepted.step
        return wire.PayAuthorized(
            authorization=_authorization(channel),
            nonce=abacus.encode_scalar(secrets.nonce(old.index, old.attempt)),
            secret=secrets.secret(old.index, old.attempt),
            lock_blinding=abacus.encode_scalar(
                secrets.pay_blindings(new.index, new.attempt, new.amount).lock
            ),
        )

    def complete_pay(self, params: wire.CompleteParams) -> wire.Done:
        """Check the new pay token."""
        return self._complete(params)

    # -- close ------------------------------------------------------------------------------------

    def authorize_close(self, params: wire.CloseAuthorizeParams) -> wire.CloseAuthorization:
        """Write down a close on the newest state, then give its authorization.

        For a mutual close with the request to the merchant, which nobody else can make: it ends
        payments on the state.
        """
        known = self._channel(params.channel)
        try:
            channel = decide.close(known, params.index, params.kind)
        except decide.NewerState:
            record = msgspec.to_builtins(_wire_record(known))
            raise wire.ERRORS.error(
                "newer_state", "a newer closing authorization exists", record=record
            ) from None
        channel = self._for_guard(channel, params.guard)
        self._write(known, channel)
        request = self._mutual_request(channel) if params.kind == "mutual" else None
        return wire.CloseAuthorization(
            **msgspec.structs.asdict(_authorization(channel)), request=request
        )

    def _mutual_request(self, channel: Channel) -> bytes:
        terms, accepted = channel.terms, channel.accepted
        assert accepted is not None
        digest = typed_data.mutual_request_digest(
            terms.chain_id,
            terms.escrow,
            _number(terms.channel),
            accepted.lock,
            accepted.step.customer_balance,
            accepted.step.merchant_balance,
        )
        return self.wallet.account.sign_digest(digest)

    def dispute_secret(self, params: wire.DisputeParams) -> wire.RevocationSecret:
        """Give a secret again that left before."""
        decide.dispute(self._channel(params.channel), params.index)
        secrets = self._secrets(params.channel)
        return wire.RevocationSecret(secrets.secret(params.index, params.attempt))

    # -- recovery ---------------------------------------------------------------------------------

    def sign_recovery(self, params: wire.RecoverParams) -> wire.Signature:
        """Sign the credential for reading a channel back from the merchant."""
        escrow = self._escrow(params.chain_id, params.escrow)
        digest = typed_data.recovery_digest(escrow.chain_id, escrow.escrow, _number(params.channel))
        return wire.Signature(self.wallet.account.sign_digest(digest))

    def recover_nonce(self, params: wire.RecoverNonceParams) -> wire.RecoverNonce:
        """Give the nonce of one of the two newest states."""
        attempt = decide.nonce_of(self._channel(params.channel), params.index)
        nonce = self._secrets(params.channel).nonce(params.index, attempt)
        return wire.RecoverNonce(abacus.encode_scalar(nonce))

    def recover_establish(self, params: wire.RecoverEstablishParams) -> wire.Record:
        """Recognise the first state, verify its closing authorization, and keep it."""
        escrow = self._escrow(params.chain_id, params.escrow)
        terms = self._terms(params)
        known = self._store.channel(terms.channel)
        channel = decide.recover_first(known, terms, params.operation)
        if channel.accepted is not None:
            return _wire_record(channel)
        step, secrets = _first_step(channel), self._secrets(terms.channel)
        made = abacus.establish_commitments(
            self._key(escrow), _state(secrets, step), secrets.establish_blindings()
        )
        if (made.state, made.close) != (params.state_commitment, params.close_commitment):
            raise _foreign()
        channel = self._accept(channel, step, params.signature)
        channel = self._for_guard(channel, params.guard)
        self._write(known, channel)
        return _wire_record(channel)

    def recover_pay(self, params: wire.RecoverPayParams) -> wire.Record:
        """Recognise a payment by its commitments, verify its closing authorization, and keep it."""
        known = self._channel(params.channel)
        channel, step = known, self._recognised(known, params)
        assert channel.accepted is not None
        if step != channel.accepted.step:
            channel = self._accept(channel, step, params.signature)
        channel = self._for_guard(channel, params.guard)
        self._write(known, channel)
        return _wire_record(channel)

    def _recognised(self, known: Channel, params: wire.RecoverPayParams) -> Step:
        secrets = self._secrets(params.channel)
        escrow = self._escrow(known.terms.chain_id, known.terms.escrow)
        stated = (params.state_commitment, params.close_commitment, params.lock_commitment)
        steps = decide.recoverable(
            known, index=params.index, operation=params.operation, amount=params.amount
        )
        for step in steps:
            accepted = known.accepted
            assert accepted is not None
            old = accepted.previous if step.index == accepted.step.index else accepted.step
            assert old is not None
            if step.amount != params.amount:
                continue
            if self._commitments(escrow, secrets, old, step) == stated:
                return step
        raise _foreign()

    def backup_key(self, _params: wire.Nothing) -> wire.BackupKey:
        """Give the key of this wallet's backups."""
        return wire.BackupKey(self.wallet.backup_key())

    # -- chain account ----------------------------------------------------------------------------

    def sign_transaction(self, params: wire.TransactionParams) -> wire.SignedTransaction:
        """Sign a transaction that says exactly what the records ask for."""
        transactions.check_numbers(params)
        escrow = self._store.escrow(params.chain_id, params.to)
        if escrow is not None:
            effect = transactions.check_escrow_call(
                params, escrow, self.wallet.account.address, self._channel
            )
        else:
            escrows = self._store.escrows_of(params.chain_id, params.to) if any(params.to) else []
            if not escrows:
                raise _refusal("escrow_unknown", "the receiver is no registered escrow or token")
            escrow, effect = transactions.check_token_call(params, escrows, self._deposits)
        if not effect.defence:
            self.policy.check_escrow(escrow)
        # A transaction takes the place of an earlier one with its number: one alone is mined.
        number = params.chain_id.to_bytes(8) + params.nonce.to_bytes(8)
        kind: Kind = "defence" if effect.defence else "fee"
        counts = self._count(kind, number, COIN, params.gas * params.max_fee)
        counts += self._count("pull", number + escrow.token, escrow.token, effect.pull)
        self._spend(counts)
        transaction = Transaction(
            chain_id=params.chain_id,
            nonce=params.nonce,
            tip=params.tip,
            max_fee=params.max_fee,
            gas=params.gas,
            to=params.to,
            value=params.value,
            data=params.data,
        )
        signature = self.wallet.account.sign_digest(transaction.signing_digest())
        return wire.SignedTransaction(transaction.with_signature(signature))

    def permit_token(self, params: wire.TokenPermitParams) -> wire.Signature:
        """Sign a permit for a registered escrow to pull recorded deposits."""
        escrow = self._escrow(params.chain_id, params.escrow)
        if escrow.is_native or params.token != escrow.token:
            raise _refusal("invalid", "the escrow does not hold this token")
        if params.value > self._deposits(escrow):
            raise _refusal("invalid", "the permit exceeds the deposits of the recorded channels")
        if max(params.nonce, params.deadline) >= 2**256:
            raise _refusal("invalid", "a number is out of range")
        self.policy.check_escrow(escrow)
        number = params.token + params.nonce.to_bytes(32)
        self._spend(self._count("pull", number, params.token, params.value))
        digest = typed_data.erc2612_permit_digest(
            typed_data.domain_separator(
                params.token_name, params.token_version, params.chain_id, params.token
            ),
            self.wallet.account.address,
            params.escrow,
            params.value,
            params.nonce,
            params.deadline,
        )
        return wire.Signature(self.wallet.account.sign_digest(digest))

    # -- policy -----------------------------------------------------------------------------------

    def policy_states(self, _params: wire.Nothing) -> wire.PolicyStates:
        """Show every limit in force and what is used of it."""
        return wire.PolicyStates(self.policy.states(self._usage, self._clock.now()))

    def _count(
        self, kind: Kind, subject: bytes, asset: bytes, amount: int, *, new: bool = False
    ) -> list[Count]:
        """What is to be counted with a request, at most one; refused when a limit is exceeded.

        What left before under this name was counted then, and a repeat of it adds nothing. `new`:
        the record shows that nothing did.
        """
        if amount <= 0:
            return []
        before = None if new else self._store.counted(kind, subject)
        if before is not None and amount <= before.amount:
            return []
        now = self._clock.now()
        entry = Entry(kind=kind, asset=asset, subject=subject, at=now, amount=amount)
        self.policy.check(self._usage, entry, before)
        return [(entry, before)]

    def _confirm(
        self,
        kind: Literal["payment", "deposit"],
        escrow: Escrow,
        amount: int,
        params: wire.PayProveParams | wire.EstablishProveParams,
    ) -> None:
        """Go on only if nobody has to agree, or somebody did."""
        policy = self.policy
        if not policy.must_confirm(escrow.token, amount):
            return
        self.questions.require(
            Question(
                kind=kind,
                amount=policy.amount(escrow.token, amount),
                to=policy.escrow_name(escrow),
                note=params.note,
                about=msgspec.json.encode((kind, _lasting(params))),
            ),
            patience=policy.patience,
        )

    def _spend(self, counts: list[Count]) -> None:
        """Write what something spends, before it leaves."""
        if counts:
            self._store.count([entry for entry, _ in counts])
            self._spent(counts)

    def _spent(self, counts: Sequence[Count]) -> None:
        for entry, before in counts:
            self._usage.add(entry, before)

    # -- shared -----------------------------------------------------------------------------------

    def _authorize(self, params: wire.AuthorizeParams) -> Channel:
        known = self._channel(params.channel)
        step = decide.authorize(known, params.index, params.attempt)
        channel = known if step is None else self._accept(known, step, params.signature)
        channel = self._for_guard(channel, params.guard)
        self._write(known, channel)
        return channel

    def _accept(self, known: Channel, step: Step, blinded: bytes) -> Channel:
        terms, secrets = known.terms, self._secrets(known.terms.channel)
        close_state = _state(secrets, step).close_state()
        signature = abacus.closing_authorization(
            self._key(self._escrow(terms.chain_id, terms.escrow)),
            blinded,
            _close_blinding(secrets, step),
            close_state,
        )
        return decide.accept(
            known, step, lock=close_state.lock, signature=signature, guard=b"", permit=b""
        )

    def _complete(self, params: wire.CompleteParams) -> wire.Done:
        known = self._channel(params.channel)
        channel = decide.complete(known, params.index, params.attempt)
        assert channel.accepted is not None
        step, secrets = channel.accepted.step, self._secrets(params.channel)
        escrow = self._escrow(known.terms.chain_id, known.terms.escrow)
        blinding = _state_blinding(secrets, step)
        abacus.check_blinded(self._key(escrow), params.token, _state(secrets, step), blinding)
        self._write(known, channel)
        self._received = ((escrow.chain_id, escrow.escrow), params.token, blinding)
        return wire.Done()

    def _for_guard(self, channel: Channel, guard: bytes) -> Channel:
        assert channel.accepted is not None
        if channel.accepted.guard == guard:
            return channel
        accepted = replace(channel.accepted, guard=guard)
        return decide.permit(channel, guard=guard, permit=self._permit(channel.terms, accepted))

    def _permit(self, terms: Terms, accepted: Accepted) -> bytes:
        digest = typed_data.guard_permit_digest(
            terms.chain_id,
            terms.escrow,
            _number(terms.channel),
            accepted.lock,
            accepted.step.customer_balance,
            accepted.step.merchant_balance,
            accepted.guard,
        )
        return self.wallet.account.sign_digest(digest)

    def _write(self, known: Channel | None, channel: Channel, counts: Sequence[Count] = ()) -> None:
        if channel != known:
            self._store.put(channel, [entry for entry, _ in counts])
            self._spent(counts)

    def _channel(self, identity: bytes) -> Channel:
        channel = self._store.channel(identity)
        if channel is None:
            raise _refusal("channel_unknown", "the signer has no record of this channel")
        return channel

    def _escrow(self, chain_id: int, address: bytes) -> Escrow:
        escrow = self._store.escrow(chain_id, address)
        if escrow is None:
            raise _refusal("escrow_unknown", "this escrow was not registered")
        return escrow

    def _key(self, escrow: Escrow) -> PublicKey:
        """The merchant's key; its tables are built once and kept with it."""
        name = (escrow.chain_id, escrow.escrow)
        key = self._keys.get(name)
        if key is None:
            key = PublicKey.from_escrow(escrow.g1_half, escrow.escrow_key)
            self._keys[name] = key
        return key

    def _secrets(self, channel: bytes) -> ChannelSecrets:
        return self.wallet.channel(_number(channel))

    def _deposits(self, escrow: Escrow) -> int:
        """What channels with a closing authorization may pull from the account, in base units."""
        return self._store.committed(escrow.chain_id, escrow.escrow) * escrow.unit

    def _terms(
        self, params: wire.EstablishProveParams | wire.AdoptParams | wire.RecoverEstablishParams
    ) -> Terms:
        """The terms of a channel, whose id must be what this wallet makes of them."""
        account = self.wallet.account.address
        expected = abacus.channel_id(params.chain_id, params.escrow, account, params.salt)
        if params.channel != expected.to_bytes(32):
            raise _refusal("invalid", "the channel id does not belong to these terms")
        return Terms(
            params.channel,
            params.chain_id,
            params.escrow,
            params.salt,
            params.customer_deposit,
            params.merchant_deposit,
        )


def _lasting(params: wire.PayProveParams | wire.EstablishProveParams) -> msgspec.Struct:
    """A request without what changes when it is repeated in another session."""
    return msgspec.structs.replace(params, session=bytes(16))


def _answering(answer: Callable[[Any], msgspec.Struct]) -> Callable[[Any], msgspec.Struct]:
    """Give each failure of cryptography or store the error kind that the link has for it."""

    def call(params: Any) -> msgspec.Struct:
        with _kinds():
            return answer(params)

    return call


@contextmanager
def _kinds() -> Iterator[None]:
    try:
        yield
    except InvalidSignature:
        raise _bad_signature() from None
    except AbacusError as error:
        raise _refusal("invalid", str(error)) from None
    except StoreUnavailable as error:
        raise _refusal("unavailable", str(error)) from None


def _adopted_steps(params: wire.AdoptParams) -> tuple[Step, Step | None, Step | None]:
    """The steps of an adoption; raises `invalid` when they contradict each other."""
    stated, reached, previous, proved = (
        params.authorization,
        params.reached,
        params.previous,
        params.proved,
    )
    if (stated.index, stated.attempt) != (reached.index, reached.attempt):
        raise _refusal("invalid", "the authorization and the step to its state disagree")
    total = params.customer_deposit + params.merchant_deposit
    if stated.customer_balance + stated.merchant_balance != total:
        raise _refusal("invalid", "the balances do not add up to the deposits")
    step = Step(
        stated.index,
        stated.attempt,
        reached.operation,
        reached.amount,
        stated.customer_balance,
        stated.merchant_balance,
    )
    if (previous is None) != (step.index == 0) or (step.index == 0 and step.amount):
        raise _refusal("invalid", "every state but the first has one before it")
    old = None
    if previous is not None:
        old = decide.before(step, previous.attempt, previous.operation, previous.amount)
        if previous.index != old.index or min(old.customer_balance, old.merchant_balance) < 0:
            raise _refusal("invalid", "the step before does not lead here")
    if proved is not None and proved.index != step.index + 1:
        raise _refusal("invalid", "the proof is not for the next state")
    new = None
    if proved is not None:
        new = decide.after(step, proved.attempt, proved.operation, proved.amount)
    return step, old, new


def _state(secrets: ChannelSecrets, step: Step) -> abacus.State:
    return secrets.state(step.index, step.attempt, step.customer_balance, step.merchant_balance)


def _state_blinding(secrets: ChannelSecrets, step: Step) -> int:
    if step.index == 0:
        return secrets.establish_blindings().state
    return secrets.pay_blindings(step.index, step.attempt, step.amount).state


def _close_blinding(secrets: ChannelSecrets, step: Step) -> int:
    if step.index == 0:
        return secrets.establish_blindings().close
    return secrets.pay_blindings(step.index, step.attempt, step.amount).close


def _first_step(channel: Channel) -> Step:
    return channel.proved if channel.accepted is None else channel.accepted.step


def _expect_establish(index: int) -> None:
    if index != 0:
        raise _refusal("out_of_order", "establish ends at state 0")


def _number(channel: bytes) -> int:
    return int.from_bytes(channel)


def _authorization(channel: Channel) -> wire.Authorization:
    accepted = channel.accepted
    assert accepted is not None
    return wire.Authorization(
        index=accepted.step.index,
        attempt=accepted.step.attempt,
        lock=accepted.lock.to_bytes(32),
        customer_balance=accepted.step.customer_balance,
        merchant_balance=accepted.step.merchant_balance,
        signature=accepted.signature,
        guard=accepted.guard,
        permit=accepted.permit,
    )


def _proved(step: Step) -> wire.Proved:
    return wire.Proved(step.index, step.attempt, step.operation, step.amount)


def _wire_record(channel: Channel) -> wire.Record:
    terms, accepted = channel.terms, channel.accepted
    previous = None if accepted is None else accepted.previous
    return wire.Record(
        channel=terms.channel,
        chain_id=terms.chain_id,
        escrow=terms.escrow,
        salt=terms.salt,
        customer_deposit=terms.customer_deposit,
        merchant_deposit=terms.merchant_deposit,
        proved=_proved(channel.proved),
        reached=None if accepted is None else _proved(accepted.step),
        previous=None if previous is None else _proved(previous),
        authorization=None if accepted is None else _authorization(channel),
        released=channel.released,
        completed=channel.completed,
        closing=None if channel.closing is None else channel.closing.index,
    )


def _bad_signature() -> RpcError:
    return wire.ERRORS.error("bad_signature", "the merchant's signature does not verify")


def _foreign() -> RpcError:
    return _refusal("foreign", "the record is not of this wallet's making")


def _refusal(kind: str, message: str) -> RpcError:
    return wire.ERRORS.error(kind, message)
