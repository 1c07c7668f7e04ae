"""What a backup file is worth."""

from __future__ import annotations

import secrets
from pathlib import Path

from customersigner.derivation import Wallet, entropy_of
from tests.flow.world import World
from tests.recovery.support import Machine
from tests.thief.support import found_in, newest_state, signer_secrets
from zkchannels.escrow.ethereum import checksum


def test_a_backup_tells_whose_it_is_and_no_more(world: World, tmp_path: Path) -> None:
    """Sealed, it shows no secret, channel or merchant; with other words it is nothing."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH", note="espresso")
    file = tmp_path / "wallet.zkbackup"
    world.rpc("backup", file=str(file))
    data, state = file.read_bytes(), newest_state(world, label)
    wanted = signer_secrets(world, label)
    wanted |= {"channel": state.number, "lock": state.lock, "token": state.token}
    wanted |= {"permit": state.permit, "signature": state.signature}
    assert found_in(data, wanted) == set()
    for text in (label, "espresso", "coffee"):
        assert text.encode() not in data
    identity = Wallet(entropy_of(world.network.words)).identity
    assert identity in data or checksum(identity).encode() in data
    with Machine(world, tmp_path / secrets.token_hex(4)) as machine:
        machine.take_over(words=None)
        assert machine.world.refused("restore", file=str(file))["kind"] == "wrong_wallet"
        assert machine.world.rpc("list")["channels"] == []
