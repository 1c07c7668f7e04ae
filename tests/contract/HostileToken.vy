# pragma version 0.4.3
# pragma evm-version prague
"""An ERC-20 token that cheats, refuses, lies or calls back, as it is told."""

event Reacted:
    succeeded: bool


balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
fee: uint256
refused: HashMap[address, bool]
answers: bool
target: address
data: Bytes[1024]


@deploy
def __init__():
    self.answers = True


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
def set_fee(fee: uint256):
    self.fee = fee


@external
def refuse(account: address, refused: bool):
    self.refused[account] = refused


@external
def answer(truth: bool):
    self.answers = truth


@external
def on_transfer(target: address, data: Bytes[1024]):
    self.target = target
    self.data = data


@external
def transfer(to: address, amount: uint256) -> bool:
    if not self.answers:
        return False
    self._move(msg.sender, to, amount)
    return True


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    if not self.answers:
        return False
    self.allowance[owner][msg.sender] -= amount
    self._move(owner, to, amount)
    return True


@internal
def _move(owner: address, to: address, amount: uint256):
    assert not self.refused[to], "blacklisted"
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - self.fee
    if self.target != empty(address):
        succeeded: bool = raw_call(self.target, self.data, revert_on_failure=False)
        log Reacted(succeeded=succeeded)
