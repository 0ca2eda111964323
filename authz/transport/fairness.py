"""Fairness between identities: whoever asks too much is read more slowly, never answered less.

A token bucket for each identity, shared by all of its connections. When it is empty, its
connections are not read until it holds something again, and flow control does the rest.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_MAX_KNOWN: Final = 20_000
_BURST_SECONDS: Final = 0.5


class Shares(Generic[K]):
    """Token buckets by identity. `rate` is in Checks per second; 0 means no limit."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * _BURST_SECONDS)
        self._buckets: OrderedDict[K, tuple[float, float]] = OrderedDict()

    def take(self, who: K, count: int, now: float) -> float:
        """Take `count` Checks from an identity's share; seconds to wait before reading more.

        `now` is in seconds on a clock that only goes forward.
        """
        if not self._rate:
            return 0.0
        level, then = self._buckets.get(who, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate) - count
        self._buckets[who] = level, now
        self._buckets.move_to_end(who)
        if len(self._buckets) > _MAX_KNOWN:  # the one that has asked for nothing the longest
            self._buckets.popitem(last=False)
        return 0.0 if level >= 0 else -level / self._rate
