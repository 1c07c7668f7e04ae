"""The running hash from which both parties derive the challenges of a proof."""

from __future__ import annotations

import hashlib

from zkchannels.abacus.parameters import CHALLENGE_LENGTH, R


class Transcript:
    """Labelled, length-prefixed SHA-512 over everything a proof is about.

    Every item is fed as 2-byte label length, label, 8-byte data length, data, so that no two
    different sequences of items hash the same bytes (docs/protocol.md, "Transcript").
    """

    def __init__(self, protocol: bytes) -> None:
        self._state = hashlib.sha512()
        self.absorb(b"protocol", protocol)

    def absorb(self, label: bytes, data: bytes) -> None:
        """Bind `data` under `label`."""
        self._state.update(
            len(label).to_bytes(2, "big") + label + len(data).to_bytes(8, "big") + data
        )

    def digest(self) -> bytes:
        """Return the 64-byte digest of all that was absorbed."""
        return self._state.digest()

    def wide_challenge(self, label: bytes) -> int:
        """Return a challenge of full width: 512 bits reduced modulo R."""
        return int.from_bytes(self._challenge(label), "big") % R

    def short_challenge(self, label: bytes) -> int:
        """Return a challenge of 128 bits: the last 16 bytes of the digest."""
        return int.from_bytes(self._challenge(label)[-CHALLENGE_LENGTH:], "big")

    def _challenge(self, label: bytes) -> bytes:
        self.absorb(b"challenge", label)
        digest = self.digest()
        self.absorb(b"output", digest)
        return digest
