"""Keys, addresses and transactions against eth-account, byte for byte."""

from __future__ import annotations

import pickle

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.escrow.ethereum import (
    EthereumError,
    InvalidAddress,
    InvalidEcdsaSignature,
    InvalidPrivateKey,
    PrivateKey,
    checksum,
    keccak256,
    parse_address,
    recover,
)
from zkchannels.escrow.transaction import (
    InvalidTransaction,
    Transaction,
    decode_raw,
    rlp_decode,
    rlp_encode,
    transaction_hash,
)

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRETS = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32))
AMOUNTS = st.integers(0, 2**128)
TRANSACTIONS = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**32),
    nonce=st.integers(0, 2**32),
    tip=AMOUNTS,
    max_fee=AMOUNTS,
    gas=st.integers(0, 2**32),
    to=st.none() | st.binary(min_size=20, max_size=20),
    value=AMOUNTS,
    data=st.binary(max_size=300) | st.just(b"\x01") | st.just(b"\x80"),
)


def test_keccak_is_that_of_ethereum() -> None:
    """The hash of nothing is the well-known one, not that of SHA3-256."""
    digest = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"").hex() == digest


@given(st.binary(min_size=20, max_size=20))
def test_checksums_are_those_of_eip_55(address: bytes) -> None:
    """Address text equals that of eth-utils and is read back, also without its checksum."""
    text = checksum(address)
    assert text == to_checksum_address(address)
    for form in (text, text.lower(), "0x" + text[2:].upper()):
        assert parse_address(form) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD",
        "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
        "0X5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1bea  ",
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1bea" + "\u0661\u0662",
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    """Wrong length, digits, prefix or checksum is an error, never another address."""
    with pytest.raises(InvalidAddress):
        parse_address(text)


def test_an_address_has_20_bytes() -> None:
    """Text is made of addresses only."""
    with pytest.raises(InvalidAddress):
        checksum(bytes(19))


@given(SECRETS, st.binary(min_size=32, max_size=32))
def test_signatures_are_those_of_eth_account(secret: bytes, digest: bytes) -> None:
    """Address and deterministic signature equal eth-account's, and the signer is recovered."""
    key, account = PrivateKey(secret), Account.from_key(secret)
    assert checksum(key.address) == account.address
    theirs = account.unsafe_sign_hash(digest)
    signature = key.sign_digest(digest)
    assert signature == bytes(theirs.signature)
    assert recover(digest, signature) == key.address
    assert recover(keccak256(digest), signature) != key.address


def test_malformed_signatures_are_refused() -> None:
    """A signature has one form: 65 bytes, v 27 or 28, low s, on the curve."""
    digest = keccak256(b"message")
    good = PrivateKey(bytes(31) + b"\x07").sign_digest(digest)
    s = int.from_bytes(good[32:64])
    high = good[:32] + (ORDER - s).to_bytes(32) + bytes([55 - good[64]])
    zero_r, zero_s = bytes(32) + good[32:], good[:32] + bytes(32) + good[64:]
    for bad in (good[:64], good + b"\0", good[:64] + b"\x01", high, zero_r, zero_s, bytes(65)):
        with pytest.raises(InvalidEcdsaSignature):
            recover(digest, bad)


def test_digests_have_32_bytes() -> None:
    """Nothing but a digest is signed or recovered from."""
    key = PrivateKey(bytes(31) + b"\x07")
    with pytest.raises(EthereumError):
        key.sign_digest(b"message")
    with pytest.raises(EthereumError):
        recover(b"message", bytes(65))


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(32), ORDER.to_bytes(32), 32 * b"\xff"])
def test_bad_private_keys_are_refused(secret: bytes) -> None:
    """Zero, the order and beyond, and other lengths are no keys; the error tells no digits."""
    with pytest.raises(InvalidPrivateKey) as refused:
        PrivateKey(secret)
    assert secret.hex() not in str(refused.value) or not secret


