"""Everything that can go wrong between this program and an Ethereum node, as one small tree."""

from __future__ import annotations


class ChainFailure(Exception):
    """Base of all failures of this package."""


class ChainUnavailable(ChainFailure):
    """No endpoint gave a usable answer: unreachable, too slow, or on another chain."""


class MalformedAnswer(ChainFailure):
    """A node answered with something that is not what the Ethereum JSON-RPC says."""


class ChainError(ChainFailure):
    """The node understood the request and refused it: JSON-RPC `code`, `message` and `data`."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class Reverted(ChainError):
    """The contract refused the call; `reason` is its text, or empty when it gave none."""

    def __init__(self, code: int, message: str, data: object, reason: str) -> None:
        super().__init__(code, message, data)
        self.reason = reason


class InsufficientFunds(ChainError):
    """The account cannot pay for the transaction that was estimated or sent."""


class AnotherChain(ChainFailure):
    """The database belongs to one chain and the node to another."""


class AccountUnavailable(ChainFailure):
    """The holder of an account's key cannot sign now (for instance: no signer is attached)."""


class IncompleteHistory(ChainFailure):
    """Events of a channel are missing: its escrow was followed too late, or a node hides some."""
