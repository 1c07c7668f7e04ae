"""A stolen daemon against the whole signer, with real cryptography, restarts and a real store.

The daemon asks for anything in any order and shows right and wrong signatures; the machine knows
what the merchant signed and holds the rules of docs/protocol.md against all that leaves.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.signer.support import CHAIN, ESCROW, GUARD, Channel, Desk, Merchant, now, plain
from zkchannels import abacus
from zkchannels.escrow import calls
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import signer as wire

offsets = st.sampled_from([0, 0, 0, -1, -2, 1])
attempts = st.sampled_from([0, 0, 1, 2])
KINDS = ["mutual", "unilateral"]
amounts = st.sampled_from([10, 10, 700, -60])


@cache
def merchant() -> Merchant:
    """One merchant for all runs: a key's tables take longer than a run."""
    return Merchant()


class StolenDaemon(RuleBasedStateMachine):
    """Requests in any order against a signer on a store."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.desk = Desk(self.folder)
        self.channel = Channel(self.desk.call, merchant(), self.desk.wallet.account.address)
        self.commitments: dict[tuple[int, int], Any] = {}
        self.nonces: dict[int, set[bytes]] = {}
        self.tokens: dict[int, bytes] = {}
        self.authorized: dict[int, wire.Authorization] = {}
        self.revealed: dict[int, bytes] = {}
        self.closed: dict[int, bytes] = {}

    def teardown(self) -> None:
        """Remove the store."""
        self.desk.close()
        shutil.rmtree(self.folder)

    @initialize(steps=st.integers(0, 9), kind=st.sampled_from([None, None, *KINDS]))
    def begin(self, steps: int, kind: str | None) -> None:
        """The escrow is known, and the channel lived for a while; perhaps it is closing."""
        self._ask(wire.ESCROW, merchant().registration)
        self.go_on(steps)
        if kind is not None:
            self.close(offset=0, kind=kind, once=False)
            self.sign_close(offset=0, late=False)

    @rule(steps=st.integers(1, 5))
    def go_on(self, steps: int) -> None:
        """Some steps as an honest daemon takes them."""
        for _ in range(steps):
            index = self._index(0)
            if (index, 0) in self.commitments:
                self.authorize(offset=0, attempt=0, right=True)
            elif index == 0:
                self.prove_establish()
            elif index - 1 not in self.tokens:
                return
            else:
                self.complete(offset=0)
                self.prove_pay(offset=0, attempt=0, amount=10)

    @rule()
    def restart(self) -> None:
        """The signer stops and starts again on its store."""
        self.desk.close()
        self.desk.open()

    @rule()
    def prove_establish(self) -> None:
        """Ask for the first proof."""
        answer = self._ask(wire.ESTABLISH_PROVE, self.channel.establish_params)
        if answer is not None:
            proof = abacus.verify_establish(
                merchant().key,
                merchant().context,
                int.from_bytes(self.channel.id),
                *self.channel.deposits,
                answer.proof,
            )
            self._proved(0, 0, (0, proof))

    @rule(offset=offsets, attempt=attempts, amount=amounts)
    def prove_pay(self, offset: int, attempt: int, amount: int) -> None:
        """Ask for a payment's proof, with the token of the state before if there is one."""
        index = self._index(offset)
        params = wire.PayProveParams(
            self.channel.id,
            index,
            attempt,
            bytes([attempt]) * 16,
            amount,
            merchant().session,
            self.tokens.get(index - 1, bytes(96)),
        )
        answer = self._ask(wire.PAY_PROVE, params)
        if answer is not None:
            nonce = abacus.decode_scalar(answer.nonce)
            context = merchant().context
            proof = abacus.verify_pay(merchant().key, context, nonce, amount, answer.proof)
            assert not self.closed, "a payment was prepared after a signed close"
            self.nonces.setdefault(index - 1, set()).add(answer.nonce)
            self._proved(index, attempt, (amount, proof))

    @rule(amount=amounts)
    def try_again(self, amount: int) -> None:
        """Ask for another amount from the same state."""
        index = self._index(0)
        attempt = sum(number == index for number, _ in self.commitments)
        self.prove_pay(offset=0, attempt=attempt, amount=amount)

    @rule(offset=offsets, attempt=attempts, right=st.booleans())
    def authorize(self, offset: int, attempt: int, right: bool) -> None:
        """Show a closing authorization, or a signature on something else."""
        index = self._index(offset)
        amount, proof = self.commitments.get((index, attempt), (0, None))
        signature = bytes(96)
        if proof is not None:
            signature = merchant().key.blind_sign(proof.close if right else proof.state)
        params = self.channel.authorization_params(index, attempt, signature)
        method = wire.PAY_AUTHORIZE if index else wire.ESTABLISH_AUTHORIZE
        answer = self._ask(method, params)
        if answer is None:
            return
        authorization = answer.authorization if index else answer
        known = self.authorized.setdefault(index, authorization)
        assert known == authorization, "two authorizations for one state"
        state = abacus.CloseState(
            int.from_bytes(self.channel.id),
            int.from_bytes(known.lock),
            known.customer_balance,
            known.merchant_balance,
        )
        assert abacus.verify_closing(merchant().key.public, state, known.signature)
        assert proof is not None
        self.tokens.setdefault(index, merchant().key.blind_sign(proof.state))
        if index:
            before = self.authorized[index - 1]
            assert before.customer_balance - amount == known.customer_balance
            assert abacus.lock_of(answer.secret) == int.from_bytes(before.lock)
            self.revealed[index - 1] = answer.secret

    @rule(offset=offsets)
    def complete(self, offset: int) -> None:
        """Show the pay token of a state."""
        index = self._index(offset) - 1
        known = self.authorized.get(max(index, 0))
        attempt = known.attempt if known else 0
        token = self.tokens.get(index, bytes(96))
        method = wire.PAY_COMPLETE if index > 0 else wire.ESTABLISH_COMPLETE
        self._ask(method, wire.CompleteParams(self.channel.id, max(index, 0), attempt, token))

    @rule(offset=offsets, attempt=attempts)
    def dispute(self, offset: int, attempt: int) -> None:
        """Ask for a secret; only those that left before may come."""
        index = max(0, self._index(offset) - 1)
        answer = self._ask(wire.DISPUTE_SECRET, wire.DisputeParams(self.channel.id, index, attempt))
        assert answer is None or index in self.revealed

    @rule(offset=offsets, kind=st.sampled_from(KINDS), once=st.booleans())
    def close(self, offset: int, kind: Any, once: bool) -> None:
        """Ask for a close, now and then."""
        index = self._index(offset) - 1
        if once or index < 0:
            return
        params = wire.CloseAuthorizeParams(self.channel.id, index, kind, GUARD)
        answer = self._ask(wire.CLOSE_AUTHORIZE, params)
        if answer is not None:
            assert plain(answer) == self.authorized[index]
            self.closed[index] = b""

    @rule(offset=offsets, late=st.booleans())
    def sign_close(self, offset: int, late: bool) -> None:
        """Have a close transaction signed on any authorization, late ones after asking for it."""
        if late and self.closed:
            self.close(offset=0, kind="unilateral", once=False)
        known = self.authorized.get(self._index(offset) - 1)
        if known is None:
            return
        data = calls.close(
            int.from_bytes(self.channel.id),
            int.from_bytes(known.lock),
            known.customer_balance,
            known.merchant_balance,
            known.signature,
        )
        params = wire.TransactionParams(CHAIN, 0, 1, 1, 1, ESCROW, 0, data)
        answer = self._ask(wire.TRANSACTION_SIGN, params)
        if answer is not None:
            assert known.index in self.closed, "a close was signed that was never written down"
            self.closed[known.index] = answer.raw

    @invariant()
    def every_secret_has_its_successor(self) -> None:
        """Secret i is out only if authorization i+1 was verified (signer-refuses, verify-ca)."""
        assert all(index + 1 in self.authorized for index in self.revealed)

    @invariant()
    def closed_states_keep_their_secret(self) -> None:
        """No state is both revoked and closed on (rules signs, signer-refuses)."""
        assert not self.closed.keys() & self.revealed.keys()
        assert min(self.closed, default=99) > max(self.revealed, default=-1)

    @invariant()
    def one_nonce_per_state(self) -> None:
        """All payments from one state show the same nonce."""
        assert all(len(nonces) == 1 for nonces in self.nonces.values())

    @invariant()
    def the_record_agrees(self) -> None:
        """The signer's record names the newest authorization and the highest secret."""
        page = self._ask(wire.RECORDS, wire.RecordsParams())
        for record in page.records:
            newest = max(self.authorized, default=None)
            assert record.authorization == self.authorized.get(-1 if newest is None else newest)
            assert record.released == max(self.revealed, default=None)

    def _index(self, offset: int) -> int:
        return max(0, max(self.authorized, default=-1) + 1 + offset)

    def _proved(self, index: int, attempt: int, payment: Any) -> None:
        known = self.commitments.setdefault((index, attempt), payment)
        assert known == payment, "one attempt proved two payments"

    def _ask(self, method: Any, params: Any) -> Any:
        try:
            return now(self.desk.call(method, params))
        except RpcError:
            return None


StolenDaemon.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestStolenDaemon = StolenDaemon.TestCase
