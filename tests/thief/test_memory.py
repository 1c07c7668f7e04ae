"""What the memory of the customer's programs is worth, and who can read it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from customersigner.derivation import Wallet, entropy_of
from tests.flow.world import World
from tests.thief.support import (
    found_in,
    guard_key,
    memory_of,
    newest_state,
    signer_secrets,
    unprivileged,
)

READ = """
import sys
with open(f"/proc/{sys.argv[1]}/mem", "rb", buffering=0) as memory:
    with open(f"/proc/{sys.argv[1]}/maps") as maps:
        line = next(line for line in maps if " rw-p " in line)
    memory.seek(int(line.split("-")[0], 16))
    print(len(memory.read(16)))
"""


def read_as_ordinary_user(pid: int) -> subprocess.CompletedProcess[str]:
    """Read another process' memory as the user whose process it is."""
    command = [*unprivileged(), sys.executable, "-c", READ, str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_other_programs_of_the_user_cannot_read_the_memory(world: World) -> None:
    """Daemon, signer and merchant are closed to their own user, whose other processes are not."""
    network = world.network
    services = (network.daemon, network.signer, network.merchants["coffee"].service)
    for service in services:
        done = read_as_ordinary_user(service.pid)
        assert done.returncode == 1, service.name
        assert "PermissionError" in done.stderr, done.stderr
    other = subprocess.Popen([*unprivileged(), sys.executable, "-c", "input()"], stdin=-1)
    try:
        # A debugger finds the same, so the refusals are the programs' doing, where the system
        # lets a user trace at all.
        done = read_as_ordinary_user(other.pid)
        assert done.stdout == "16\n" or "PermissionError" in done.stderr
    finally:
        other.kill()
        other.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read these programs' memory")
def test_the_daemons_memory_holds_no_secret_of_the_signer(world: World) -> None:
    """After a channel's whole life root finds the guard's key there, and nothing of the seed."""
    label, closed = world.establish("1 ETH"), world.establish("1 ETH")
    for _ in range(3):
        world.pay(label, "0.1 ETH")
    world.rpc("backup", file=str(world.network.directory / "memory.zkbackup"))
    operation = world.rpc("close", label=closed, wait=False)["operation"]
    world.settle(operation)
    wallet = Wallet(entropy_of(world.network.words))
    wanted = signer_secrets(world, label)
    image = memory_of(world.network.daemon.pid)
    assert found_in(image, wanted) == set()
    # What the daemon does have, and the proof that the search finds it.
    held: dict[str, bytes | int] = {
        "guard key": guard_key(world)._key.secret,
        "token": newest_state(world, label).token,
    }
    assert "guard key" in found_in(image, held)
    signers = memory_of(world.network.signer.pid)
    assert {"channel key", "account key", "identity key"} <= found_in(signers, wanted)
    # Known since the owner asked for a backup: it opens backups and nothing else.
    assert wallet.backup_key() not in (wallet.account._key.secret, wallet._seed_key[:32])
