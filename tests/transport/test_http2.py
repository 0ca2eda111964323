"""Our own HTTP/2 listener: how connections end, who may connect, what an error costs."""

import asyncio
import dataclasses
import itertools
import ssl
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import grpc
import pytest

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.http2 import Connection
from authz.transport import closing, from_xfcc
from authz.transport.health import Health
from authz.transport.listener import Http2Listener
from authz.transport.rpc import MAX_WATCHES
from tests.http2 import wire
from tests.support.certificates import SERVICE, Issuer
from tests.support.clients import HEALTH, connected, refused
from tests.support.waiting import eventually, soon
from tests.transport.raw import Raw, h2_context, raw
from tests.transport.support import (
    BANK,
    LIMITS,
    SHOP,
    XFCC,
    Answering,
    Running,
    element,
    listening,
    material,
)

NO_ERROR, CALM, CANCEL = 0, 11, 8
LAST = 2**31 - 1


@pytest.fixture(autouse=True)
async def nothing_reaches_the_loop() -> Any:
    """What asyncio itself says of errors may quote what a client sent."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    yield
    assert told == []


async def closed(server: Running, *reasons: str) -> None:
    """Wait until connections have ended, for these reasons."""

    async def so() -> bool:
        return sorted(server.closed) == sorted(reasons)

    try:
        await eventually(so, "")
    except AssertionError:
        assert sorted(server.closed) == sorted(reasons)


# Drain -----------------------------------------------------------------------------------------


async def test_a_drain_says_goaway_twice_and_answers_what_comes_between() -> None:
    async with listening() as server, raw(server.port) as client:
        assert await client.ask(1) == "0"
        stopped = asyncio.ensure_future(server.listener.stop(20))
        await client.until(lambda: bool(client.goaways))
        assert client.goaways == [(LAST, NO_ERROR)]
        assert await client.ask(3) == "0"
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (3, NO_ERROR)
        assert not stopped.done()
        client.writer.close()
        await soon(stopped)
        assert server.closed == ["drain"]


async def test_a_request_that_began_before_the_second_goaway_is_finished_after_it() -> None:
    async with listening() as server, raw(server.port) as client:
        request = client.request(1)
        client.write(request[:-5])
        stopped = asyncio.ensure_future(server.listener.stop(20))
        await client.until(lambda: len(client.goaways) == 2)
        await asyncio.sleep(3 * closing.LINGER)  # who has a request under way is not hurried
        client.write(request[-5:])
        await client.until(lambda: 1 in client.statuses)
        client.writer.close()
        await soon(stopped)
        assert client.statuses == {1: "0"}


async def test_requests_that_wait_for_their_share_are_answered_before_the_second_goaway(
    issuer: Issuer,
) -> None:
    limits = dataclasses.replace(LIMITS, checks_per_second=200)
    async with (
        listening(tls=material(issuer.server()), limits=limits) as server,
        raw(server.port, h2_context(issuer.issue(SHOP))) as client,
    ):
        client.write(client.requests(1, 300))
        await client.until(lambda: bool(client.statuses))
        stopped = asyncio.ensure_future(server.listener.stop(20))
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (599, NO_ERROR)
        assert client.statuses == dict.fromkeys(range(1, 600, 2), "0")
        client.writer.close()
        await soon(stopped)


async def test_who_does_not_hang_up_after_a_drain_is_hung_up_on() -> None:
    async with listening() as server, raw(server.port) as client:
        assert await client.ask(1) == "0"
        await soon(server.listener.stop(20))
        assert server.closed == ["drain"]
        await client.rest()
        assert client.goaways == [(LAST, NO_ERROR), (1, NO_ERROR)]


async def test_a_drain_takes_no_longer_than_its_grace() -> None:
    async with listening() as server, raw(server.port) as client:
        client.write(client.request(1)[:-5])  # never completes
        await client.next()
        began = asyncio.get_running_loop().time()
        await soon(server.listener.stop(1))
        assert asyncio.get_running_loop().time() - began < 10  # a machine may be slow
        assert server.http2.connections == 0


async def test_who_connected_before_a_drain_and_was_not_accepted_yet_is_served() -> None:
    async with listening() as server:
        acceptor = server.http2._acceptor
        assert acceptor is not None
        acceptor._pause()  # as if the loop had not come to it yet
        async with raw(server.port) as client:  # the kernel has accepted it
            client.write(client.request(1))
            stopped = asyncio.ensure_future(server.listener.stop(20))
            await client.until(lambda: 1 in client.statuses and bool(client.goaways))
            assert client.statuses == {1: "0"}
            client.writer.close()
            await soon(stopped)


async def test_a_handshake_under_way_at_a_drain_is_finished_and_the_client_served(
    issuer: Issuer,
) -> None:
    async with listening(tls=material(issuer.server())) as server:
        context = h2_context(issuer.issue(SHOP))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="authz.test")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(outgoing.read())
        incoming.write(await soon(reader.read(65536)))
        stopped = asyncio.ensure_future(server.listener.stop(20))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(await soon(reader.read(65536)))
        speaker = Raw(reader, writer)
        tls.write(wire.PREFACE + wire.settings() + speaker.request(1))
        writer.write(outgoing.read())
        seen = b""
        while b"grpc-status" not in seen:
            incoming.write(await soon(reader.read(65536)))
            while incoming.pending:
                try:
                    seen += tls.read(65536)
                except ssl.SSLWantReadError:
                    break
        assert server.asked.callers == [SHOP]
        writer.transport.abort()
        await soon(stopped)


async def test_nobody_connects_during_a_drain() -> None:
    async with listening() as server, raw(server.port) as client:
        assert await client.ask(1) == "0"
        stopped = asyncio.ensure_future(server.listener.stop(20))
        await client.until(lambda: bool(client.goaways))
        with pytest.raises(ConnectionRefusedError):
            async with raw(server.port):
                pass
        client.writer.close()
        await soon(stopped)


# Age and idleness ------------------------------------------------------------------------------


async def test_an_old_connection_is_asked_to_go_in_two_steps() -> None:
    limits = dataclasses.replace(LIMITS, connection_age=1)
    async with listening(limits=limits) as server, raw(server.port) as client:
        stream_id = 1
        while not client.goaways:
            assert await client.ask(stream_id) == "0"
            stream_id += 2
        await client.rest()
        assert client.goaways == [(LAST, NO_ERROR), (stream_id - 2, NO_ERROR)]
        await closed(server, "age")


async def test_connections_that_came_together_do_not_age_together() -> None:
    limits = dataclasses.replace(LIMITS, connection_age=1000)
    async with listening(limits=limits) as server:
        clients = [raw(server.port) for _ in range(20)]
        entered = [await client.__aenter__() for client in clients]
        for one in entered:
            assert await one.ask(1) == "0"
        now = asyncio.get_running_loop().time()
        ages = sorted(connection._too_old - now for connection in server.http2._connections)
        assert 899 < ages[0] < ages[-1] <= 1000
        assert ages[-1] - ages[0] > 80
        assert max(b - a for a, b in itertools.pairwise(ages)) < 15
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_an_idle_connection_is_asked_to_go_in_two_steps() -> None:
    limits = dataclasses.replace(LIMITS, idle_seconds=1)
    async with listening(limits=limits) as server, raw(server.port) as client:
        assert await client.ask(1) == "0"
        await client.rest()
        assert client.goaways == [(LAST, NO_ERROR), (1, NO_ERROR)]
        await closed(server, "idle")


async def test_a_connection_with_an_open_watch_is_not_idle() -> None:
    limits = dataclasses.replace(LIMITS, idle_seconds=1)
    async with (
        listening(limits=limits) as server,
        raw(server.port) as watching,
        raw(server.port) as idle,
    ):
        watching.write(watching.request(1, b"", path=f"/{HEALTH}/Watch"))
        await watching.until(lambda: 1 in watching.bodies)
        await idle.rest()
        assert watching.goaways == []
        server.health.serving = True
        await watching.until(lambda: len(watching.bodies[1]) == 14)
        assert watching.goaways == []


# What never completes --------------------------------------------------------------------------


async def test_a_request_that_does_not_complete_is_reset() -> None:
    limits = dataclasses.replace(LIMITS, request_seconds=1)
    async with listening(limits=limits) as server, raw(server.port) as client:
        client.write(client.request(1)[: -9 - 10])  # no DATA
        await client.until(lambda: bool(client.resets))
        assert client.resets == {1: CANCEL}
        assert await client.ask(3) == "0"


@pytest.mark.parametrize(
    "said",
    [b"", wire.PREFACE[:10], wire.PREFACE, wire.PREFACE + wire.settings() + b"\0\0\x10"],
    ids=["nothing", "half a preface", "no settings", "half a frame"],
)
async def test_a_connection_that_does_not_begin_is_closed(said: bytes) -> None:
    limits = dataclasses.replace(LIMITS, request_seconds=1)
    async with listening(limits=limits) as server, raw(server.port, begin=False) as client:
        client.write(said)
        await client.rest()
        assert client.goaways[-1][1] == CALM
        await closed(server, "slow")


async def test_a_client_that_has_said_all_is_answered_all() -> None:
    async with listening() as server, raw(server.port) as client:
        client.write(client.requests(1, 1000))
        client.writer.write_eof()
        await client.rest()
        assert client.statuses == dict.fromkeys(range(1, 2001, 2), "0")
        await closed(server, "client")


async def test_a_client_that_goes_away_mid_request_costs_nothing() -> None:
    async with listening() as server:
        for cut in (1, 5, 20, 60):
            async with raw(server.port) as client:
                client.write(client.requests(1, 3)[:-cut])
                await client.next()
        await closed(server, *["client"] * 4)
        assert server.http2.connections == 0
        assert server.errors == []


# TLS -------------------------------------------------------------------------------------------


async def test_h2_is_chosen_of_what_istio_offers(issuer: Issuer) -> None:
    context = h2_context(issuer.issue(SHOP), "istio-connection-exchange", "istio", "h2")
    async with (
        listening(tls=material(issuer.server())) as server,
        raw(server.port, context) as client,
    ):
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        assert await client.ask(1) == "0"


@pytest.mark.parametrize("protocols", [("http/1.1",), ("istio-connection-exchange", "istio"), None])
async def test_who_does_not_agree_on_h2_is_not_served(
    issuer: Issuer, protocols: tuple[str, ...] | None
) -> None:
    context = issuer.issue(SHOP).client_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    async with (
        listening(tls=material(issuer.server())) as server,
        raw(server.port, context) as client,
    ):
        client.write(client.request(1))
        await client.rest()
        assert client.frames == []
        await closed(server, "alpn")
    assert server.asked.callers == []


async def test_who_shows_no_certificate_fails_in_the_handshake(issuer: Issuer) -> None:
    context = ssl.create_default_context(cafile=issuer.ca_file)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    async with listening(tls=material(issuer.server())) as server:
        async with raw(server.port, context) as client:  # in TLS 1.3 it learns of it later
            await client.rest()
            assert client.frames == []
        await closed(server, "handshake")
        assert server.errors == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_that_are_good_are_spoken(
    issuer: Issuer, version: ssl.TLSVersion
) -> None:
    context = h2_context(issuer.issue(SHOP))
    context.minimum_version = context.maximum_version = version
    async with (
        listening(tls=material(issuer.server())) as server,
        raw(server.port, context) as client,
    ):
        assert await client.ask(1) == "0"
        spoken = client.writer.get_extra_info("ssl_object")
        assert spoken.version() == version.name.replace("_", ".")


async def test_tls_before_1_2_is_refused(issuer: Issuer) -> None:
    context = h2_context(issuer.issue(SHOP))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with listening(tls=material(issuer.server())) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with raw(server.port, context):
                pass
        await closed(server, "handshake")


async def test_a_cipher_that_http2_forbids_is_not_agreed_on(issuer: Issuer) -> None:
    context = h2_context(issuer.issue(SHOP))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    async with listening(tls=material(issuer.server())) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with raw(server.port, context):
                pass
        await closed(server, "handshake")


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 4096,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        wire.PREFACE + wire.settings(),
        b"\x16\x03\x01\x40\x00" + b"\xff" * 0x4000,
    ],
    ids=["garbage", "http1", "http2", "a bad hello"],
)
async def test_who_does_not_speak_tls_is_cut_off_and_others_are_served(
    issuer: Issuer, said: bytes
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        raw(server.port, h2_context(issuer.issue(SHOP))) as honest,
    ):
        async with raw(server.port, begin=False) as client:
            client.write(said)
            await soon(client.reader.read())
        await closed(server, "handshake")
        assert await honest.ask(1) == "0"
    assert server.errors == []


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01" * 20])
async def test_who_does_not_speak_http2_is_told_and_cut_off(said: bytes) -> None:
    async with listening() as server, raw(server.port, begin=False) as client:
        client.write(said)
        await client.rest()
        assert client.goaways[-1][1] == wire.PROTOCOL_ERROR
        await closed(server, "protocol_error")


# Errors ----------------------------------------------------------------------------------------


class Raising(Answering):
    """A service that breaks its promise never to raise."""

    def asked(self, caller: SpiffeId | None, metadata: Any) -> Asked:
        if ("x-break", "asked") in metadata:
            raise RuntimeError("asked")
        return super().asked(caller, metadata)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        if request == b"break":
            raise RuntimeError("check")
        return super().check(request, asked)


async def test_a_service_that_raises_fails_that_call_alone() -> None:
    async with (
        listening(service=Raising()) as server,
        connected(server.port) as client,
    ):
        assert await client.ask(b"", {}) == b"answer"
        assert await refused(client.ask(b"break", {})) is grpc.StatusCode.UNAVAILABLE
        broken = client.ask(b"", {"x-break": "asked"})
        assert await refused(broken) is grpc.StatusCode.UNAVAILABLE
        assert await client.ask(b"", {}) == b"answer"
        assert list(map(str, server.errors)) == ["check", "asked"]
        assert server.closed == []


@pytest.fixture(params=["feed", "events", "output", "respond"])
def seam(request: pytest.FixtureRequest) -> Iterator[list[Connection[Any]]]:
    """One method of one connection raises, once its object is put into this list."""
    broken: list[Connection[Any]] = []
    real = getattr(Connection, request.param)

    def breaks(self: Connection[Any], *args: Any) -> Any:
        if self in broken:
            raise RuntimeError(request.param)
        return real(self, *args)

    with patch.object(Connection, request.param, breaks):
        yield broken


async def test_an_error_ends_its_own_connection_without_an_answer(
    seam: list[Connection[Any]],
) -> None:
    async with listening() as server, raw(server.port) as first, raw(server.port) as second:
        assert [await first.ask(1), await second.ask(1)] == ["0", "0"]
        seam.append(next(iter(server.http2._connections))._connection)
        first.write(first.requests(3, 100))
        await first.rest()
        assert list(first.statuses) == [1]
        await closed(server, "error")
        assert len(server.errors) == 1
        assert await second.ask(3) == "0"


async def test_an_error_in_a_sweep_ends_its_own_connection() -> None:
    async with listening() as server, raw(server.port) as first, raw(server.port) as second:
        assert [await first.ask(1), await second.ask(1)] == ["0", "0"]
        with patch.object(Connection, "expire", side_effect=RuntimeError("expire")):
            await first.rest()
            await second.rest()
        await closed(server, "error", "error")
        async with raw(server.port) as third:
            assert await third.ask(1) == "0"


async def test_an_error_in_a_watch_fails_that_call_alone() -> None:
    async with listening() as server, raw(server.port) as client:
        with patch.object(Health, "watch", side_effect=RuntimeError("watch")):
            client.write(client.request(1, b"", path=f"/{HEALTH}/Watch"))
            await client.until(lambda: 1 in client.statuses)
        assert client.statuses == {1: "13"}
        assert await client.ask(3) == "0"
        assert list(map(str, server.errors)) == ["watch"]


async def test_an_error_while_a_connection_is_made_ends_it(issuer: Issuer) -> None:
    context = h2_context(issuer.issue(SHOP))
    async with listening(tls=material(issuer.server())) as server:
        with patch(
            "authz.transport.connection.workload_of_uris", side_effect=RuntimeError("secret")
        ):
            async with raw(server.port, context) as client:
                await client.rest()
                assert client.frames == []
        await closed(server, "error")
        async with raw(server.port, context) as client:
            assert await client.ask(1) == "0"


# Calls -----------------------------------------------------------------------------------------


async def test_a_connection_has_so_many_watches_and_those_that_end_make_room() -> None:
    async with listening() as server, raw(server.port) as client:
        for number in range(MAX_WATCHES + 1):
            client.write(client.request(2 * number + 1, b"", path=f"/{HEALTH}/Watch"))
        await client.until(lambda: bool(client.statuses))
        assert client.statuses == {2 * MAX_WATCHES + 1: "8"}
        client.write(wire.rst(1))
        client.write(client.request(99, b"", path=f"/{HEALTH}/Watch"))
        await client.until(lambda: 99 in client.bodies)
        assert 99 not in client.statuses


async def test_callers_of_one_connection_are_told_apart_block_by_block() -> None:
    """Blocks repeat, so what they say is remembered; it must be what this one says."""
    people = [SHOP, BANK]
    async with (
        listening(caller_of=from_xfcc(SERVICE)) as server,
        raw(server.port) as client,
    ):
        for number in range(200):
            who = people[(number * number // 3) % 2]
            metadata = ((XFCC, element(who)),)
            stream_id = 2 * number + 1
            client.write(client.request(stream_id, str(who).encode(), metadata=metadata))
        await client.until(lambda: len(client.statuses) == 200)
    asked = zip(server.asked.requests, server.asked.callers, strict=True)
    assert all(request == str(caller).encode() for request, caller in asked)
    assert len(server.asked.metadata) < 20  # remembered


async def test_answers_larger_than_a_frame_and_a_window_arrive() -> None:
    async with listening() as server, connected(server.port) as client:
        server.asked.answer = bytes(200_000)
        answers = await asyncio.gather(*(client.ask(b"", {}) for _ in range(5)))
        assert answers == [bytes(200_000)] * 5


def test_a_listener_has_either_an_address_or_a_path() -> None:
    for both in ({}, {"host": "127.0.0.1", "path": "x"}):
        with pytest.raises(TypeError, match="either host or path"):
            Http2Listener(
                Answering(),
                Health(),
                limits=LIMITS,
                caller_of=from_xfcc(SERVICE),
                **both,  # type: ignore[arg-type]
            )
