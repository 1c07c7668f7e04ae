# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
# pragma nonreentrancy on
"""
@title Escrow of zero-knowledge payment channels
@license MIT
@notice Holds the deposits of all channels between one merchant key and its customers, in one asset.
        Amounts, deposits and balances are integers of `unit` base units of the asset, below 2**63 per channel.
        A close is authorised by a Pointcheval-Sanders signature that is verified here by the
        BLS12-381 precompiles of EIP-2537. Not audited.
"""

from ethereum.ercs import IERC20

interface IPermit:
    def permit(
        owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32
    ): nonpayable


# What a channel is, as `channel(id)` shows it. Balances are those of the close that is posted, or
# what was paid out once the channel is CLOSED or RECLAIMED.
struct Channel:
    status: uint256
    customer: address
    customer_deposit: uint256
    merchant_deposit: uint256
    deadline: uint256
    customer_balance: uint256
    merchant_balance: uint256
    lock: uint256
    closed_by_guard: bool
    guard_struck_off: bool


# The events of a channel, in order, tell everything `channel(id)` tells.
event Opened:
    channel: indexed(uint256)
    customer: indexed(address)
    customer_deposit: uint256
    merchant_deposit: uint256
    deadline: uint256  # 0, or when the customer may reclaim because the merchant did not fund


event Funded:
    channel: indexed(uint256)


event Reclaimed:
    channel: indexed(uint256)


event Expiring:
    channel: indexed(uint256)
    deadline: uint256


event Closing:
    channel: indexed(uint256)
    lock: indexed(uint256)
    customer_balance: uint256
    merchant_balance: uint256
    deadline: uint256
    by_guard: bool


event Voided:
    channel: indexed(uint256)
    secret: bytes32
    deadline: uint256


event Disputed:
    channel: indexed(uint256)
    secret: bytes32


event Settled:
    channel: indexed(uint256)
    customer_amount: uint256
    merchant_amount: uint256


# A payout that its receiver, or the token, refused; kept for `withdraw`.
event Owed:
    receiver: indexed(address)
    amount: uint256


event Withdrawn:
    receiver: indexed(address)
    to: address
    amount: uint256


# Statuses; a channel that was never opened has status 0.
AWAITING_MERCHANT: constant(uint256) = 1
OPEN: constant(uint256) = 2
EXPIRING: constant(uint256) = 3
CLOSING: constant(uint256) = 4
CLOSED: constant(uint256) = 5
RECLAIMED: constant(uint256) = 6

CLOSE_TAG: constant(uint256) = 289043075909  # "CLOSE" in ASCII, in the place of a state's nonce
LOCK_LIMIT: constant(uint256) = 2**253  # below the group order: a scalar has one representation only
TOTAL_LIMIT: constant(uint256) = 2**63
LONGEST_DELAY: constant(uint256) = 366 * 86400

G2_ADD: constant(address) = 0x000000000000000000000000000000000000000d
G2_MSM: constant(address) = 0x000000000000000000000000000000000000000E
PAIRING: constant(address) = 0x000000000000000000000000000000000000000F
# keccak256 of the negated standard generator of G2, in the encoding of EIP-2537
NEGATED_G2: constant(bytes32) = 0x9d41e2cf944436283ec549a3bf1bec04abf6cecf29311013f821bcf5eb9e5d6c

# Enough for a smart wallet to take note of a payment, too little to harm whoever pays for the call.
PAYOUT_GAS: constant(uint256) = 30000

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_NAME: constant(bytes32) = keccak256("zkChannels escrow")
DOMAIN_VERSION: constant(bytes32) = keccak256("1")
GUARD_PERMIT_TYPE: constant(bytes32) = keccak256(
    "GuardPermit(uint256 channel,uint256 lock,uint256 customer_balance,uint256 merchant_balance,address guard)"
)
MUTUAL_CLOSE_TYPE: constant(bytes32) = keccak256(
    "MutualClose(uint256 channel,uint256 customer_balance,uint256 merchant_balance)"
)

# Fields of a head: customer (160 bits), status (8), closed by guard, guard struck off, deadline.
CUSTOMER_MASK: constant(uint256) = 2**160 - 1
STATUS_SHIFT: constant(uint256) = 160
CLOSED_BY_GUARD: constant(uint256) = 2**168
GUARD_STRUCK_OFF: constant(uint256) = 2**169
DEADLINE_SHIFT: constant(uint256) = 176
# Fields of sums: customer deposit, merchant deposit, customer balance, merchant balance, 64 bits each.
SUM_MASK: constant(uint256) = 2**64 - 1
DEPOSITS_MASK: constant(uint256) = 2**128 - 1

