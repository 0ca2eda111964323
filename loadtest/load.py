"""Closed and open loops over the connections of one process.

In a closed loop each answer begins the next call: it asks what the server can do. In an open loop
calls begin at fixed times, whatever the server does, and a latency counts from when its call was
to begin. So a server that stands still for a second has a second of late answers, not one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import Any, Final, Generic, Protocol, TypeVar

from loadtest.alarm import Alarm
from loadtest.grpc_connection import Tally

DRAIN_SECONDS: Final = 30.0
_SECOND: Final = 1_000_000_000  # in nanoseconds
_WAKING: Final = 60_000  # what it takes to wake up; below that, spin
_MOST_AT_ONCE: Final = 256  # so that answers are read in between


C_contra = TypeVar("C_contra", contravariant=True)


class Link(Protocol[C_contra]):
    """What the loops need of a connection; see `loadtest.grpc_connection.Connection`."""

    tally: Tally
    gone: bool

    def call(self, call: C_contra, intended: int) -> None:
        """Make a call as soon as there is room."""

    def flush(self) -> None:
        """Send what was called."""


L = TypeVar("L", bound=Link[Any])


class Session(Generic[L]):
    """A connection and what is asked on it."""

    def __init__(
        self, in_flight: int, connect: Callable[[int, Callable[[L, int], None]], L]
    ) -> None:
        self.in_flight = in_flight
        self.calls: Iterator[Any] = iter(())
        self.connection = connect(in_flight, self._on_room)
        self._loop: ClosedLoop | OpenLoop | None = None

    def begin(self, loop: ClosedLoop | OpenLoop, calls: Iterable[Any]) -> None:
        """Take part in a loop, with a new tally."""
        self._loop = loop
        self.calls = iter(calls)
        self.connection.tally = Tally()

    def _on_room(self, connection: L, ended: int) -> None:
        del connection
        if self._loop is not None:
            self._loop.ended(self, ended)


class _Loop:
    """What both kinds have in common: they end when nothing is under way any more."""

    def __init__(self, sessions: Sequence[Session[Any]], most: int) -> None:
        self._sessions = sessions
        self._left = most
        self._under_way = 0
        self._over = False
        self._finished = asyncio.get_running_loop().create_future()

    def ended(self, session: Session[Any], count: int) -> None:
        """So many calls of a session have ended."""
        del session
        self._under_way -= count
        if self._over and not self._under_way and not self._finished.done():
            self._finished.set_result(None)

    def _begin(self, session: Session[Any], intended: int) -> bool:
        """Begin a session's next call; whether there was one."""
        call = next(session.calls, None) if self._left and not session.connection.gone else None
        if call is None:
            return False
        self._left -= 1
        self._under_way += 1
        session.connection.call(call, intended)
        return True

    async def _drained(self) -> None:
        """Begin nothing more; wait for what is under way."""
        self._over = True
        self.ended(self._sessions[0], 0)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._finished
        except TimeoutError:
            problems = self._sessions[0].connection.tally.problems
            problems[f"not answered {DRAIN_SECONDS:.0f} s after the end"] += self._under_way


class ClosedLoop(_Loop):
    """Keeps every session's calls in flight."""

    def __init__(self, sessions: Sequence[Session[Any]], *, seconds: float, most: int) -> None:
        """Go on for `seconds`, for `most` calls, or until the sessions have no more calls."""
        super().__init__(sessions, most)
        self._deadline = perf_counter_ns() + int(seconds * _SECOND)
        self._enough = asyncio.Event()

    async def run(self) -> None:
        """Until all calls have ended."""
        for session in self._sessions:
            self._more(session, session.in_flight)
            session.connection.flush()
        await self._enough.wait()
        await self._drained()

    def ended(self, session: Session[Any], count: int) -> None:
        """See `_Loop.ended`."""
        super().ended(session, count)
        self._more(session, count)

    def _more(self, session: Session[Any], count: int) -> None:
        if self._over:
            return
        now = perf_counter_ns()
        if now >= self._deadline:
            self._enough.set()
            return
        for _ in range(count):
            if not self._begin(session, now):
                break
        if not self._under_way:
            self._enough.set()


class OpenLoop(_Loop):
    """Begins calls at a fixed rate, on each session in turn."""

    def __init__(
        self,
        sessions: Sequence[Session[Any]],
        *,
        rate: float,
        seconds: float,
        most: int,
        offset: float = 0,
    ) -> None:
        """Begin `rate` calls a second, the first after `offset` seconds."""
        super().__init__(sessions, min(most, round(rate * seconds)))
        self._turns = itertools.cycle(sessions)
        self._interval = _SECOND / rate
        self._due = perf_counter_ns() + offset * _SECOND
        self._begun = asyncio.Event()
        self.lateness: Counter[int] = Counter()
        """Microseconds by which we were late to begin a call, our own fault."""

    async def run(self) -> None:
        """Until all calls have ended."""
        self._alarm = Alarm(self._pace)
        try:
            self._pace()
            await self._begun.wait()
        finally:
            self._alarm.close()
        await self._drained()

    def _pace(self) -> None:
        """Begin what is due. A call that finds no room waits, and its clock runs."""
        now = perf_counter_ns()
        used: dict[Session[Any], None] = {}
        for _ in range(_MOST_AT_ONCE):
            if self._due > now:
                break
            session = next(self._turns)
            if not self._begin(session, int(self._due)):
                self._left = 0
                break
            self.lateness[int(now - self._due) // 1000] += 1
            self._due += self._interval
            used[session] = None
        for session in used:
            session.connection.flush()
        wait = int(self._due) - perf_counter_ns() - _WAKING
        if not self._left:
            self._begun.set()
        elif wait > 0:
            self._alarm.set(wait)
        else:
            asyncio.get_running_loop().call_soon(self._pace)
