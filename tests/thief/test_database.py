"""What a copy of the daemon's database is worth."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.flow.world import World
from tests.recovery.support import rows
from tests.thief.support import (
    Thief,
    dump,
    found_in,
    guard_key,
    merchant_key,
    newest_state,
    signer_secrets,
)
from zkchannels import abacus
from zkchannels.abacus import ChannelSecrets, InvalidSignature
from zkchannels.abacus.keys import points_of
from zkchannels.abacus.signatures import _fingerprint
from zkchannels.escrow import calls, typed_data
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.wire import merchant as wire
from zkchannels.wire.errors import kind_of


def test_a_dump_holds_no_secret(world: World) -> None:
    """No secret of the signer and no key of the guard is in the database; a blinded token is."""
    label = world.establish("1 ETH")
    for _ in range(3):
        world.pay(label, "0.1 ETH")
    taken, state = dump(world), newest_state(world, label)
    wanted = signer_secrets(world, label)
    wanted["guard"] = guard_key(world)._key.secret
    assert found_in(taken, wanted) == set()
    # The search finds what is there.
    known: dict[str, bytes | int] = {
        "token": state.token,
        "lock": state.lock,
        "permit": state.permit,
    }
    assert found_in(taken, known) == set(known)


def test_only_the_newest_state_can_be_closed_on(world: World) -> None:
    """Signatures and permits of states that were left are erased, from the log of events too."""
    label = world.establish("1 ETH")
    first = newest_state(world, label)
    world.pay(label, "0.1 ETH")
    second = newest_state(world, label)
    world.pay(label, "0.1 ETH")
    kept = rows(
        world,
        "select s.index, s.signature is null, s.permit is null from state s"
        " join channel c using (channel) where c.label = %s order by s.index",
        label,
    )
    assert kept == [(0, True, True), (1, True, True), (2, False, False)]
    old: dict[str, bytes | int] = {
        f"{name} of {state.index}": value
        for state in (first, second)
        for name, value in (("signature", state.signature), ("permit", state.permit))
    }
    assert found_in(dump(world), old) == set()


def test_a_dump_moves_nothing_on_chain(world: World, thief: Thief) -> None:
    """Whatever the escrow is asked with what a dump holds, open or expiring, it refuses."""
    label = world.establish("1 ETH")
    world.pay(label, "0.3 ETH")
    network, state = world.network, newest_state(world, label)
    channel = world.show(label)["channel"]
    assert thief.refused(state.close) == "sender"
    assert thief.refused(state.defend) == "status"
    assert thief.refused(calls.Claim(state.number).encode()) == "status"
    mutual = calls.MutualClose(state.number, *state.balances, bytes(64) + b"\x1b")
    assert thief.refused(mutual.encode()) == "sender"
    assert thief.refused(calls.Withdraw(thief.key.address).encode()) == "nothing owed"
    network.daemon.kill()
    network.merchantctl("coffee", "expire", "--no-wait", channel)
    network.chain.mine()
    # The permit names the guard, and the sender is not it.
    assert thief.refused(state.defend) == "permit"
    assert thief.refused(state.close) == "sender"
    assert thief.refused(calls.Claim(state.number).encode()) == "early"
    network.daemon.start()
    closing = world.until(label, chain_status="closing")
    assert closing["customer_balance"]["units"] == 700_000_000
    assert thief.refused(calls.Dispute(state.number, secrets.token_bytes(32)).encode()) == "secret"


async def test_a_blinded_token_pays_nothing(world: World, thief: Thief) -> None:
    """A proof cannot be made with a token whose blinding is unknown; a forced one is refused."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    state, key = newest_state(world, label), merchant_key(world)
    derived = ChannelSecrets(secrets.token_bytes(64), state.number)
    old = derived.state(state.index, state.attempt, *state.balances)
    new = derived.state(state.index + 1, 0, state.balances[0] - 1, state.balances[1] + 1)
    blindings = derived.pay_blindings(state.index + 1, 0, 1)
    async with thief.merchant() as peer:
        proposal = await peer.request(wire.PAY_PROPOSE, wire.PayProposeParams(1))
        chain_id = world.network.chain.chain_id
        where = abacus.context(chain_id, thief.escrow, proposal.session)

        def prove() -> bytes:
            return abacus.prove_pay(key, where, old, state.token, 0, new, 1, blindings)

        with pytest.raises(InvalidSignature):
            prove()
        # The thief's own software would not look.
        points_of(key).checked.keep(_fingerprint(state.token, old, 0), None)
        params = wire.PayProveParams(proposal.session, abacus.encode_scalar(old.nonce), prove())
        with pytest.raises(RpcError) as refused:
            await peer.request(wire.PAY_PROVE, params)
    assert kind_of(refused.value) == "bad_proof"
    world.pay(label, "0.1 ETH")


