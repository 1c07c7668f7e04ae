"""The constants of the protocol: group order, bounds, tags and lengths (docs/protocol.md)."""

from __future__ import annotations

from typing import Final

R: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the groups G1 and G2 of BLS12-381."""

CLOSE: Final = 0x434C4F5345
"""What stands in the nonce's place of a close state ("CLOSE" in ASCII)."""

MAX_BALANCE: Final = 2**63 - 1
"""Largest balance, and largest absolute value of an amount, in units of the escrow."""

HASH_BITS: Final = 253
"""Channel ids and locks are Keccak-256 values without their three lowest bits: always below R."""

VERSION: Final = 1
"""Protocol version; part of every proof's context."""

MESSAGES: Final = 5
"""Values under one signature: channel id, nonce or CLOSE, lock, two balances."""

DIGITS: Final = 32
"""A balance in the range argument: 31 digits of base 4 and one last bit."""

WEIGHTS: Final[tuple[int, ...]] = (*(4**j for j in range(DIGITS - 1)), 2**62)
"""Weight of each digit; with every digit in its set the sum is in [0, 2**63)."""

SCALAR_LENGTH: Final = 32
CHALLENGE_LENGTH: Final = 16
G1_LENGTH: Final = 48
G2_LENGTH: Final = 96
SIGNATURE_LENGTH: Final = 2 * G1_LENGTH
G1_HALF_LENGTH: Final = MESSAGES * G1_LENGTH
PUBLIC_KEY_LENGTH: Final = G1_HALF_LENGTH + (MESSAGES + 1) * G2_LENGTH
SECRET_KEY_LENGTH: Final = (MESSAGES + 1) * SCALAR_LENGTH
