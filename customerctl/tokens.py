"""Tokens on the holder's side: read from a file, and restricted without asking anybody."""

from __future__ import annotations

from customerctl.failures import FAILED, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 64 * 1024


def read_token(path: str) -> str:
    """Return the token in a file; raises Failure, which never shows what is in it."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            text = file.read(LONGEST).decode("ascii").strip()
    except OSError as error:
        raise Failure(USAGE, "usage", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not text or len(text.split()) != 1:
        raise Failure(USAGE, "usage", f"{path} holds no token")
    return text


def restrict(params: dict[str, Any]) -> str:
    """Return a token that allows less than the one in a file; raises Failure."""
    import time

    from zkchannels import caveats
    from zkchannels.caveats import CaveatError
    from zkchannels.macaroon import Macaroon, MacaroonError

    added = []
    try:
        token = Macaroon.decode(read_token(params["file"]))
        caveats.read(token.caveats)
        if params.get("methods"):
            added.append(caveats.methods(params["methods"]))
        if params.get("channels"):
            added.append(caveats.channels(map(caveats.channel_of, params["channels"])))
        if params.get("expires"):
            added.append(caveats.before(int(time.time()) + caveats.seconds_of(params["expires"])))
        if params.get("rate"):
            added.append(caveats.rate(params["rate"]))
        if params.get("spend"):
            added.append(caveats.smaller_spend(token.caveats, params["spend"]))
        for caveat in added:
            token = token.restricted(caveat)
    except (MacaroonError, CaveatError) as error:
        raise Failure(FAILED, "invalid_restriction", str(error)) from None
    if not added:
        raise Failure(USAGE, "usage", "say what to restrict: see customerctl help token-restrict")
    return token.encode()