merchant: public(immutable(address))
asset: public(immutable(address))  # an ERC-20 token, or zero: the native coin
unit: public(immutable(uint256))
delay: public(immutable(uint256))  # seconds
key: public(immutable(Bytes[1792]))  # -g2 | X2 | Y2_1..5

heads: HashMap[uint256, uint256]
sums: HashMap[uint256, uint256]
locks: HashMap[uint256, uint256]
owed: public(HashMap[address, uint256])


@deploy
def __init__(merchant_: address, asset_: address, unit_: uint256, delay_: uint256, key_: Bytes[1792]):
    """
    @notice Refuses a key that is malformed and a chain without the precompiles of EIP-2537.
    @param merchant_ Account that funds, expires, signs mutual closes and is paid
    @param asset_ ERC-20 token, or the zero address for the native coin
    @param unit_ Base units of the asset per unit of balance
    @param delay_ Seconds between a step and the end of the time to answer it
    @param key_ The merchant's public key, -g2 | X2 | Y2_1..5 in the encoding of EIP-2537
    """
    assert merchant_ != empty(address), "merchant"
    assert unit_ > 0 and unit_ <= 2**128, "unit"
    assert delay_ > 0 and delay_ <= LONGEST_DELAY, "delay"
    assert len(key_) == 1792, "key"
    assert keccak256(slice(key_, 0, 256)) == NEGATED_G2, "key"
    merchant = merchant_
    asset = asset_
    unit = unit_
    delay = delay_
    key = key_
    # One look at every element of the key by the very calls a close will make. They also succeed,
    # with no data, where the precompiles do not exist.
    infinity: Bytes[128] = abi_encode(empty(uint256[4]))
    found: Bytes[32] = raw_call(
        PAIRING,
        concat(
            infinity, slice(key_, 256, 256), infinity, slice(key_, 512, 256), infinity, slice(key_, 768, 256),
            infinity, slice(key_, 1024, 256), infinity, slice(key_, 1280, 256), infinity, slice(key_, 1536, 256),
        ),
        max_outsize=32,
        is_static_call=True,
    )
    assert len(found) == 32 and convert(found, uint256) == 1, "no EIP-2537"
    combined: Bytes[256] = self._combine(key_, empty(uint256[5]))
    assert keccak256(combined) == keccak256(slice(key_, 256, 256)), "no EIP-2537"


# Views


@external
@view
def channel_id(customer: address, salt: bytes32) -> uint256:
    """
    @notice The id of the channel that `customer` opens with `salt`; below 2**253
    """
    return self._channel_id(customer, salt)


@external
@view
def channel(id: uint256) -> Channel:
    """
    @notice Everything the escrow knows of a channel; all zero if it was never opened
    """
    head: uint256 = self.heads[id]
    sums: uint256 = self.sums[id]
    return Channel(
        status=self._status(head),
        customer=self._customer(head),
        customer_deposit=sums & SUM_MASK,
        merchant_deposit=(sums >> 64) & SUM_MASK,
        deadline=head >> DEADLINE_SHIFT,
        customer_balance=(sums >> 128) & SUM_MASK,
        merchant_balance=sums >> 192,
        lock=self.locks[id],
        closed_by_guard=head & CLOSED_BY_GUARD != 0,
        guard_struck_off=head & GUARD_STRUCK_OFF != 0,
    )


# Opening


