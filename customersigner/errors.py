"""What can keep the signer from starting, as one small tree of exceptions."""

from __future__ import annotations


class SignerError(Exception):
    """Base: a message for the operator, never with a secret in it."""


class SeedFileError(SignerError):
    """The seed file is missing, there already, damaged, or of an unknown version."""


class WrongPassphrase(SeedFileError):
    """The passphrase does not open the seed file, or the file was changed: both look the same."""


class InvalidWords(SignerError):
    """Not the words of a seed: a word is unknown, one is missing, or their checksum is wrong."""


class PassphraseUnavailable(SignerError):
    """There is no passphrase: no credential, no file and no terminal to ask on."""


class StoreError(SignerError):
    """The signer's database belongs to another seed or version, is in use, or cannot be opened."""


class StoreUnavailable(SignerError):
    """The database could not write just now; nothing that had to be written has left."""


class PairingFailed(SignerError):
    """The pairing line is no good, or the daemon refuses it; nothing was changed."""
