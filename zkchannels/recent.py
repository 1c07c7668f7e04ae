"""A bounded memory of what was there last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """The values that were kept last, up to a limit, each under its key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def keep(self, key: Hashable, value: V) -> None:
        """Keep a value; the oldest one is forgotten when there are too many."""
        self._values[key] = value
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def take(self, key: Hashable) -> V | None:
        """Forget a value and return it; None when it is not there."""
        return self._values.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values