def test_a_private_key_hides_its_secret() -> None:
    """Neither repr nor pickle gives the secret away."""
    secret = 32 * b"\x5c"
    key = PrivateKey(secret)
    assert "5c5c" not in repr(key).lower()
    assert not hasattr(key, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(key)


# Transactions


@given(TRANSACTIONS, SECRETS)
def test_transactions_are_those_of_eth_account(transaction: Transaction, secret: bytes) -> None:
    """Raw bytes and hash equal eth-account's, and decoding gives transaction and sender back."""
    key = PrivateKey(secret)
    raw = transaction.with_signature(key.sign_digest(transaction.signing_digest()))
    fields = {
        "type": 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "maxPriorityFeePerGas": transaction.tip,
        "maxFeePerGas": transaction.max_fee,
        "gas": transaction.gas,
        "to": checksum(transaction.to) if transaction.to else b"",
        "value": transaction.value,
        "data": transaction.data,
    }
    theirs = Account.from_key(secret).sign_transaction(fields)
    assert raw == bytes(theirs.raw_transaction)
    assert transaction_hash(raw) == bytes(theirs.hash)
    assert decode_raw(raw) == (transaction, key.address)


def _raw() -> bytes:
    transaction = Transaction(
        chain_id=1, nonce=2, tip=3, max_fee=4, gas=5, to=bytes(20), value=6, data=b"data"
    )
    return transaction.with_signature(
        PrivateKey(32 * b"\x01").sign_digest(transaction.signing_digest())
    )


@given(st.integers(0, len(_raw()) - 1), st.integers(1, 255))
def test_a_changed_transaction_is_refused_or_of_somebody_else(position: int, change: int) -> None:
    """No byte of a signed transaction can be changed without changing its sender."""
    good = _raw()
    raw = good[:position] + bytes([good[position] ^ change]) + good[position + 1 :]
    try:
        _, sender = decode_raw(raw)
    except EthereumError:
        return
    assert sender != PrivateKey(32 * b"\x01").address


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        b"\x01" + _raw()[1:],
        _raw() + b"\0",
        _raw()[:-1],
        b"\x02\xc0",
        b"\x02" + rlp_encode([1] * 12),
        b"\x02" + rlp_encode([1, 1, 1, 1, 1, b"short", 1, b"", [], 0, 1, 1]),
        b"\x02" + rlp_encode([1, 1, 1, 1, 1, bytes(20), 1, b"", [[]], 0, 1, 1]),
        b"\x02" + rlp_encode([1, 1, 1, 1, 1, bytes(20), 1, [], [], 0, 1, 1]),
        b"\x02" + rlp_encode([1, 1, 1, 1, 1, bytes(20), 1, b"", [], 2, 1, 1]),
        b"\x02" + rlp_encode([b"\0", 1, 1, 1, 1, bytes(20), 1, b"", [], 0, 1, 1]),
        b"\x02" + rlp_encode([1, 1, 1, 1, 1, bytes(20), 1, b"", [], 0, 2**256, 1]),
    ],
)
def test_malformed_transactions_are_refused(raw: bytes) -> None:
    """Other types, lengths, trailing bytes and non-canonical fields are errors."""
    with pytest.raises(InvalidTransaction):
        decode_raw(raw)


def test_an_unsigned_transaction_is_refused() -> None:
    """Fields with a signature that nobody made have no sender."""
    with pytest.raises(InvalidEcdsaSignature):
        decode_raw(b"\x02" + rlp_encode([1, 1, 1, 1, 1, bytes(20), 1, b"", [], 0, 0, 0]))


@pytest.mark.parametrize("signature", [bytes(64), bytes(65), bytes(66)])
def test_a_signature_that_is_none_is_not_attached(signature: bytes) -> None:
    """Raw transactions carry r, s and a parity of 0 or 1."""
    transaction, _ = decode_raw(_raw())
    with pytest.raises(InvalidTransaction):
        transaction.with_signature(signature)


@given(
    st.recursive(
        st.binary(max_size=70), lambda inner: st.lists(inner, max_size=4), max_leaves=8
    ).filter(lambda tree: _depth(tree) <= 4)
)
def test_rlp_is_read_back(tree: bytes | list[object]) -> None:
    """Encoding and decoding are inverse up to the depth transactions need."""
    assert rlp_decode(rlp_encode(tree)) == tree  # type: ignore[arg-type]


def _depth(tree: object) -> int:
    if not isinstance(tree, list):
        return 0
    return 1 + max((_depth(part) for part in tree), default=0)


@pytest.mark.parametrize(
    "data",
    [b"\x81\x05", b"\xb8\x01\x80", b"\xb9\x00\x38" + bytes(56), b"\xf8\x00", b"\xbf", b"\xff"],
)
def test_rlp_has_one_encoding(data: bytes) -> None:
    """Longer forms of the same tree are refused."""
    with pytest.raises(InvalidTransaction):
        rlp_decode(data)


def test_deep_nesting_is_refused() -> None:
    """Lists in lists in lists do not exhaust the stack."""
    with pytest.raises(InvalidTransaction):
        rlp_decode(bytes(100_000).replace(b"\0", b"\xc1"))