async def test_stolen_proofs_link_and_pay_nothing(world: World, thief: Thief) -> None:
    """A proof sent again is answered as before, blinded: it tells what was paid, and moves none."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH", note="espresso")
    balances = world.balances(label)
    ((nonce, session, proof),) = rows(
        world,
        "select nonce, a.session, proof from attempt a join channel c using (channel)"
        " where c.label = %s and a.index = 1",
        label,
    )
    async with thief.merchant() as peer:
        again = await peer.request(wire.PAY_PROVE, wire.PayProveParams(session, nonce, proof))
        told = await peer.request(wire.PAY_RECOVER, wire.PayRecoverParams(nonce))
        assert told.amount == 100_000_000
        assert again.signature == told.authorization
        assert told.token == newest_state(world, label).token
        revoke = wire.PayRevokeParams(nonce, secrets.token_bytes(32), bytes(32))
        with pytest.raises(RpcError) as refused:
            await peer.request(wire.PAY_REVOKE, revoke)
    assert kind_of(refused.value) == "bad_opening"
    assert world.balances(label) == balances
    world.pay(label, "0.1 ETH")


def test_a_copy_beside_the_live_daemon_pays_nothing(
    world: World, thief: Thief, tmp_path: Path
) -> None:
    """A daemon on a copied database reads, cannot spend, and takes no signer of the thief's."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    channel = world.show(label)["channel"]
    with thief.daemon(tmp_path) as copied:
        assert copied.rpc("show", label=label)["customer_balance"]["units"] == 900_000_000
        with pytest.raises(RpcError) as refused:
            copied.rpc("pay", label=label, amount="0.1 ETH")
        assert kind_of(refused.value) == "safe_mode"
        copied.attach_other_signer()
        assert copied.rpc("getinfo")["mode"] == "safe"
        # The live one goes on, past what the copy knows.
        world.pay(label, "0.2 ETH")
        world.network.merchantctl("coffee", "expire", "--no-wait", channel)
        world.until(label, chain_status="closing")
    record = world.on_chain(label)
    assert (record.customer_balance, record.closed_by_guard) == (700_000_000, False)


def test_an_order_written_into_the_database_goes_to_merchants_only(
    world: World, thief: Thief
) -> None:
    """Who writes to the database can have payments made, to the channel's merchant and no other."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    before = world.network.chain.balance(thief.key.address)
    world.network.daemon.stop()
    rows(
        world,
        "insert into operation (operation, kind, channel, label, amount, parameters)"
        " select %s, 'pay', channel, label, 50000000, %s from channel where label = %s returning 1",
        secrets.token_bytes(16),
        secrets.token_bytes(32),
        label,
    )
    world.network.daemon.start()
    world.network.wait_mode("ready")
    world.network.wait_channel(
        label, lambda channel: channel["customer_balance"]["units"] == 850_000_000
    )
    assert world.network.chain.balance(thief.key.address) == before


async def test_only_the_customer_can_ask_to_close_by_agreement(world: World, thief: Thief) -> None:
    """The closing authorization alone gets no agreement, which would end payments on the state."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    state = newest_state(world, label)
    own = typed_data.mutual_request_digest(
        world.network.chain.chain_id, thief.escrow, state.number, state.lock, *state.balances
    )
    params = wire.CloseMutualParams(
        state.number.to_bytes(32),
        state.lock.to_bytes(32),
        *state.balances,
        state.signature,
        thief.key.sign_digest(own),
    )
    async with thief.merchant() as peer:
        with pytest.raises(RpcError) as refused:
            await peer.request(wire.CLOSE_MUTUAL, params)
    assert kind_of(refused.value) == "bad_signature"
    world.pay(label, "0.1 ETH")
