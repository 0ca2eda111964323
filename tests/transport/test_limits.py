"""Each limit that a client meets is counted under its name, and only that one."""

import dataclasses
from collections.abc import Callable

import pytest

from authz.transport.rpc import MAX_WATCHES
from tests.http2 import wire
from tests.support.clients import HEALTH
from tests.support.waiting import eventually
from tests.transport.raw import Raw, raw
from tests.transport.support import LIMITS, Running, listening

WATCH = f"/{HEALTH}/Watch"
MANY = dataclasses.replace(LIMITS, streams=100, message_bytes=65_536)


def half(client: Raw, stream_id: int, size: int) -> bytes:
    """The beginning of a request, and this much of its data."""
    request = client.request(stream_id)
    head = request[: len(request) - 9 - 10]
    pieces = [bytes(16_000)] * (size // 16_000)
    return head + b"".join(wire.data(stream_id, piece, 0) for piece in pieces)


def streams(client: Raw) -> bytes:
    return b"".join(half(client, stream_id, 0) for stream_id in range(1, 203, 2))


def message(client: Raw) -> bytes:
    return client.request(1, bytes(70_000)[:16_000]) + half(client, 3, 80_000)


def header_list(client: Raw) -> bytes:
    return client.request(1, metadata=[("a", "b" * 10_000), ("c", "d" * 10_000)])


def header_block(client: Raw) -> bytes:
    block = wire.frame(wire.CONTINUATION, 0, 1, bytes(16_000))
    return wire.frame(wire.HEADERS, 0, 1, bytes(1)) + 5 * block


def header_fields(client: Raw) -> bytes:
    return client.request(1, metadata=[("a", "b")] * 300)


def buffered(client: Raw) -> bytes:
    return b"".join(half(client, stream_id, 64_000) for stream_id in range(1, 37, 2))


def unsent(client: Raw) -> bytes:
    return client.requests(1, 30)


def credit(client: Raw) -> bytes:
    del client
    return wire.ping() * 1100


def slow(client: Raw) -> bytes:
    return half(client, 1, 0)


def watches(client: Raw) -> bytes:
    ids = range(1, 2 * MAX_WATCHES + 3, 2)
    return b"".join(client.request(stream_id, b"", path=WATCH, metadata=()) for stream_id in ids)


@pytest.mark.parametrize(
    ("provoke", "ends"),
    [
        (streams, False),
        (message, False),
        (header_list, False),
        (header_block, True),
        (header_fields, True),
        (buffered, False),
        (unsent, True),
        (credit, True),
        (slow, False),
        (watches, False),
    ],
)
async def test_a_limit_is_counted(provoke: Callable[[Raw], bytes], ends: bool) -> None:
    limits = dataclasses.replace(MANY, request_seconds=1 if provoke is slow else 60)
    async with listening(limits=limits) as server, raw(server.port, begin=False) as client:
        server.asked.answer = bytes(60_000)
        client.begin({0x4: 0} if provoke is unsent else None)
        client.write(provoke(client))
        await eventually(lambda: met(server), "a limit is met")
        if ends:
            await client.rest()
            await eventually(lambda: closed(server), "the connection is closed")
            assert server.closed == ["enhance_your_calm"]
        assert set(server.limited) == {provoke.__name__}
        assert server.limited[provoke.__name__] == (2 if provoke is buffered else 1)


async def met(server: Running) -> bool:
    return bool(server.limited)


async def closed(server: Running) -> bool:
    return bool(server.closed)


async def test_what_is_answered_meets_no_limit() -> None:
    async with listening() as server, raw(server.port) as client:
        for number in range(50):
            assert await client.ask(2 * number + 1) == "0"
        assert not server.limited
