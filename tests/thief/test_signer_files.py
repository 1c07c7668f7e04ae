"""What the signer's files are worth, without and with their passphrase."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from customersigner import seedfile
from customersigner.derivation import Wallet
from customersigner.errors import WrongPassphrase
from tests.flow.world import World
from tests.recovery.support import SignerCopy
from tests.thief.support import Thief, found_in, newest_state, signer_files, signer_secrets
from zkchannels.escrow.record import ChannelStatus


def test_without_the_passphrase_the_files_tell_and_do_nothing(world: World, tmp_path: Path) -> None:
    """Neither file holds a secret in any form, each guess costs scrypt, and no guess opens it."""
    label = world.establish("1 ETH")
    world.pay(label, "0.1 ETH")
    files, wanted = signer_files(world), signer_secrets(world, label)
    for name, data in files.items():
        assert found_in(data, wanted) == set(), name
    # What they do tell: the record of the channels.
    state = newest_state(world, label)
    known: dict[str, bytes | int] = {"channel": state.number.to_bytes(32)}
    assert any(found_in(data, known) for name, data in files.items() if name != "seed")
    cost = base64.b64decode(files["seed"].split()[1])[:3]
    assert cost >= bytes((15, 8, 3)), "log2 N, r, p of scrypt: a quarter of a second per guess"
    with pytest.raises(WrongPassphrase):
        seedfile.unseal(files["seed"], b"correct horse battery staple")
    stolen = tmp_path / "stolen"
    stolen.mkdir(mode=0o700)
    for name, data in files.items():
        (stolen / name).write_bytes(data)
        (stolen / name).chmod(0o600)
    guess = tmp_path / "guess"
    guess.touch(mode=0o600)
    guess.write_text("correct horse battery staple")
    for command in (["show"], ["run", "--socket", str(world.network.signer_socket)]):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "customersigner", "--state-directory", str(stolen)),
                *(*command, "--passphrase-file", str(guess)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "the passphrase is wrong" in done.stderr
        assert not done.stdout


def test_with_the_passphrase_an_old_copy_takes_everything(world: World, thief: Thief) -> None:
    """The seed is the wallet: the account's coin is taken, and an old state, being left, is lost.

    The loss is the customer's: what the thief closes on is disputed by the honest merchant.
    """
    label = world.establish("1 ETH")
    stale = newest_state(world, label)
    world.pay(label, "0.4 ETH")
    network = world.network
    data = (network.signer_directory / "seed").read_bytes()
    wallet = Wallet(seedfile.unseal(data, network.passphrase.read_bytes().strip()))
    network.daemon.kill()
    assert network.chain.send(wallet.account, thief.escrow, stale.close).succeeded
    network.daemon.start()
    network.wait_mode("ready")
    world.until(label, chain_status="closed")
    record = world.on_chain(label)
    assert record.status is ChannelStatus.CLOSED
    assert (record.customer_balance, record.merchant_balance) == (0, 1_000_000_000)
    taken = thief.take_coin(wallet.account)
    assert taken > 0
    network.chain.faucet(wallet.account.address, taken)


def test_an_old_record_beside_the_live_daemon_catches_up(world: World) -> None:
    """A signer set back in time is brought forward by the daemon, and closes on nothing old."""
    label = world.establish("1 ETH")
    copy = SignerCopy(world)
    for _ in range(3):
        world.pay(label, "0.1 ETH")
    world.network.signer.kill()
    copy.restore()
    world.network.signer.start()
    world.network.wait_mode("ready")
    world.pay(label, "0.1 ETH", idempotency_key=secrets.token_hex(8))
    operation = world.rpc("close", label=label, force=True, wait=False)["operation"]
    assert world.settle(operation)["status"] == "done"
    record = world.on_chain(label)
    assert (record.customer_balance, record.merchant_balance) == (600_000_000, 400_000_000)
