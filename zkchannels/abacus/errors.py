"""What goes wrong in the cryptography, as one small tree of exceptions."""

from __future__ import annotations


class AbacusError(ValueError):
    """Base of every error of this package; the message never contains a secret."""


class InvalidEncoding(AbacusError):
    """Bytes that are no scalar, point or key in the one accepted form."""


class InvalidKey(AbacusError):
    """A key whose halves disagree, or with an element that no honest merchant publishes."""


class InvalidStatement(AbacusError):
    """Values about which no true proof exists; raised before anything secret is used."""


class InvalidSignature(AbacusError):
    """A pay token or closing authorization that the merchant did not give for these values."""


class InvalidProof(AbacusError):
    """A refused proof; one message for every cause, so that a refusal tells the prover nothing."""

    def __init__(self) -> None:
        super().__init__("the proof is not valid")

    def __reduce__(self) -> tuple[type[InvalidProof], tuple[()]]:
        """Let a worker process raise it to its parent: the message is no argument."""
        return type(self), ()
