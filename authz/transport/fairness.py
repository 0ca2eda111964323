"""Fairness between namespaces: whoever asks too much is read more slowly, never answered less.

Each namespace of a trust domain has a token bucket that all connections of its workloads share: a
tenant makes as many service accounts as it likes, namespaces it has to be given. While the bucket
is empty, none of them is read, and flow control does the rest. Then they go on, one after the
other, in the order in which they stopped.

Only where a connection is one namespace's, which is so in mTLS. A sidecar in front sends the Checks
of all its tenants over the same few connections. Not to read those would stop everybody. Windows
are of no use either: a new stream's is the same for all, and a Check is smaller than any that would
not cost each of them a round trip more. To hold back the Checks of one would occupy the streams
that others need; to refuse them costs about what answering does. What holds there: no connection
gets more than a slice of requests while another waits, and what is ahead of a Check on its own
connection is at most what that may have open: some 15 microseconds for each, 15 ms for a thousand.
With fewer streams the sidecar opens more connections, and these take turns. Who wants more limits
the rate in the sidecar, which still has a connection for each tenant.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BURST_SECONDS: Final = 0.1
"""How much a namespace that was quiet may ask at once, in seconds of its rate."""


class Share:
    """What one namespace uses: connections, and Checks out of its token bucket."""

    __slots__ = ("_burst", "_level", "_loop", "_rate", "_then", "_timer", "_waiting", "connections")

    def __init__(self, rate: int, loop: asyncio.AbstractEventLoop) -> None:
        self.connections = 0
        self._rate = rate
        self._burst = self._level = max(1.0, rate * BURST_SECONDS)
        self._loop = loop
        self._then = loop.time()
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def take(self, cost: float, now: float) -> None:
        """Count what was answered."""
        if self._rate:
            self._refill(now)
            self._level -= cost

    def is_used_up(self, now: float) -> bool:
        """Whether to wait: for more in the bucket, or for those that wait already."""
        if not self._rate:
            return False
        self._refill(now)
        return self._level <= 0 or bool(self._waiting)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once it is this connection's turn."""
        self._waiting.append(go_on)
        if self._timer is None:
            self._schedule()

    def is_at_rest(self, now: float) -> bool:
        """Whether nothing would change if this was forgotten."""
        self._refill(now)
        return not self.connections and not self._waiting and self._level >= self._burst

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._then) * self._rate)
        self._then = now

    def _schedule(self) -> None:
        wait = max(0.0, -self._level / self._rate)
        self._timer = self._loop.call_later(wait, self._next)

    def _next(self) -> None:
        """One at a time: whoever goes on takes, and says how long the next one has to wait."""
        self._timer = None
        self._refill(self._loop.time())
        try:
            self._waiting.popleft()()
        finally:
            if self._waiting and self._timer is None:
                self._schedule()


class Shares(Generic[K]):
    """The share of each namespace. `rate` is in Checks per second; 0: no limit."""

    def __init__(self, rate: int, loop: asyncio.AbstractEventLoop) -> None:
        self._rate = rate
        self._loop = loop
        self._shares: dict[K, Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def of(self, who: K) -> Share:
        """Its share, the same one as long as it matters."""
        share = self._shares.get(who)
        if share is None:
            share = self._shares[who] = Share(self._rate, self._loop)
        return share

    def tidy(self, now: float) -> None:
        """Forget who is gone and owes nothing."""
        for who in [who for who, share in self._shares.items() if share.is_at_rest(now)]:
            del self._shares[who]
