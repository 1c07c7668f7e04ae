"""Words, seeds and keys against the standards and an independent implementation."""

from __future__ import annotations

import copy
import pickle

import eth_account
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customersigner.derivation import (
    ACCOUNT_PATH,
    HARDENED,
    Wallet,
    derive,
    entropy_of,
    seed_of,
    words_of,
)
from customersigner.errors import InvalidWords
from zkchannels.escrow.ethereum import checksum, keccak256, recover
from zkchannels.wire.signer import CHALLENGE_TAG

ABANDON = "abandon " * 11 + "about"
entropies = st.sampled_from([16, 20, 24, 28, 32]).flatmap(
    lambda length: st.binary(min_size=length, max_size=length)
)


@settings(max_examples=15, deadline=None)
@given(entropies)
def test_the_account_is_the_one_other_wallets_derive(entropy: bytes) -> None:
    """The chain account equals eth-account's for the same words."""
    eth_account.Account.enable_unaudited_hdwallet_features()
    expected = eth_account.Account.from_mnemonic(words_of(entropy))
    assert checksum(Wallet(entropy).account.address) == expected.address


def test_the_known_words_give_the_known_seed() -> None:
    """The first English vector of BIP-39 holds, with an empty passphrase."""
    assert entropy_of(ABANDON) == bytes(16)
    assert words_of(bytes(16)) == ABANDON
    assert seed_of(ABANDON).hex().startswith("5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35"),
        ((HARDENED,), "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"),
        ((HARDENED, 1), "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"),
        (
            (HARDENED, 1, 2 | HARDENED, 2, 1000000000),
            "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8",
        ),
    ],
)
def test_bip32_vector_one(path: tuple[int, ...], key: str) -> None:
    """Hardened and normal children equal test vector 1 of BIP-32."""
    seed = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    assert derive(seed, path).hex() == key


@pytest.mark.parametrize("words", [words_of(bytes(16)).upper(), "  " + ABANDON.replace(" ", "\n ")])
def test_words_may_be_typed_in_any_case_and_spacing(words: str) -> None:
    """Case and blanks of the words do not matter."""
    assert entropy_of(words) == bytes(16)


@pytest.mark.parametrize(
    "words", ["", "abandon", "abandon " * 12, ABANDON + " about", "zzzz " * 12, "ábandon " * 12]
)
def test_wrong_words_are_refused_without_being_repeated(words: str) -> None:
    """Unknown words, a wrong number or checksum are refused, and the error does not quote them."""
    with pytest.raises(InvalidWords) as caught:
        entropy_of(words)
    assert "abandon" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_identity_signs_the_challenge() -> None:
    """The answer recovers to the identity, for that challenge over those certificates alone."""
    wallet, channel = Wallet(bytes(16)), b"\x03" * 64
    answer = wallet.answer(b"\x01" * 32, channel)
    for challenge, over, same in (
        (b"\x01" * 32, channel, True),
        (b"\x02" * 32, channel, False),
        (b"\x01" * 32, bytes(64), False),
    ):
        digest = keccak256(CHALLENGE_TAG + challenge + wallet.identity + over)
        assert (recover(digest, answer) == wallet.identity) is same


def test_the_three_uses_of_the_seed_are_apart() -> None:
    """Account, identity and channel secrets differ, and differ between seeds and channels."""
    wallet, other = Wallet(bytes(16)), Wallet(b"\x01" * 16)
    assert wallet.identity != wallet.account.address
    assert wallet.identity != other.identity
    secrets = {w.channel(c).secret(0, 0) for w in (wallet, other) for c in (1, 2)}
    assert len(secrets) == 4
    assert derive(seed_of(words_of(bytes(16))), ACCOUNT_PATH) not in secrets


def test_a_wallet_shows_and_gives_away_nothing() -> None:
    """Its repr is the public address, and it can be neither pickled nor copied."""
    wallet = Wallet(bytes(16))
    assert repr(wallet) == f"Wallet({checksum(wallet.account.address)})"
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(wallet)
