"""From twelve words to the keys of a wallet.

All keys come from the 64-byte BIP-39 seed S (PBKDF2-HMAC-SHA-512, 2048 rounds, no further
passphrase):

- chain account: BIP-32 path m/44'/60'/0'/0/0, as every Ethereum wallet derives its first account;
- identity key, which signs the daemon's challenges and nothing else:
  first 32 bytes of HMAC-SHA-512(S, "customersigner/identity/1");
- seed key of all channel secrets: HMAC-SHA-512(S, "customersigner/channels/1"), 64 bytes; from it
  zkchannels.abacus derives nonces, revocation secrets and blindings;
- key of the daemon's backups: first 32 bytes of HMAC-SHA-512(S, "customersigner/backup/1").

BIP-32 uses S as message under the key "Bitcoin seed", the three labels use S as key: the four
derivations never meet.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from coincurve import PrivateKey as Secp256k1Key
from mnemonic import Mnemonic

from customersigner.errors import InvalidWords
from zkchannels.abacus import ChannelSecrets
from zkchannels.escrow.ethereum import PrivateKey, checksum, keccak256
from zkchannels.wire.signer import CHALLENGE_TAG

HARDENED: Final = 1 << 31
ACCOUNT_PATH: Final = (44 | HARDENED, 60 | HARDENED, HARDENED, 0, 0)
ENTROPY_LENGTHS: Final = (16, 20, 24, 28, 32)
NEW_ENTROPY_LENGTH: Final = 16

_IDENTITY = b"customersigner/identity/1"
_CHANNELS = b"customersigner/channels/1"
_BACKUP = b"customersigner/backup/1"
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def words_of(entropy: bytes) -> str:
    """English BIP-39 words of 16 to 32 bytes of entropy, separated by blanks."""
    return Mnemonic("english").to_mnemonic(entropy)


def entropy_of(words: str) -> bytes:
    """Entropy of English BIP-39 words in any case and spacing; raises InvalidWords."""
    try:
        return bytes(Mnemonic("english").to_entropy(words.lower().split()))
    except (ValueError, LookupError):  # their text names the words
        raise InvalidWords("these are not the words of a seed (BIP-39, English)") from None


def seed_of(words: str) -> bytes:
    """The 64-byte BIP-39 seed of normalised words."""
    return hashlib.pbkdf2_hmac("sha512", words.encode(), b"mnemonic", 2048)


def derive(seed: bytes, path: tuple[int, ...]) -> bytes:
    """BIP-32 private key, 32 bytes, at a path of child numbers (2**31 and more: hardened).

    Raises ValueError for the children that BIP-32 declares invalid (probability 2**-127).
    """
    node = hmac.digest(b"Bitcoin seed", seed, "sha512")
    for child in path:
        node = _child(node, child)
    return node[:32]


class Wallet:
    """The keys derived from one seed; shows none of them."""

    __slots__ = ("_backup_key", "_identity", "_seed_key", "account")

    def __init__(self, entropy: bytes) -> None:
        """Takes BIP-39 entropy of 16 to 32 bytes."""
        seed = seed_of(words_of(entropy))
        self.account = PrivateKey(derive(seed, ACCOUNT_PATH))
        self._identity = PrivateKey(hmac.digest(seed, _IDENTITY, "sha512")[:32])
        self._seed_key = hmac.digest(seed, _CHANNELS, "sha512")
        self._backup_key = hmac.digest(seed, _BACKUP, "sha512")[:32]

    @property
    def identity(self) -> bytes:
        """Address of the identity key, 20 bytes: the name of this wallet to its daemon."""
        return self._identity.address

    def answer(self, challenge: bytes, channel: bytes) -> bytes:
        """Signature r|s|v by which the daemon recognises this wallet (link.attach).

        channel: fingerprints of the two certificates, 64 bytes, zeros on a Unix socket
        """
        return self._identity.sign_digest(
            keccak256(CHALLENGE_TAG + challenge + self.identity + channel)
        )

    def channel(self, channel_id: int) -> ChannelSecrets:
        """What is secret about one channel."""
        return ChannelSecrets(self._seed_key, channel_id)

    def backup_key(self) -> bytes:
        """Key of the daemon's backups, 32 bytes; opens nothing else."""
        return self._backup_key

    def __repr__(self) -> str:
        return f"Wallet({checksum(self.account.address)})"

    def __reduce__(self) -> str:
        raise TypeError("a wallet is not serialised")


def _child(node: bytes, number: int) -> bytes:
    """BIP-32 CKDpriv on key | chain code, 64 bytes."""
    key, chain_code = node[:32], node[32:]
    head = b"\0" + key if number & HARDENED else _compressed(key)
    digest = hmac.digest(chain_code, head + number.to_bytes(4), "sha512")
    tweak = int.from_bytes(digest[:32])
    child = (tweak + int.from_bytes(key)) % _ORDER
    if tweak >= _ORDER or child == 0:
        raise ValueError("BIP-32 declares this child invalid")
    return child.to_bytes(32) + digest[32:]


def _compressed(key: bytes) -> bytes:
    return Secp256k1Key(key).public_key.format(compressed=True)
