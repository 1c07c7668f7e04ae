"""What the caveats of a token say: written by the daemon and by holders, judged by the daemon.

Each is one line of text: a word that names it, and what it allows. All of a token's caveats have to
hold, so whatever is added can only take away; one that is not understood makes a token useless.
"""

from __future__ import annotations

from zkchannels.amounts import AmountError, Asset

TYPE_CHECKING = False  # `typing` would double the start of the command line
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST_TIME = 10**10
LARGEST = 2**256


class CaveatError(Exception):
    """A restriction that cannot be read; the message says why."""


class Rate:
    """At most `count` calls in any `seconds`; `account` is what they are counted on."""

    __slots__ = ("account", "count", "seconds")

    def __init__(self, count: int, seconds: int, account: bytes) -> None:
        self.count = count
        self.seconds = seconds
        self.account = account


class Spend:
    """At most `amount` of the asset at `asset`, for good; `account` is what it is counted on."""

    __slots__ = ("account", "amount", "asset", "decimals", "symbol")

    def __init__(
        self, amount: int, asset: bytes, decimals: int, symbol: str, account: bytes
    ) -> None:
        self.amount = amount
        self.asset = asset
        self.decimals = decimals
        self.symbol = symbol
        self.account = account

    @property
    def text(self) -> str:
        """The amount with its asset."""
        return Asset(self.symbol, self.decimals, 1).format(self.amount)


class Restrictions:
    """What all caveats of a token allow together."""

    __slots__ = ("channels", "expires", "methods", "rates", "spends")

    def __init__(self) -> None:
        self.methods: frozenset[str] | None = None
        self.channels: frozenset[bytes] | None = None
        self.expires: int | None = None
        self.rates: list[Rate] = []
        self.spends: list[Spend] = []


def read(caveats: Sequence[str], accounts: Sequence[bytes] | None = None) -> Restrictions:
    """Return what the caveats allow together; raises CaveatError for one that is not understood.

    `accounts`: for each caveat what its limits are counted on, for the one who counts.
    """
    found = Restrictions()
    for number, caveat in enumerate(caveats):
        _add(found, caveat, b"" if accounts is None else accounts[number])
    return found


def _add(found: Restrictions, caveat: str, account: bytes) -> None:
    name, _, rest = caveat.partition(" ")
    if name == "methods":
        methods = frozenset(rest.split(","))
        found.methods = methods if found.methods is None else found.methods & methods
    elif name == "channels":
        channels = frozenset(_bytes(part, 32) for part in rest.split(","))
        found.channels = channels if found.channels is None else found.channels & channels
    elif name == "before":
        expires = _number(rest, LONGEST_TIME)
        found.expires = expires if found.expires is None else min(found.expires, expires)
    elif name == "rate":
        count, _, seconds = rest.partition("/")
        found.rates.append(Rate(_number(count, 10**6), _number(seconds, 10**6), account))
    elif name == "spend":
        words = rest.split(" ", 3)
        if len(words) != 4:
            raise CaveatError("a spending limit is damaged")
        amount, decimals = _number(words[0], LARGEST), _number(words[2], 255)
        found.spends.append(Spend(amount, _bytes(words[1], 20), decimals, words[3], account))
    else:
        raise CaveatError("the token has a caveat that is not known here")


def methods(names: Iterable[str]) -> str:
    """Allow these methods alone."""
    listed = sorted(set(names))
    for name in listed:
        if not name or not name.replace("-", "").replace(".", "").isalpha():
            raise CaveatError(f"{name!r} is no name of a method")
    return f"methods {','.join(listed)}"


def channels(identities: Iterable[bytes]) -> str:
    """Allow these channels alone, by their ids: labels may change hands."""
    return f"channels {','.join(sorted('0x' + identity.hex() for identity in identities))}"


def before(expires: int) -> str:
    """Allow nothing from this Unix time on."""
    return f"before {expires}"


def rate(text: str) -> str:
    """Allow so many calls: "10/s", "100/m", "1000/h", or "5/30" in so many seconds."""
    count, _, time = text.partition("/")
    time = str(_SECONDS.get(time, time))
    if not _is_number(count, 10**6) or not _is_number(time, 10**6):
        raise CaveatError(f'a rate is "10/s", "100/m" or "1000/h", not {text!r}')
    return f"rate {int(count)}/{int(time)}"


def spend(amount: int, asset: bytes, decimals: int, symbol: str) -> str:
    """Allow to spend so many of the smallest units of the asset at this address (zero: native).

    Symbol and decimals say what it means to people, and to who restricts it further.
    """
    return f"spend {amount} 0x{asset.hex()} {decimals} {symbol}"


def smaller_spend(caveats: Sequence[str], text: str) -> str:
    """Return a lower spending limit than a token has, given as an amount with the asset."""
    limits = read(caveats).spends
    if not limits:
        raise CaveatError("the token may not spend anything")
    last = limits[-1]
    try:
        amount = Asset(last.symbol, last.decimals, 1).parse(text)
    except AmountError as error:
        raise CaveatError(str(error)) from None
    return spend(amount, last.asset, last.decimals, last.symbol)


def seconds_of(text: str) -> int:
    """Read a duration: "90s", "15m", "12h", "30d", "4w"; raises CaveatError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not _is_number(number, 10**6):
        raise CaveatError(f'a time is "90s", "15m", "12h", "30d" or "4w", not {text!r}')
    return int(number) * _SECONDS[unit]


def channel_of(text: str) -> bytes:
    """Read the id of a channel; raises CaveatError."""
    try:
        return _bytes(text, 32)
    except CaveatError:
        raise CaveatError(
            f"{text!r} is no channel's id (0x and 64 digits); `customerctl show` says it"
        ) from None


def _is_number(text: str, most: int) -> bool:
    short = 0 < len(text) <= 80
    return short and text.isascii() and text.isdigit() and 0 < int(text) <= most


def _number(text: str, most: int) -> int:
    if text == "0":
        return 0
    if not _is_number(text, most) or text[0] == "0":
        raise CaveatError("a caveat of the token is damaged")
    return int(text)


def _bytes(text: str, length: int) -> bytes:
    digits = text.removeprefix("0x")
    if len(text) != 2 * length + 2 or set(digits) - set("0123456789abcdef"):
        raise CaveatError("a caveat of the token is damaged")
    return bytes.fromhex(digits)
