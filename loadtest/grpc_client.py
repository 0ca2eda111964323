"""One client process: `python -m loadtest.grpc_client`.

Reads its share of a plan from standard input, connects, warms up and says `ready`. Then it waits
for a line, does the run, and says what came of it: one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import uvloop

from authz.config import IdentitySource
from authz.domain.keys import Keyring
from authz.domain.names import Namespace
from authz.lab.harness.keyfiles import KeyFiles
from loadtest import tenants
from loadtest.client_run import READY, ClientRun, encoded
from loadtest.grpc_connection import Connection, Tally
from loadtest.load import DRAIN_SECONDS, ClosedLoop, OpenLoop, Session
from loadtest.plan import FIRST_SIGHT_CALLS, Share
from loadtest.traffic import Call, Traffic

_HANDSHAKES: Final = 32  # at once
_CONNECT_SECONDS: Final = 30.0
_clock: Final = time.time  # noqa: TID251 - tokens are made by the real clock


class Client:
    """The connections of a share, and what they do one after the other."""

    def __init__(self, share: Share, keyring: Keyring) -> None:
        self._share = share
        self._plan = plan = share.plan
        self._traffic = Traffic(plan, keyring, _clock, lambda: _read_keyring(share))
        self._warm = [self._traffic.warm(n) for n in share.connections]
        self._unseen = (
            self._traffic.unseen(
                share.connections, min(plan.max_calls, FIRST_SIGHT_CALLS) // plan.processes or 1
            )
            if plan.first_sight
            else None
        )
        self._sessions: list[Session[Connection]] = []
        self._problems: Counter[str] = Counter()

    async def prepare(self) -> None:
        """Connect, see that strangers are denied, and make every call once and for a while."""
        self._sessions = [
            Session(self._plan.in_flight, Connection) for _ in self._share.connections
        ]
        context_of = self._contexts()
        gate = asyncio.Semaphore(_HANDSHAKES)
        await asyncio.gather(
            *(
                self._connect(session, context_of(number), gate)
                for session, number in zip(self._sessions, self._share.connections, strict=True)
            )
        )
        first = self._share.connections[0]
        await self._run([[self._traffic.forbidden(first)]], self._sessions[:1], DRAIN_SECONDS)
        await self._run(self._warm, self._sessions, DRAIN_SECONDS)
        if self._plan.warmup:
            await self._run(map(itertools.cycle, self._warm), self._sessions, self._plan.warmup)

    async def measure(self) -> ClientRun:
        """Do the run."""
        plan = self._plan
        processes = plan.processes
        calls: Iterable[Iterable[Call]] = self._unseen or map(itertools.cycle, self._warm)
        most = -(-plan.max_calls // processes)
        begun, cpu = time.perf_counter(), time.process_time()
        lateness: Counter[int] = Counter()
        loop: ClosedLoop | OpenLoop
        if plan.rate:
            rate = plan.rate / processes
            offset = self._share.number / plan.rate
            loop = OpenLoop(
                self._sessions, rate=rate, seconds=plan.seconds, most=most, offset=offset
            )
            lateness = loop.lateness
        else:
            loop = ClosedLoop(self._sessions, seconds=plan.seconds, most=most)
        for session, session_calls in zip(self._sessions, calls, strict=True):
            session.begin(loop, session_calls)
        await loop.run()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        total = self._tally()
        return ClientRun(
            total.right,
            seconds,
            cpu,
            encoded(total.latencies),
            encoded(lateness),
            dict(self._problems),
        )

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions:
            session.connection.close()

    async def _run(
        self, calls: Iterable[Iterable[Call]], sessions: list[Session[Connection]], seconds: float
    ) -> None:
        loop = ClosedLoop(sessions, seconds=seconds, most=sys.maxsize)
        for session, session_calls in zip(sessions, calls, strict=True):
            session.begin(loop, session_calls)
        await loop.run()
        self._tally()

    def _tally(self) -> Tally:
        """Add up what the sessions did since they began."""
        total = Tally()
        for session in self._sessions:
            tally = session.connection.tally
            total.right += tally.right
            total.latencies.update(tally.latencies)
            self._problems.update(tally.problems)
            session.connection.tally = Tally()
        return total

    async def _connect(
        self, session: Session[Connection], context: ssl.SSLContext | None, gate: asyncio.Semaphore
    ) -> None:
        loop = asyncio.get_running_loop()
        async with gate, asyncio.timeout(_CONNECT_SECONDS):
            await loop.create_connection(
                lambda: session.connection, self._share.host, self._share.port, ssl=context
            )
            await session.connection.ready

    def _contexts(self) -> Callable[[int], ssl.SSLContext | None]:
        """TLS for a connection, as its caller speaks it."""
        plan, directory = self._plan, Path(self._share.certificates)
        made: dict[Namespace, ssl.SSLContext] = {}
        if plan.identity is not IdentitySource.MTLS:
            return lambda number: None

        def context_of(connection: int) -> ssl.SSLContext:
            caller = tenants.namespace(plan.callers_of(connection)[0])
            if caller not in made:
                context = tenants.certificate(caller, directory).client_context()
                context.set_alpn_protocols(["h2"])
                made[caller] = context
            return made[caller]

        return context_of


def _read_keyring(share: Share) -> Keyring:
    """The keyring as it is now; blocks for some milliseconds."""
    with ThreadPoolExecutor(1) as pool:  # a loop of its own: ours is running
        return pool.submit(asyncio.run, KeyFiles(Path(share.keys)).keyring()).result()


async def _live(share: Share) -> None:
    client = Client(share, await KeyFiles(Path(share.keys)).keyring())
    await client.prepare()
    gc.collect()
    gc.freeze()
    gc.disable()  # a run is bounded, and pauses of ours would look like the server's
    _say(READY)
    if not await asyncio.to_thread(sys.stdin.readline):
        return  # whoever started us is gone
    _say((await client.measure()).to_json())
    client.close()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is how we report


def main() -> None:
    """Do one share."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and ends us
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(Share.from_json(sys.stdin.readline())))


if __name__ == "__main__":
    main()
