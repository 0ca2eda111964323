"""The client of HTTP/1.1, and the loops over it."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from loadtest.alarm import Alarm
from loadtest.compare.http1 import HttpConnection
from loadtest.load import ClosedLoop, OpenLoop, Session

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"
DENIED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def session(*answers: Sequence[bytes]) -> AsyncIterator[Session[HttpConnection]]:
    """A connection to a server that gives these answers in turn, each in pieces."""
    turns = itertools.cycle(answers)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in next(turns):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = Session(1, HttpConnection)
    port = server.sockets[0].getsockname()[1]
    await asyncio.get_running_loop().create_connection(lambda: made.connection, "127.0.0.1", port)
    try:
        yield made
    finally:
        made.connection.close()
        async with asyncio.timeout(10):
            await ended.wait()
        server.close()
        await server.wait_closed()


async def closed(made: Session[HttpConnection], most: int) -> None:
    loop = ClosedLoop([made], seconds=10, most=most)
    made.begin(loop, itertools.repeat(REQUEST))
    await loop.run()


async def test_answers_are_counted_however_they_are_cut() -> None:
    async with session([OK], [OK[:5], OK[5:30], OK[30:]], [OK[:-1], OK[-1:]]) as made:
        await closed(made, 30)
        tally = made.connection.tally
        assert (tally.right, dict(tally.problems)) == (30, {})
        assert tally.latencies.total() == 30


async def test_another_status_is_a_problem() -> None:
    async with session([OK], [DENIED]) as made:
        await closed(made, 10)
        assert made.connection.tally.right == 5
        assert made.connection.tally.problems == {"HTTP status 403": 5}


async def test_more_than_was_asked_for_is_a_problem() -> None:
    async with session([OK + OK]) as made:
        await closed(made, 10)
        assert made.connection.tally.right == 0
        assert made.connection.tally.problems["more than one answer"] == 1


async def test_a_request_that_waits_counts_from_when_it_should_have_begun() -> None:
    async with session([OK]) as made:
        loop = ClosedLoop([made], seconds=10, most=0)
        made.begin(loop, [])
        second_ago = time.perf_counter_ns() - 1_000_000_000
        for _ in range(3):
            made.connection.call(REQUEST, second_ago)
        made.connection.flush()
        async with asyncio.timeout(10):
            while made.connection.tally.right < 3:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)
        assert min(made.connection.tally.latencies) >= 1_000_000


async def test_an_open_loop_keeps_its_rate_and_sleeps_in_between() -> None:
    async with session([OK]) as made:
        loop = OpenLoop([made], rate=200, seconds=0.5, most=1000)
        made.begin(loop, itertools.repeat(REQUEST))
        cpu, begun = time.process_time(), time.perf_counter()
        await loop.run()
        assert made.connection.tally.right == loop.lateness.total() == 100
        used, lasted = time.process_time() - cpu, time.perf_counter() - begun
        assert lasted > 0.45
        assert used < lasted / 2  # spinning would use all of it


@pytest.mark.parametrize("nanoseconds", [0, 1_000, 2_000_000])
async def test_an_alarm_rings_once_each_time(nanoseconds: int) -> None:
    rings: asyncio.Queue[float] = asyncio.Queue()
    alarm = Alarm(lambda: rings.put_nowait(time.perf_counter()))
    for _ in range(3):
        begun = time.perf_counter()
        alarm.set(nanoseconds)
        assert await asyncio.wait_for(rings.get(), 10) - begun >= nanoseconds / 1e9
    alarm.close()
    assert rings.empty()
