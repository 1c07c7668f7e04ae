"""What can go wrong with a request to the signer, apart from its own refusals."""

from __future__ import annotations


class SignerAway(Exception):
    """No signer is attached and compared, or it left before it answered."""


class SignerSlow(Exception):
    """The signer is attached but did not answer this request in time."""
