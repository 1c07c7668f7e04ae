"""Field types of fixed length that both wire protocols use."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

Bytes16: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes20: TypeAlias = Annotated[bytes, Meta(min_length=20, max_length=20)]
Bytes32: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes48: TypeAlias = Annotated[bytes, Meta(min_length=48, max_length=48)]
Bytes65: TypeAlias = Annotated[bytes, Meta(min_length=65, max_length=65)]
Bytes96: TypeAlias = Annotated[bytes, Meta(min_length=96, max_length=96)]
Bytes240: TypeAlias = Annotated[bytes, Meta(min_length=240, max_length=240)]
Bytes256: TypeAlias = Annotated[bytes, Meta(min_length=256, max_length=256)]
Bytes1792: TypeAlias = Annotated[bytes, Meta(min_length=1792, max_length=1792)]
Bytes1920: TypeAlias = Annotated[bytes, Meta(min_length=1920, max_length=1920)]

Balance: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A balance or deposit in units of the escrow."""

SignedAmount: TypeAlias = Annotated[int, Meta(ge=-(2**63 - 1), le=2**63 - 1)]
"""What the customer pays (positive) or is refunded (negative), in units of the escrow."""

Index: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
"""Number of a state in its channel; 0 is the state the channel is established with."""

Attempt: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""Number of an attempt to leave one state; see docs/protocol.md, resumption."""
