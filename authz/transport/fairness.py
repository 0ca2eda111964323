"""Fairness between namespaces: a namespace that uses too much time is read more slowly.

Each namespace of a trust domain has a share that all connections of its workloads use: a tenant
makes as many service accounts as it likes, namespaces it has to be given. The share is charged for
the time of the processor that a connection's input took, whatever it was: a Check, a block of many
header fields, a request that is refused, a change of all windows.

A share bounds two things. In one turn of the event loop it has TURN_SECONDS; what is left waits for
the next turn, after other namespaces had theirs. And it has a token bucket that is emptied by its
rate of Checks or by its part of a core (CORE), whichever takes more. While the bucket is empty,
none of its connections is read, and flow control does the rest. Those that wait go on in the order
in which they stopped.

Only where a connection is one namespace's, which is so in mTLS. A sidecar in front sends the Checks
of all its tenants over the same few connections. Not to read those would stop everybody. Windows
are of no use either: a new stream's is the same for all, and a Check is smaller than any that would
not cost each of them a round trip more. To hold back the Checks of one would occupy the streams
that others need; to refuse them costs about what answering does. What holds there: connections take
turns, and what is ahead of a Check on its own connection is at most what that may have open: some
15 microseconds for each, 15 ms for a thousand. With fewer streams the sidecar opens more
connections, and these take turns. Who wants more limits the rate in the sidecar, which still has a
connection for each tenant.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BURST_SECONDS: Final = 0.1
"""How long a namespace that was quiet may exceed its rate and its part of the core."""
CORE: Final = 0.5
"""The part of a core that a namespace with a rate may use."""
TURN_SECONDS: Final = 0.0005
"""What a share, or one connection, uses of a core before others have their turn. The last step may
exceed it: the largest, a Check of 64 KiB in small fields, takes some 2 ms."""
_TICK: Final = 0.001
"""What uvloop measures time in, in seconds: it would call what is due sooner again and again."""


class Share:
    """What one namespace uses: connections, and seconds out of its token bucket.

    `rate` is in Checks per second; 0: no limit but that of a turn.
    """

    __slots__ = (
        "_burst", "_check", "_level", "_loop", "_then", "_timer", "_used", "_waiting", "connections"
    )  # fmt: skip

    def __init__(self, rate: int, loop: asyncio.AbstractEventLoop) -> None:
        self.connections = 0
        self._check = 1 / rate if rate else 0.0  # seconds that stand for one
        self._burst = self._level = max(self._check, BURST_SECONDS) if rate else math.inf
        self._loop = loop
        self._then = loop.time()
        self._used = 0.0  # seconds of this turn of the loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: asyncio.Handle | None = None

    def charge(self, checks: float, seconds: float = 0.0) -> None:
        """Count Checks, or the seconds of a core that all input took, whichever is more."""
        self._used += seconds
        self._level -= max(checks * self._check, seconds / CORE)

    def is_used_up(self, now: float) -> bool:
        """Whether to wait: for the next turn, more in the bucket, or those that wait already."""
        self._refill(now)
        return self.is_in_debt or self._used >= TURN_SECONDS or bool(self._waiting)

    @property
    def is_in_debt(self) -> bool:
        """Whether the bucket is empty."""
        return self._level <= 0

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once it is this connection's turn: never in this turn of the loop."""
        self._waiting.append(go_on)
        if self._timer is None:
            self._schedule()

    def is_at_rest(self, now: float) -> bool:
        """Whether nothing would change if this was forgotten."""
        self._refill(now)
        return not self.connections and not self._waiting and self._level >= self._burst

    def _refill(self, now: float) -> None:
        if now > self._then:  # uvloop's time stands still during a turn of the loop
            self._level = min(self._burst, self._level + now - self._then)
            self._then = now
            self._used = 0.0

    def _schedule(self) -> None:
        if self.is_in_debt:
            self._timer = self._loop.call_later(max(_TICK, -self._level), self._next)
        else:
            self._timer = self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Let connections go on until the turn or the bucket is used up."""
        self._timer = None
        self._refill(self._loop.time())
        self._used = 0.0
        waiting = self._waiting
        try:
            for _ in range(len(waiting)):
                if self.is_in_debt or self._used >= TURN_SECONDS:
                    break
                waiting.popleft()()
        finally:
            if waiting and self._timer is None:
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
