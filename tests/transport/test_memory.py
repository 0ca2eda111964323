"""What all connections hold together stays under its limit, and whoever holds most goes."""

import asyncio
import dataclasses
import gc
import weakref
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from authz.testing import workload
from authz.transport.connection import ServerConnection
from authz.transport.memory import Memory
from tests.http2 import wire
from tests.support.certificates import Issuer
from tests.support.waiting import eventually
from tests.transport.process import process
from tests.transport.raw import Raw, h2_context, raw
from tests.transport.support import BANK, LIMITS, SHOP, listening, material

MIB = 1024 * 1024


class Held:
    """A connection that is hung up on, or not."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.gone = False

    def shed(self) -> None:
        self.gone = True


def held(limit: int, *sizes: tuple[str, int]) -> tuple[Memory[Held], list[Held]]:
    memory: Memory[Held] = Memory(limit)
    holders = [Held(tenant) for tenant, _ in sizes]
    for holder, (_, size) in zip(holders, sizes, strict=True):
        memory.note(holder, size)
    return memory, holders


def test_up_to_the_limit_nobody_goes() -> None:
    memory, holders = held(100, ("a", 60), ("b", 40))
    assert memory.total == 100
    memory.note(holders[0], 10)
    memory.note(holders[1], 0)
    assert memory.total == 10
    assert not any(holder.gone for holder in holders)


def test_above_it_the_largest_of_whoever_holds_most_go() -> None:
    """`b` has the largest connection, `a` many that hold more together."""
    memory, holders = held(100, ("a", 20), ("b", 35), ("a", 10), ("a", 30), ("a", 6))
    assert [holder.gone for holder in holders] == [False, False, False, True, False]
    assert memory.total == 71
    memory.note(holders[0], 60)
    assert [holder.gone for holder in holders] == [True, False, False, True, False]
    assert memory.total == 51


def test_who_holds_all_alone_goes_itself() -> None:
    memory, holders = held(100, ("a", 101))
    assert holders[0].gone
    assert memory.total == 0
    memory.note(holders[0], 0)  # when it is lost
    assert memory.total == 0


# Over real connections -------------------------------------------------------------------------


def half(client: Raw, stream_id: int, size: int) -> bytes:
    """A Check of which this much of the message comes, and no more."""
    message = wire.framed(bytes(60_000))[: 5 + size]
    whole = client.request(stream_id, b"")
    head = whole[: len(whole) - 9 - 5]
    pieces = [message[at : at + 16_000] for at in range(0, len(message), 16_000)]
    return head + b"".join(wire.data(stream_id, piece, 0) for piece in pieces)


async def test_who_holds_most_is_hung_up_on_and_others_are_answered(issuer: Issuer) -> None:
    limits = dataclasses.replace(LIMITS, message_bytes=65_536, buffered_bytes=2 * MIB)
    greedy = [h2_context(issuer.issue(workload("shop", name))) for name in "abc"]
    async with (
        listening(tls=material(issuer.server()), limits=limits) as server,
        raw(server.port, h2_context(issuer.issue(BANK))) as honest,
        AsyncExitStack() as stack,
    ):
        honest.write(half(honest, 1, 50_000))
        clients = [await stack.enter_async_context(raw(server.port, tls)) for tls in greedy]
        for stream_id in range(1, 30, 2):
            for client in clients:
                client.write(half(client, stream_id, 59_000))
        await eventually(lambda: says(server.closed, "memory"), "somebody had to go")
        assert await honest.ask(3) == "0"
        honest.write(wire.data(1, bytes(10_000)))
        await honest.until(lambda: 1 in honest.statuses)
        assert honest.statuses[1] == "0"
        assert server.http2._memory.total <= 2 * MIB
        for client in clients:
            client.writer.transport.abort()
        await eventually(lambda: forgotten(server.http2._memory), "nothing is held")
        assert server.errors == []


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "mtls"])
async def test_a_connection_that_is_gone_is_freed_without_the_collector(
    issuer: Issuer, secure: bool
) -> None:
    tls = material(issuer.server()) if secure else None
    context = h2_context(issuer.issue(SHOP)) if secure else None
    async with listening(tls=tls) as server:
        gc.collect()
        gc.disable()
        try:
            seen: list[weakref.ref[ServerConnection]] = []
            for number in (1, 2, 3):  # what was just interrupted may still hold one of them
                async with raw(server.port, context) as client:
                    assert await client.ask(1) == "0"
                    seen += [weakref.ref(one) for one in server.http2._connections]
                await eventually(lambda: many(server.closed, number), "it is gone")  # noqa: B023 - at once
            await eventually(lambda: freed(seen), "they are freed")
        finally:
            gc.enable()


async def freed(seen: Sequence["weakref.ref[ServerConnection]"]) -> bool:
    return sum(one() is not None for one in seen) <= 1


async def many(said: Sequence[str], number: int) -> bool:
    return len(said) == number


async def says(said: Sequence[str], what: str) -> bool:
    return what in said


async def forgotten(memory: Memory[ServerConnection]) -> bool:
    return memory.total == 0


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "mtls"])
async def test_crowds_that_hold_all_they_may_stay_under_the_limit(
    issuer: Issuer, secure: bool
) -> None:
    """Half-sent requests of 100 connections: without a limit, 100 MiB of data.

    Over it are what a connection costs anyhow, and what the allocator keeps.
    """
    certificate = issuer.server() if secure else None
    context = h2_context(issuer.issue(SHOP)) if secure else None
    with process(certificate=certificate, buffered_bytes=16 * MIB, request_seconds=60) as server:
        async with raw(server.port, context) as first:
            await first.next()
        before, most = server.resident, 0
        async with AsyncExitStack() as stack:
            for _ in range(100):
                client = await stack.enter_async_context(raw(server.port, context))
                client.write(b"".join(half(client, n, 59_000) for n in range(1, 34, 2)))
                await asyncio.wait([asyncio.ensure_future(client.next())], timeout=5)
                most = max(most, server.resident - before)
        assert 8 * MIB < most < 16 * MIB * 2.5, f"{most / MIB:.1f} MiB"


async def test_a_crowd_that_takes_no_answers_stays_under_the_limit() -> None:
    """Windows of nothing: what each may have stored is 1 MiB, times 60."""
    with process(answer=16_000, buffered_bytes=16 * MIB, request_seconds=60) as server:
        async with raw(server.port) as first:
            assert await first.ask(1) == "0"
        before, most = server.resident, 0
        async with AsyncExitStack() as stack:
            for _ in range(60):
                client = await stack.enter_async_context(raw(server.port, begin=False))
                client.begin({0x4: 0})
                client.write(client.requests(1, 60))
                client.write(wire.ping())
                await asyncio.wait([asyncio.ensure_future(client.next())], timeout=5)
                most = max(most, server.resident - before)
        assert 8 * MIB < most < 16 * MIB * 2.5, f"{most / MIB:.1f} MiB"


async def test_what_idle_connections_had_in_their_header_blocks_is_not_kept() -> None:
    """64 blocks of each, full of fields that take far more room decoded: it was 3 MiB for each."""
    with process(request_seconds=60) as server:
        async with raw(server.port) as first:
            assert await first.ask(1) == "0"
        before = server.resident
        async with AsyncExitStack() as stack:
            for _ in range(20):
                client = await stack.enter_async_context(raw(server.port))
                assert await client.ask(1) == "0"  # from now on, these fields are in the table
                fields = client.request(3)[9:].partition(wire.data(3, wire.framed(b"hello")))[0]
                for stream_id in range(3, 131, 2):
                    block = fields + b"\x0f\x00\x00" * (170 + stream_id // 2)
                    head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
                    client.write(head + wire.data(stream_id, wire.framed(b"hello")))
                await client.until(lambda: len(client.statuses) == 65)  # noqa: B023 - at once
                assert set(client.statuses.values()) == {"0"}
            each = (server.resident - before) / 20
        assert each < 0.25 * MIB, f"{each / MIB:.2f} MiB"


async def test_heads_of_requests_that_do_not_end_stay_under_the_limit() -> None:
    """HEADERS without DATA, full of short fields: they take 22 MiB for each of 10 connections."""
    with process(buffered_bytes=16 * MIB, request_seconds=60) as server:
        async with raw(server.port) as first:
            assert await first.ask(1) == "0"
        before, most = server.resident, 0
        async with AsyncExitStack() as stack:
            for _ in range(10):
                client = await stack.enter_async_context(raw(server.port))
                assert await client.ask(1) == "0"
                fields = client.request(3)[9:].partition(wire.data(3, wire.framed(b"hello")))[0]
                block = fields + b"\x0f\x00\x00" * 240
                heads = [
                    wire.frame(
                        wire.HEADERS, wire.END_HEADERS, n, block + b"\0\1%c\0" % (n % 26 + 97)
                    )
                    for n in range(3, 1993, 2)
                ]
                client.write(b"".join(heads) + wire.ping())
                await asyncio.wait([asyncio.ensure_future(client.next())], timeout=5)
                most = max(most, server.resident - before)
        assert most < 16 * MIB * 2, f"{most / MIB:.1f} MiB"
