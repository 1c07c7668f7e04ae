"""Gas of every call, the same on both chains and in `gas.json`.

`python -m tests.contract.test_gas` measures on anvil and writes the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.contract.ps import CLOSE, Key
from tests.contract.world import DELAY, Escrow, Puppet, World, lock_of
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.devnet.control import DevChain
from zkchannels.escrow import artefact, calls, typed_data
from zkchannels.escrow.ethereum import ZERO_ADDRESS, PrivateKey

FILE = Path(__file__).with_name("gas.json")

# Everything is fixed: the zero bytes of call data are cheaper than others.
GWEI = 10**9
TOTAL = 10**9
CUSTOMER_BALANCE, MERCHANT_BALANCE = 250_000_000, 750_000_000
CUSTOMER = PrivateKey(32 * b"\x2a")
SECRET = 32 * b"\x51"
PERMIT_DEADLINE = 0x7F_FF_FF_FF_FF


class _Meter:
    """One escrow on a fresh chain, in which every call is made once."""

    def __init__(self, chain: DevChain, asset: str) -> None:
        self.gas: dict[str, int] = {}
        self._key = Key([int.from_bytes(31 * bytes([i])) for i in range(1, 7)])
        merchant, token = DEV_KEYS[1], ZERO_ADDRESS
        if asset == "token":
            token = chain.deploy(DEV_KEYS[0], artefact.token_deployment_data())
        data = artefact.deployment_data(merchant.address, token, GWEI, DELAY, self._key.public)
        receipt = chain.send(DEV_KEYS[0], None, data)
        assert receipt.contract is not None
        self.gas["deploy"] = receipt.gas_used
        escrow = Escrow(chain, receipt.contract, token, self._key, merchant, GWEI)
        self._world = World(escrow, CUSTOMER)
        self._salts = (bytes([number]) * 32 for number in range(1, 256))

    def measure(self) -> dict[str, int]:
        """Gas used by each call on its usual way."""
        world = self._world
        world.open(salt=32 * b"\xff")  # the first tokens to come in are dearer than any later ones
        if not world.escrow.native:
            self._measure_permit()
        self._measure_dual_funding()
        closed, disputed, mutual = (self._open("open") for _ in range(3))
        expired, defended = (self._open("open") for _ in range(2))
        self._run("close", CUSTOMER, calls.close(*self._close_state(closed)))
        world.do(CUSTOMER, calls.close(*self._close_state(disputed)))
        self._run("dispute", world.merchant, calls.dispute(disputed, SECRET))
        self._run("mutual_close", CUSTOMER, self._mutual_close(mutual))
        self._run("expire", world.merchant, calls.expire(expired))
        world.do(world.merchant, calls.expire(defended))
        state = self._close_state(defended)
        self._run("defend", world.guard, calls.defend(*state, world.permit(*state[:4])))
        self._run("dispute of a guard", world.merchant, calls.dispute(defended, SECRET))
        world.pass_deadline(defended)
        self._run("claim", world.stranger, calls.claim(closed))
        self._run("claim after expire", world.stranger, calls.claim(expired))
        if world.escrow.native:
            self._measure_withdrawal()
        return self.gas

    def _run(self, name: str, key: PrivateKey, data: bytes, *, value: int = 0) -> None:
        self.gas[name] = self._world.do(key, data, value=value).gas_used

    def _open(self, name: str, *, merchant_deposit: int = 0) -> int:
        salt = next(self._salts)
        data, value = self._world.open_call(salt, TOTAL, merchant_deposit)
        self._run(name, CUSTOMER, data, value=value)
        return self._world.channel_id(salt)

    def _close_state(self, channel: int) -> tuple[int, int, int, int, bytes]:
        values = (channel, lock_of(SECRET), CUSTOMER_BALANCE, MERCHANT_BALANCE)
        signature = self._key.sign([channel, CLOSE, *values[1:]], u=0x1234567)
        return (*values, signature)

    def _mutual_close(self, channel: int) -> bytes:
        world, balances = self._world, (CUSTOMER_BALANCE, MERCHANT_BALANCE)
        domain = (world.chain.chain_id, world.escrow.address)
        digest = typed_data.mutual_close_digest(*domain, channel, *balances)
        return calls.mutual_close(channel, *balances, world.merchant.sign_digest(digest))

    def _measure_dual_funding(self) -> None:
        world = self._world
        waiting, funded = (self._open("open dual", merchant_deposit=TOTAL) for _ in range(2))
        value = TOTAL if world.escrow.native else 0
        self._run("fund", world.merchant, calls.fund(funded, TOTAL, TOTAL), value=value)
        world.pass_deadline(waiting)
        self._run("reclaim", world.stranger, calls.reclaim(waiting))

    def _measure_withdrawal(self) -> None:
        """Coin is only ever owed to contracts; the figure includes this one's own work."""
        world, salt = self._world, next(self._salts)
        puppet = Puppet(world.chain, CUSTOMER)
        puppet.act(world.escrow.address, calls.open_(salt, 0), value=TOTAL * GWEI)
        channel = world.channel_id(salt, puppet.address)
        puppet.on_receive("refuse")
        puppet.act(world.escrow.address, self._mutual_close(channel))
        receipt = puppet.act(world.escrow.address, calls.withdraw(CUSTOMER.address))
        self.gas["withdraw by a contract"] = receipt.gas_used

    def _measure_permit(self) -> None:
        world, owner, amount = self._world, self._world.stranger, TOTAL * GWEI
        token, escrow = world.escrow.token, world.escrow.address
        world.do_to(token, owner, calls.mint(owner.address, 10**30))
        domain = world.chain.view(token, calls.domain_separator())
        terms = (domain, owner.address, escrow, amount, 0, PERMIT_DEADLINE)
        permit = owner.sign_digest(typed_data.erc2612_permit_digest(*terms))
        salt = 32 * b"\xee"
        self._run("open_permit", owner, calls.open_permit(salt, TOTAL, 0, PERMIT_DEADLINE, permit))
        self.gas["approve"] = world.do_to(token, owner, calls.approve(escrow, 2**255)).gas_used


@pytest.mark.parametrize("asset", ["native", "token"])
@pytest.mark.parametrize("fresh_chain", ["anvil", "embedded"], indirect=True)
def test_gas_is_as_recorded(fresh_chain: DevChain, asset: str) -> None:
    """Every call costs exactly what `gas.json` says, on either chain."""
    recorded = json.loads(FILE.read_text(encoding="utf-8"))[asset]
    assert _Meter(fresh_chain, asset).measure() == recorded


def _main() -> int:
    figures = {}
    for asset in ("native", "token"):
        with Anvil() as chain:
            figures[asset] = _Meter(chain, asset).measure()
    FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
