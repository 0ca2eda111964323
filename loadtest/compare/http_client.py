"""One client process: `python -m loadtest.compare.http_client`.

Reads a task from each line of standard input, connects, warms up and says `ready`. After another
line it does the task and says what came of it, in one line of JSON. It lives for many tasks, since
starting it takes longer than most of them.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

import uvloop

from loadtest.client_run import READY, ClientRun, encoded
from loadtest.compare.http1 import HttpConnection
from loadtest.load import ClosedLoop, OpenLoop, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one process does. `rate` 0 is a closed loop."""

    host: str
    port: int
    authority: str
    connections: int
    rate: float
    offset: float
    """Seconds before the first request of an open loop."""
    seconds: float
    warmup: float

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo `to_json`."""
        return cls(**json.loads(text))

    @property
    def request(self) -> bytes:
        """As it goes over the wire."""
        return f"GET /cart/items?page=2 HTTP/1.1\r\nhost: {self.authority}\r\n\r\n".encode()


async def _sessions(task: Task) -> list[Session[HttpConnection]]:
    sessions = [Session(1, HttpConnection) for _ in range(task.connections)]
    loop = asyncio.get_running_loop()

    async def connect(session: Session[HttpConnection]) -> None:
        await loop.create_connection(lambda: session.connection, task.host, task.port)

    await asyncio.gather(*map(connect, sessions))
    return sessions


async def _run(task: Task, sessions: list[Session[HttpConnection]], seconds: float) -> ClientRun:
    begun, cpu = time.perf_counter(), time.process_time()
    lateness: Counter[int] = Counter()
    loop: ClosedLoop | OpenLoop
    if task.rate:
        loop = OpenLoop(
            sessions, rate=task.rate, seconds=seconds, most=sys.maxsize, offset=task.offset
        )
        lateness = loop.lateness
    else:
        loop = ClosedLoop(sessions, seconds=seconds, most=sys.maxsize)
    for session in sessions:
        session.begin(loop, itertools.repeat(task.request))
    await loop.run()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    latencies: Counter[int] = Counter()
    problems: Counter[str] = Counter()
    for session in sessions:
        latencies.update(session.connection.tally.latencies)
        problems.update(session.connection.tally.problems)
    return ClientRun(
        latencies.total(), seconds, cpu, encoded(latencies), encoded(lateness), dict(problems)
    )


async def _live() -> None:
    gc.freeze()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = Task.from_json(line)
        sessions = await _sessions(task)
        warm = await _run(task, sessions, task.warmup)
        gc.collect()
        gc.disable()  # a run is bounded, and pauses of ours would look like the server's
        _say(READY)
        if not await asyncio.to_thread(sys.stdin.readline):
            return
        outcome = await _run(task, sessions, task.seconds)
        gc.enable()
        problems = Counter(outcome.problems) + Counter(warm.problems)
        _say(json.dumps(asdict(outcome) | {"problems": dict(problems)}))
        for session in sessions:
            session.connection.close()


def _say(line: Any) -> None:
    print(line, flush=True)  # noqa: T201 - this is how we report


def main() -> None:
    """Do one task after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and ends us
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_live())
        except OSError as error:  # such as a sidecar that is gone, on Ctrl-C
            sys.exit(f"a load client ends: {error}")


if __name__ == "__main__":
    main()