@external
@payable
def open(salt: bytes32, merchant_deposit: uint256) -> uint256:
    """
    @notice Opens a channel with the value sent; waits for the merchant's deposit unless that is 0
    @return The channel's id
    """
    assert asset == empty(address), "asset"
    assert msg.value % unit == 0, "unit"
    return self._open(salt, msg.value // unit, merchant_deposit)


@external
def open_token(salt: bytes32, customer_deposit: uint256, merchant_deposit: uint256) -> uint256:
    """
    @notice Opens a channel with tokens the escrow was approved to take
    @return The channel's id
    """
    assert asset != empty(address), "asset"
    self._pull(customer_deposit)
    return self._open(salt, customer_deposit, merchant_deposit)


@external
def open_permit(
    salt: bytes32, customer_deposit: uint256, merchant_deposit: uint256,
    deadline: uint256, v: uint8, r: bytes32, s: bytes32,
) -> uint256:
    """
    @notice Opens a channel with tokens, approved in the same transaction by an EIP-2612 permit on exactly them
    @return The channel's id
    """
    assert asset != empty(address), "asset"
    amount: uint256 = customer_deposit * unit
    # A permit is public once sent and anyone may have submitted it before: its effect is what counts.
    if staticcall IERC20(asset).allowance(msg.sender, self) < amount:
        extcall IPermit(asset).permit(msg.sender, self, amount, deadline, v, r, s)
    self._pull(customer_deposit)
    return self._open(salt, customer_deposit, merchant_deposit)


@external
@payable
def fund(id: uint256, customer_deposit: uint256, merchant_deposit: uint256):
    """
    @notice The merchant's deposit; names both, as the id does not tell on which terms a channel was opened
    """
    head: uint256 = self.heads[id]
    assert msg.sender == merchant, "sender"
    assert self._status(head) == AWAITING_MERCHANT, "status"
    sums: uint256 = self.sums[id]
    assert customer_deposit == sums & SUM_MASK and merchant_deposit == (sums >> 64) & SUM_MASK, "terms"
    self.heads[id] = self._moved(head, OPEN, 0)
    log Funded(channel=id)
    if asset == empty(address):
        assert msg.value == merchant_deposit * unit, "value"
    else:
        assert msg.value == 0, "value"
        self._pull(merchant_deposit)


@external
def reclaim(id: uint256):
    """
    @notice Gives the customer its deposit back when the merchant has not funded for the delay; by anyone
    """
    head: uint256 = self.heads[id]
    assert self._status(head) == AWAITING_MERCHANT, "status"
    assert block.timestamp > head >> DEADLINE_SHIFT, "early"
    deposits: uint256 = self.sums[id]
    amount: uint256 = deposits & SUM_MASK
    self.heads[id] = self._moved(head, RECLAIMED, 0)
    self.sums[id] = deposits | (amount << 128)
    log Reclaimed(channel=id)
    self._pay(self._customer(head), amount)


# Closing. Only `claim` is gated by a deadline; every other step stays possible until somebody claims.


@external
def expire(id: uint256):
    """
    @notice The merchant asks for the channel to be closed; unanswered for the delay, all goes to the merchant
    """
    head: uint256 = self.heads[id]
    assert msg.sender == merchant, "sender"
    assert self._status(head) == OPEN, "status"
    deadline: uint256 = block.timestamp + delay
    self.heads[id] = self._moved(head, EXPIRING, deadline)
    log Expiring(channel=id, deadline=deadline)


@external
def close(
    id: uint256, lock: uint256, customer_balance: uint256, merchant_balance: uint256, signature: Bytes[256]
):
    """
    @notice The customer closes on a close state that the merchant signed
    @param signature sigma1 | sigma2, two points of G1 in the encoding of EIP-2537
    """
    head: uint256 = self.heads[id]
    status: uint256 = self._status(head)
    assert msg.sender == self._customer(head), "sender"
    assert status == OPEN or status == EXPIRING, "status"
    self._post(id, head, lock, customer_balance, merchant_balance, signature, False)


@external
def defend(
    id: uint256, lock: uint256, customer_balance: uint256, merchant_balance: uint256, signature: Bytes[256],
    v: uint8, r: bytes32, s: bytes32,
):
    """
    @notice A guard closes for the customer, who signed a permit for exactly this close by exactly this
            sender (EIP-712); only in answer to an expire, and never again once such a close was disputed
    """
    head: uint256 = self.heads[id]
    assert self._status(head) == EXPIRING, "status"
    assert head & GUARD_STRUCK_OFF == 0, "struck off"
    permit: bytes32 = self._typed_digest(
        keccak256(abi_encode(GUARD_PERMIT_TYPE, id, lock, customer_balance, merchant_balance, msg.sender))
    )
    assert ecrecover(permit, v, r, s) == self._customer(head), "permit"
    self._post(id, head, lock, customer_balance, merchant_balance, signature, True)


@external
def dispute(id: uint256, secret: bytes32):
    """
    @notice Shows that the posted close state was revoked; by anyone. The customer's own close forfeits
            all to the merchant; a guard's close is void and the customer gets the delay to close itself
    """
    head: uint256 = self.heads[id]
    assert self._status(head) == CLOSING, "status"
    assert convert(keccak256(secret), uint256) >> 3 == self.locks[id], "secret"
    sums: uint256 = self.sums[id]
    if head & CLOSED_BY_GUARD != 0:
        deadline: uint256 = block.timestamp + delay
        self.heads[id] = self._moved(head, EXPIRING, deadline) | GUARD_STRUCK_OFF
        self.sums[id] = sums & DEPOSITS_MASK
        self.locks[id] = 0
        log Voided(channel=id, secret=secret, deadline=deadline)
        return
    log Disputed(channel=id, secret=secret)
    self._settle(id, head, sums, 0, self._total(sums))


@external
def claim(id: uint256):
    """
    @notice Ends a close after its deadline; by anyone. CLOSING: both are paid. EXPIRING: all to the merchant
    """
    head: uint256 = self.heads[id]
    status: uint256 = self._status(head)
    assert status == CLOSING or status == EXPIRING, "status"
    assert block.timestamp > head >> DEADLINE_SHIFT, "early"
    sums: uint256 = self.sums[id]
    if status == EXPIRING:
        self._settle(id, head, sums, 0, self._total(sums))
    else:
        self._settle(id, head, sums, (sums >> 128) & SUM_MASK, sums >> 192)


@external
def mutual_close(
    id: uint256, customer_balance: uint256, merchant_balance: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice The customer closes at once on balances the merchant signed (EIP-712)
    """
    head: uint256 = self.heads[id]
    status: uint256 = self._status(head)
    assert msg.sender == self._customer(head), "sender"
    assert status == OPEN or status == EXPIRING, "status"
    sums: uint256 = self.sums[id]
    assert customer_balance + merchant_balance == self._total(sums), "sum"
    agreed: bytes32 = self._typed_digest(
        keccak256(abi_encode(MUTUAL_CLOSE_TYPE, id, customer_balance, merchant_balance))
    )
    assert ecrecover(agreed, v, r, s) == merchant, "signature"
    self._settle(id, head, sums, customer_balance, merchant_balance)


@external
def withdraw(to: address):
    """
    @notice Sends what is owed to the caller, because a payout to it failed, wherever the caller wants
    """
    amount: uint256 = self.owed[msg.sender]
    assert amount > 0, "nothing owed"
    self.owed[msg.sender] = 0
    log Withdrawn(receiver=msg.sender, to=to, amount=amount)
    if asset == empty(address):
        raw_call(to, b"", value=amount * unit)
    else:
        assert extcall IERC20(asset).transfer(to, amount * unit, default_return_value=True), "transfer"


# Parts


@internal
@view
def _channel_id(customer: address, salt: bytes32) -> uint256:
    return convert(keccak256(abi_encode(chain.id, self, customer, salt)), uint256) >> 3


@internal
@pure
def _status(head: uint256) -> uint256:
    return (head >> STATUS_SHIFT) & 255


@internal
@pure
def _customer(head: uint256) -> address:
    return convert(convert(head & CUSTOMER_MASK, uint160), address)


@internal
@pure
def _moved(head: uint256, status: uint256, deadline: uint256) -> uint256:
    # The customer stays for ever, and so does the guard's strike.
    return head & (CUSTOMER_MASK | GUARD_STRUCK_OFF) | (status << STATUS_SHIFT) | (deadline << DEADLINE_SHIFT)


@internal
@pure
def _total(sums: uint256) -> uint256:
    return (sums & SUM_MASK) + ((sums >> 64) & SUM_MASK)


@internal
@view
def _typed_digest(message: bytes32) -> bytes32:
    domain: bytes32 = keccak256(abi_encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, chain.id, self))
    return keccak256(concat(x"1901", domain, message))


@internal
def _open(salt: bytes32, customer_deposit: uint256, merchant_deposit: uint256) -> uint256:
    id: uint256 = self._channel_id(msg.sender, salt)
    assert self.heads[id] == 0, "used"
    assert customer_deposit > 0 and customer_deposit + merchant_deposit < TOTAL_LIMIT, "deposit"
    status: uint256 = OPEN
    deadline: uint256 = 0
    if merchant_deposit > 0:
        status = AWAITING_MERCHANT
        deadline = block.timestamp + delay
    self.heads[id] = self._moved(convert(msg.sender, uint256), status, deadline)
    self.sums[id] = customer_deposit | (merchant_deposit << 64)
    log Opened(
        channel=id,
        customer=msg.sender,
        customer_deposit=customer_deposit,
        merchant_deposit=merchant_deposit,
        deadline=deadline,
    )
    return id


@internal
def _post(
    id: uint256, head: uint256, lock: uint256, customer_balance: uint256, merchant_balance: uint256,
    signature: Bytes[256], by_guard: bool,
):
    sums: uint256 = self.sums[id]
    # lock + r would verify as well and could never be disputed
    assert lock < LOCK_LIMIT, "lock"
    assert customer_balance + merchant_balance == self._total(sums), "sum"
    assert self._verify([id, CLOSE_TAG, lock, customer_balance, merchant_balance], signature), "signature"
    deadline: uint256 = block.timestamp + delay
    moved: uint256 = self._moved(head, CLOSING, deadline)
    if by_guard:
        moved |= CLOSED_BY_GUARD
    self.heads[id] = moved
    self.sums[id] = sums | (customer_balance << 128) | (merchant_balance << 192)
    self.locks[id] = lock
    log Closing(
        channel=id,
        lock=lock,
        customer_balance=customer_balance,
        merchant_balance=merchant_balance,
        deadline=deadline,
        by_guard=by_guard,
    )


@internal
def _settle(id: uint256, head: uint256, sums: uint256, customer_amount: uint256, merchant_amount: uint256):
    self.heads[id] = self._moved(head, CLOSED, 0)
    self.sums[id] = (sums & DEPOSITS_MASK) | (customer_amount << 128) | (merchant_amount << 192)
    self.locks[id] = 0
    log Settled(channel=id, customer_amount=customer_amount, merchant_amount=merchant_amount)
    self._pay(self._customer(head), customer_amount)
    self._pay(merchant, merchant_amount)


@internal
def _pull(amount: uint256):
    value: uint256 = amount * unit
    before: uint256 = staticcall IERC20(asset).balanceOf(self)
    assert extcall IERC20(asset).transferFrom(msg.sender, self, value, default_return_value=True), "transfer"
    assert staticcall IERC20(asset).balanceOf(self) == before + value, "fee on transfer"


@internal
def _pay(to: address, amount: uint256):
    if amount == 0:
        return
    paid: bool = False
    if asset == empty(address):
        paid = raw_call(to, b"", value=amount * unit, gas=PAYOUT_GAS, revert_on_failure=False)
    else:
        answer: Bytes[32] = b""
        paid, answer = raw_call(
            asset,
            abi_encode(to, amount * unit, method_id=method_id("transfer(address,uint256)")),
            max_outsize=32,
            revert_on_failure=False,
        )
        # Some tokens answer nothing; "false" is a refusal
        paid = paid and (len(answer) == 0 or convert(answer, uint256) != 0)
    if not paid:
        # A receiver that cannot be paid must not keep the other side from its money
        self.owed[to] += amount
        log Owed(receiver=to, amount=amount)


@internal
@view
def _verify(message: uint256[5], signature: Bytes[256]) -> bool:
    # e(sigma1, X2 + sum message_i Y2_i) * e(sigma2, -g2) == 1
    assert len(signature) == 256, "signature"
    if keccak256(slice(signature, 0, 128)) == keccak256(abi_encode(empty(uint256[4]))):
        return False  # with sigma1 at infinity the equation says nothing
    own: Bytes[1792] = key
    combined: Bytes[256] = self._combine(own, message)
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        PAIRING,
        concat(slice(signature, 0, 128), combined, slice(signature, 128, 128), slice(own, 0, 256)),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(answer) == 32 and convert(answer, uint256) == 1


@internal
@view
def _combine(own: Bytes[1792], message: uint256[5]) -> Bytes[256]:
    # X2 + sum message_i Y2_i. No gas is named: a later repricing must not lock the deposits.
    success: bool = False
    point: Bytes[256] = b""
    success, point = raw_call(
        G2_MSM,
        concat(
            slice(own, 512, 256), convert(message[0], bytes32), slice(own, 768, 256), convert(message[1], bytes32),
            slice(own, 1024, 256), convert(message[2], bytes32), slice(own, 1280, 256), convert(message[3], bytes32),
            slice(own, 1536, 256), convert(message[4], bytes32),
        ),
        max_outsize=256,
        is_static_call=True,
        revert_on_failure=False,
    )
    assert success and len(point) == 256, "no EIP-2537"
    success, point = raw_call(
        G2_ADD, concat(point, slice(own, 256, 256)), max_outsize=256, is_static_call=True, revert_on_failure=False
    )
    assert success and len(point) == 256, "no EIP-2537"
    return point
