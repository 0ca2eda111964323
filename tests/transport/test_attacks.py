"""Attacks over real sockets, each with the bound that holds."""

import asyncio
import dataclasses
import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from authz.testing import workload
from tests.http2 import wire
from tests.support.certificates import SERVER_NAME, Issuer
from tests.support.waiting import PATIENCE, at_last, eventually
from tests.transport.process import process
from tests.transport.raw import h2_context, raw
from tests.transport.support import BANK, LIMITS, SHOP, listening, material

KIB, MIB = 1024, 1024 * 1024
CALM = 11


async def so(condition: Callable[[], bool], what: str) -> None:
    async def look() -> bool:
        return condition()

    await eventually(look, what)


# Crowds ----------------------------------------------------------------------------------------


@contextmanager
def crowd(port: int, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each of which has said this."""
    members = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(count)]
    try:
        for member in members:
            member.sendall(said)
        yield members
    finally:
        for member in members:
            member.close()


async def test_a_crowd_that_never_finishes_its_handshakes_keeps_nobody_out(issuer: Issuer) -> None:
    limits = dataclasses.replace(LIMITS, handshakes=20, handshake_seconds=600)
    context = h2_context(issuer.issue(SHOP))
    async with listening(tls=material(issuer.server()), limits=limits) as server:
        acceptor = server.http2._acceptor
        assert acceptor is not None
        with crowd(server.port, 100, b"\x16\x03\x01"):
            await so(lambda: len(server.closed) == 80, "only as many as allowed are left")
            assert len(acceptor._greeting) == 20
            async with raw(server.port, context) as honest:
                assert await honest.ask(1) == "0"
        assert server.closed == ["handshake_limit"] * 81
        await so(lambda: not acceptor._greeting, "those who left are forgotten")


async def test_a_handshake_has_its_time_and_no_more(issuer: Issuer) -> None:
    limits = dataclasses.replace(LIMITS, handshake_seconds=1)
    async with listening(tls=material(issuer.server()), limits=limits) as server:
        with crowd(server.port, 30, b"\x16\x03\x01"):
            await so(lambda: server.closed == ["handshake"] * 30, "all are cut off")


async def test_a_crowd_that_hangs_up_halfway_leaves_nothing(issuer: Issuer) -> None:
    """Half a handshake, half a preface, half a request, and then silence or a FIN."""
    limits = dataclasses.replace(LIMITS, request_seconds=1, handshake_seconds=1)
    half = wire.PREFACE + wire.settings() + wire.frame(wire.HEADERS, 0, 1, b"\x83")
    async with (
        listening(limits=limits) as plain,
        listening(tls=material(issuer.server()), limits=limits) as secure,
    ):
        with crowd(plain.port, 50, half) as silent, crowd(plain.port, 50, half) as gone:
            for member in gone:
                member.shutdown(socket.SHUT_WR)
            with crowd(secure.port, 50, b"\x16\x03\x01") as halved:
                for member in halved:
                    member.shutdown(socket.SHUT_WR)
                await so(lambda: len(secure.closed) == 50, "those of TLS are gone")
            await so(lambda: len(plain.closed) == 100, "all are gone")
            assert len(silent) == 50
        assert plain.http2.connections == secure.http2.connections == 0
        assert plain.errors == secure.errors == []


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "mtls"])
async def test_idle_connections_cost_little_memory(issuer: Issuer, secure: bool) -> None:
    """Some 5 KiB in plaintext and 44 KiB in mTLS, of which OpenSSL takes most."""
    count, bound = (600, 60 * KIB) if secure else (2500, 24 * KIB)
    certificate = issuer.server() if secure else None
    context = h2_context(issuer.issue(SHOP)) if secure else None
    with process(certificate=certificate, connections_per_namespace=10_000) as server:
        with begun(server.port, 20, context):  # what the first one loads is not theirs
            before = server.resident
            with begun(server.port, count, context):
                each = (server.resident - before) / count
        assert each < bound, f"{each / KIB:.1f} KiB for each"
        at_last(lambda: server.descriptors < 100, "they are closed")


@contextmanager
def begun(port: int, count: int, context: ssl.SSLContext | None) -> Iterator[None]:
    """Connections that have begun to speak HTTP/2, and say no more."""
    with ExitStack() as stack:
        members: list[socket.socket] = []
        for _ in range(count):
            member = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            if context is not None:
                tls = context.wrap_socket(member, server_hostname=SERVER_NAME)
                member = stack.enter_context(tls)
            member.sendall(wire.PREFACE + wire.settings())
            members.append(member)
        for member in members:
            assert member.recv(9)[3] == wire.SETTINGS
        yield


async def test_no_more_connections_than_allowed() -> None:
    limits = dataclasses.replace(LIMITS, connections=3)
    async with listening(limits=limits) as server, AsyncExitStack() as stack:
        admitted = [await stack.enter_async_context(raw(server.port)) for _ in range(3)]
        for client in admitted:
            assert await client.ask(1) == "0"
        async with raw(server.port) as refused:
            await refused.rest()
            assert refused.frames == []
        assert server.closed == ["limit"]
        admitted[0].writer.close()
        await so(lambda: server.http2.connections == 2, "one is gone")
        async with raw(server.port) as client:
            assert await client.ask(1) == "0"


async def test_no_namespace_has_more_connections_than_allowed(issuer: Issuer) -> None:
    """However many service accounts it uses."""
    limits = dataclasses.replace(LIMITS, connections_per_namespace=2)
    shop, bank = h2_context(issuer.issue(SHOP)), h2_context(issuer.issue(BANK))
    another = h2_context(issuer.issue(workload("shop", "another")))
    async with (
        listening(tls=material(issuer.server()), limits=limits) as server,
        AsyncExitStack() as stack,
    ):
        mine = [await stack.enter_async_context(raw(server.port, tls)) for tls in (shop, another)]
        for client in mine:
            assert await client.ask(1) == "0"
        async with raw(server.port, shop) as refused, raw(server.port, bank) as other:
            await refused.rest()
            assert refused.frames == []
            assert await other.ask(1) == "0"
        elsewhere = h2_context(issuer.issue(workload("shop", "elsewhere", "elsewhere.test")))
        async with raw(server.port, elsewhere) as other:
            assert await other.ask(1) == "0"
        mine[0].writer.close()
        await so(lambda: len(server.closed) == 4, "one is gone")
        async with raw(server.port, shop) as client:
            assert await client.ask(1) == "0"
        assert sorted(server.closed[:4]) == ["client"] * 3 + ["namespace_limit"]


# Who asks and does not listen ------------------------------------------------------------------


def question(number: int) -> bytes:
    """A small Check on a stream."""
    return wire.frame(wire.HEADERS, wire.END_HEADERS, number, BLOCK) + wire.data(
        number, wire.framed(b"")
    )


# Literals that nobody remembers: the same bytes mean the same at any time.
BLOCK = b"".join(
    b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
    for name, value in wire.FIELDS
)


async def test_a_peer_that_does_not_read_is_read_no_more_and_then_cut_off() -> None:
    """Answers of 4 KiB, of which the client takes none: a window of HTTP/2 does not stop us."""
    with process(answer=4096, request_seconds=1) as server:
        before = server.resident
        with socket.create_connection(("127.0.0.1", server.port)) as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            windows = {0x4: 2**31 - 1}
            opening = wire.PREFACE + wire.settings(windows)
            opening += wire.window_update(0, 2**31 - 1 - 65_535)
            greedy.settimeout(0.5)
            sent = pour(greedy, opening, 200_000)
            assert sent < 100_000  # it stopped to read us
            grown = server.resident - before
            assert grown < 4 * MIB, f"{grown / MIB:.1f} MiB"
            descriptors = server.descriptors
            at_last(lambda: server.descriptors < descriptors, "it is cut off")


def pour(into: socket.socket, opening: bytes, count: int) -> int:
    """Ask so many times, or until nobody reads; how often that was."""
    asked = 0
    try:
        into.sendall(opening)
        while asked < count:
            batch = b"".join(question(2 * (asked + number) + 1) for number in range(100))
            into.sendall(batch)
            asked += 100
    except OSError:
        pass
    return asked


async def test_a_peer_without_a_window_gets_so_much_stored_and_no_more() -> None:
    with process(answer=4096, streams=100_000) as server:
        before = server.resident
        async with raw(server.port, begin=False) as client:
            client.begin({0x4: 0})
            client.write(client.requests(1, 2000))
            await client.rest()
            assert client.goaways[-1][1] == CALM
            assert client.bodies == {}
        grown = server.resident - before
        assert grown < 12 * MIB, f"{grown / MIB:.1f} MiB"


async def test_a_peer_without_a_window_that_waits_is_reset() -> None:
    limits = dataclasses.replace(LIMITS, request_seconds=1)
    async with listening(limits=limits) as server, raw(server.port, begin=False) as client:
        client.begin({0x4: 0})
        client.write(client.requests(1, 10))
        await client.until(lambda: len(client.resets) == 10)
        assert client.bodies == {}
        assert server.http2.connections == 1


# Who takes back what it asks -------------------------------------------------------------------


async def test_rapid_reset_ends_the_connection_of_whoever_does_it(issuer: Issuer) -> None:
    """CVE-2023-44487, by streams that are reset before they have all come."""
    context = h2_context(issuer.issue(SHOP))
    async with (
        listening(tls=material(issuer.server())) as server,
        raw(server.port, context) as client,
        raw(server.port, context) as other,
    ):
        for stream_id in range(1, 10_001, 2):
            client.write(client.request(stream_id)[: -9 - 10] + wire.rst(stream_id))
        await client.rest()
        assert client.goaways[-1][1] == CALM
        assert client.goaways[-1][0] < 2 * 1500
        assert server.asked.requests == []
        await so(lambda: server.closed == ["enhance_your_calm"], "the connection is closed")
        assert await other.ask(1) == "0"


async def test_resets_that_a_sidecar_passes_on_do_not_end_what_all_share() -> None:
    async with listening() as server, raw(server.port) as client:
        for stream_id in range(1, 10_001, 2):
            client.write(client.request(stream_id)[: -9 - 10] + wire.rst(stream_id))
        assert await client.ask(10_001) == "0"
        assert client.goaways == []
        assert server.http2.connections == 1
        (connection,) = server.http2._connections
        assert connection._connection.open_streams == 0


async def test_answers_that_nobody_waits_for_are_forgotten() -> None:
    """The same, by streams that are reset once they are answered, and before."""
    async with listening() as server, raw(server.port) as client:
        for stream_id in range(1, 2001, 2):
            client.write(client.request(stream_id) + wire.rst(stream_id))
        assert await client.ask(2001) == "0"
        (connection,) = server.http2._connections
        assert connection._connection.open_streams == 0


# Floods of frames ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flood",
    [
        wire.ping(),
        wire.settings(),
        wire.settings({0x4: 100}),
        wire.window_update(0, 1),
        wire.frame(wire.PRIORITY, 0, 1, b"\0\0\0\0\x10"),
        wire.frame(0x99, 0, 0, b"x"),
    ],
    ids=["ping", "settings", "window setting", "window update", "priority", "unknown"],
)
async def test_a_flood_of_frames_is_cut_off_and_others_are_served(flood: bytes) -> None:
    async with (
        listening() as server,
        raw(server.port, begin=False) as client,
        raw(server.port) as other,
    ):
        client.write(wire.PREFACE + wire.settings() + flood * 20_000)
        await client.rest()
        assert client.goaways[-1][1] == CALM
        assert await other.ask(1) == "0"
        await so(lambda: server.closed == ["enhance_your_calm"], "the connection is closed")


async def test_a_header_block_without_end_is_cut_off() -> None:
    async with listening() as server, raw(server.port) as client:
        client.write(wire.frame(wire.HEADERS, 0, 1, b"\x83"))
        client.write(wire.frame(wire.CONTINUATION, 0, 1, b"\x00\x01a" + bytes(1) + b"") * 20_000)
        await client.rest()
        assert client.goaways[-1][1] == CALM
        await so(lambda: server.closed == ["enhance_your_calm"], "the connection is closed")


# A listener that runs out ----------------------------------------------------------------------


async def test_a_listener_out_of_descriptors_goes_on_when_it_has_some_again() -> None:
    async with listening() as server:
        acceptor = server.http2._acceptor
        assert acceptor is not None
        real = acceptor._socket

        class Exhausted:
            """A socket that cannot accept."""

            def accept(self) -> None:
                raise OSError(24, "Too many open files")

            def fileno(self) -> int:
                return real.fileno()

        acceptor._socket = Exhausted()  # type: ignore[assignment]
        async with raw(server.port) as client:
            await so(lambda: "accept" in server.closed, "it has noticed")
            acceptor._socket = real
            assert await client.ask(1) == "0"
        assert server.errors == []


async def test_a_listener_out_of_descriptors_still_drains() -> None:
    async with listening() as server, raw(server.port) as client:
        assert await client.ask(1) == "0"
        with socket.socket() as late, no_descriptors_left():
            late.connect(("127.0.0.1", server.port))
            stopping = asyncio.create_task(server.http2.stop(grace=PATIENCE))
            await client.until(lambda: bool(client.goaways))
        client.writer.transport.abort()
        await stopping
        assert set(server.closed) == {"accept", "drain"}


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing, until the end of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [int(one.name) for one in Path("/proc/self/fd").iterdir()]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1, hard))
    filled = []
    try:
        with suppress(OSError):
            while True:
                filled.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in filled:
            os.close(one)
