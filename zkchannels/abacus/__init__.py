"""Pointcheval-Sanders signatures and payment proofs (docs/protocol.md), pure functions on bytes and integers."""
