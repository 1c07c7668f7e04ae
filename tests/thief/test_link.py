"""What a stolen daemon gets from the real signer, and a foreign signer from the real daemon."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from customersigner.derivation import Wallet, entropy_of
from tests.flow.world import World
from tests.signer.daemon import Daemon, caller, listening
from tests.thief.support import StolenState, Thief, newest_state, turned_away
from zkchannels.devnet.network import ETHER
from zkchannels.escrow import calls
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import merchant as merchant_wire
from zkchannels.wire import signer as wire
from zkchannels.wire.errors import kind_of

Call = Callable[[Any, Any], Awaitable[Any]]
STOLEN = 50_000_000


def transaction(world: World, to: bytes, data: bytes = b"", value: int = 0) -> Any:
    """A transaction of the wallet's account that the stolen daemon would like to have signed."""
    return wire.TransactionParams(
        world.network.chain.chain_id, 99, 10**9, 10**10, 200_000, to, value, data
    )


async def test_a_stolen_daemon_pays_merchants_at_most(world: World, thief: Thief) -> None:
    """The real signer, on a thief's program: every way out but a payment is refused by name.

    The payment goes to the merchant of the channel, by the signer's policy; the true daemon finds
    it in the signer's record afterwards, and goes on.
    """
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    old = newest_state(world, label)
    world.pay(label, "0.1 ETH")
    state, network = newest_state(world, label), world.network
    network.daemon.stop()
    rogue = Daemon()
    async with listening(network.signer_socket, rogue):
        call = caller(await rogue.attached())
        channel = state.number.to_bytes(32)
        page = await call(wire.RECORDS, wire.RecordsParams())
        assert channel in {record.channel for record in page.records}
        payment = _payment(state, bytes(16))
        guard = thief.key.address
        for method, params, kind in (
            (wire.TRANSACTION_SIGN, transaction(world, guard, value=ETHER), "escrow_unknown"),
            (
                wire.TRANSACTION_SIGN,
                transaction(world, thief.escrow, calls.Withdraw(guard).encode()),
                "policy_refused",
            ),
            (wire.TRANSACTION_SIGN, transaction(world, thief.escrow, state.close), "out_of_order"),
            (wire.TRANSACTION_SIGN, transaction(world, thief.escrow, old.close), "released"),
            (
                wire.CLOSE_AUTHORIZE,
                wire.CloseAuthorizeParams(channel, old.index, "unilateral", guard),
                "newer_state",
            ),
            (
                wire.DISPUTE_SECRET,
                wire.DisputeParams(channel, state.index, state.attempt),
                "out_of_order",
            ),
            (
                wire.PAY_AUTHORIZE,
                wire.AuthorizeParams(channel, state.index + 1, 0, bytes(96), guard),
                "out_of_order",
            ),
            (wire.PAY_PROVE, _payment(replace(state, token=bytes(96)), bytes(16)), "bad_signature"),
            (wire.PAY_PROVE, _payment(state, bytes(16), 10**18), "invalid"),
        ):
            with pytest.raises(RpcError) as refused:
                await call(method, params)
            assert kind_of(refused.value) == kind, (method.name, refused.value)
        key = await call(wire.BACKUP_KEY, wire.Nothing())
        wallet = Wallet(entropy_of(network.words))
        assert key.key == wallet.backup_key()
        await _pay(thief, call, payment)
        # A second payment from the same state is refused.
        with pytest.raises(RpcError) as refused:
            await call(wire.PAY_PROVE, _payment(state, secrets.token_bytes(16), STOLEN + 1))
        assert kind_of(refused.value) == "already_different"
    network.daemon.start()
    network.wait_mode("ready")
    network.wait_channel(label, lambda channel: channel["status"] == "idle")
    assert world.balances(label) == (state.balances[0] - STOLEN, state.balances[1] + STOLEN)
    world.pay(label, "0.1 ETH")


def _payment(state: StolenState, operation: bytes, amount: int = STOLEN) -> wire.PayProveParams:
    return wire.PayProveParams(
        state.number.to_bytes(32),
        state.index + 1,
        0,
        operation,
        amount,
        bytes(16),
        state.token,
    )


async def _pay(thief: Thief, call: Call, params: wire.PayProveParams) -> None:
    """Make a payment as the daemon would; a wrong authorization gets no secret on the way."""
    guard = thief.key.address
    async with thief.merchant() as peer:
        proposal = await peer.request(
            merchant_wire.PAY_PROPOSE, merchant_wire.PayProposeParams(params.amount)
        )
        made = await call(
            wire.PAY_PROVE,
            wire.PayProveParams(
                params.channel,
                params.index,
                params.attempt,
                params.operation,
                params.amount,
                proposal.session,
                params.token,
            ),
        )
        proved = merchant_wire.PayProveParams(proposal.session, made.nonce, made.proof)
        answer = await peer.request(merchant_wire.PAY_PROVE, proved)
        which = (params.channel, params.index, params.attempt)
        with pytest.raises(RpcError) as refused:
            await call(wire.PAY_AUTHORIZE, wire.AuthorizeParams(*which, params.token, guard))
        assert kind_of(refused.value) == "bad_signature"
        given = await call(
            wire.PAY_AUTHORIZE, wire.AuthorizeParams(*which, answer.signature, guard)
        )
        revoke = merchant_wire.PayRevokeParams(given.nonce, given.secret, given.lock_blinding)
        token = await peer.request(merchant_wire.PAY_REVOKE, revoke)
        await call(wire.PAY_COMPLETE, wire.CompleteParams(*which, token.token))


def test_a_foreign_signer_is_turned_away(world: World, tmp_path: Path) -> None:
    """Neither another seed nor a known identity without its key takes the place of the signer."""
    label = world.establish("1 ETH")
    network = world.network
    before = network.rpc("signer-status")
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_urlsafe(24))
    kind = turned_away(tmp_path / "state", passphrase, network.signer_socket, tmp_path / "log")
    assert kind == "wrong_wallet"
    wallet = Wallet(entropy_of(network.words))
    identity = base64.b64encode(wallet.identity).decode()
    with BlockingClient(str(network.signer_socket), timeout=30) as client:
        for method in ("getinfo", "pay", wire.RECORDS.name, wire.BACKUP_KEY.name):
            with pytest.raises(RpcError) as unknown:
                client.call(method, {})
            assert unknown.value.code == -32601
        client.call(wire.LINK_HELLO.name, {"version": wire.LINK_VERSION, "identity": identity})
        forged = {
            "signature": base64.b64encode(bytes(64) + b"\x1b").decode(),
            "account": base64.b64encode(wallet.account.address).decode(),
            "instance": base64.b64encode(bytes(16)).decode(),
        }
        with pytest.raises(RpcError) as refused:
            client.call(wire.LINK_ATTACH.name, forged)
        assert kind_of(refused.value) == "bad_signature"
    assert network.rpc("signer-status") == before
    world.pay(label, "0.1 ETH")
