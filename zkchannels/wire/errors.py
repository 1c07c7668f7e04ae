"""Errors of a wire protocol: a stable `kind` in `data`, a numeric code derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zkchannels.jsonrpc.errors import RpcError

FIRST_CODE = -32010


class ErrorKinds:
    """The closed list of error kinds of one protocol; position in the list gives the code."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.meanings = dict(kinds)
        self._codes = {kind: FIRST_CODE - number for number, kind in enumerate(kinds)}

    def error(self, kind: str, message: str, **data: Any) -> RpcError:
        """Return the error to raise; `data` is shown to the peer beside the kind."""
        return RpcError(self._codes[kind], message, {"kind": kind, **data})

    def __contains__(self, kind: object) -> bool:
        return kind in self._codes


def kind_of(error: RpcError) -> str:
    """Return the kind of a received error, or an empty string when it carries none."""
    if isinstance(error.data, Mapping):
        kind = error.data.get("kind")
        if isinstance(kind, str):
            return kind
    return ""
