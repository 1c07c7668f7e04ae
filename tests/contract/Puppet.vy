# pragma version 0.4.3
# pragma evm-version prague
"""An account that is a contract: does what its owner says, and reacts to coin as it was told."""

event Reacted:
    succeeded: bool


ACCEPT: constant(uint256) = 0
REFUSE: constant(uint256) = 1
BURN: constant(uint256) = 2
CALL: constant(uint256) = 3

owner: immutable(address)
reaction: uint256
target: address
data: Bytes[1024]


@deploy
def __init__(owner_: address):
    owner = owner_


@external
@payable
def act(target: address, data: Bytes[1024], amount: uint256) -> Bytes[32]:
    assert msg.sender == owner, "owner"
    return raw_call(target, data, value=amount, max_outsize=32)


@external
def on_receive(reaction: uint256, target: address, data: Bytes[1024]):
    self.reaction = reaction
    self.target = target
    self.data = data


@external
@payable
def __default__():
    if msg.sender == owner or self.reaction == ACCEPT:
        return
    assert self.reaction != REFUSE, "no, thanks"
    if self.reaction == BURN:
        for i: uint256 in range(2**64):
            pass
    succeeded: bool = raw_call(self.target, self.data, revert_on_failure=False)
    log Reacted(succeeded=succeeded)
