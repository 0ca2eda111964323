"""What every transport does, asked over real connections by a real client (grpcio's).

Who asks, what is refused, what is reloaded, what health says.
"""

import asyncio
import dataclasses
import errno
import socket
import ssl

import grpc
import pytest
from cryptography import x509

from authz.domain.identity import SpiffeId
from authz.testing import workload
from authz.transport import Health, from_insecure_metadata, from_xfcc
from tests.support.certificates import SERVER_NAME, SERVICE, Issuer, presented, serial
from tests.support.clients import AUTHORIZATION, HEALTH, connected, refused
from tests.support.waiting import soon
from tests.transport.support import (
    BANK,
    LIMITS,
    SHOP,
    XFCC,
    Answering,
    AnyListener,
    Listening,
    Plain,
    element,
    material,
)

# mTLS ------------------------------------------------------------------------------------------


async def test_the_identity_in_the_client_certificate_reaches_check(
    listening: Listening, issuer: Issuer
) -> None:
    async with listening(tls=material(issuer.server())) as server:
        for who in (SHOP, BANK):
            async with connected(server.port, issuer.issue(who)) as client:
                pair = ("x-authz-question", "sign")
                assert await client.ask(b"request", [pair, pair]) == Answering.answer
                assert server.asked.metadata[-1].count(pair) == 2
    assert server.asked.requests == [b"request"] * 2
    assert server.asked.callers == [SHOP, BANK]


async def test_metadata_does_not_say_who_asks_where_the_certificate_does(
    listening: Listening, issuer: Issuer
) -> None:
    claims = {
        "x-forwarded-client-cert": f"By={SERVICE};URI={BANK}",
        "x-authz-insecure-caller": str(BANK),
    }
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, issuer.issue(SHOP)) as client,
    ):
        await client.ask(b"", claims)
    assert server.asked.callers == [SHOP]


async def test_calls_on_one_connection_at_once_get_their_own_answers(
    listening: Listening, issuer: Issuer
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, issuer.issue(SHOP)) as client,
    ):
        bodies = [str(number).encode() for number in range(50)]
        answers = await asyncio.gather(*(client.ask(body, {}) for body in bodies))
    assert answers == [Answering.answer] * 50
    assert sorted(server.asked.requests) == sorted(bodies)


async def test_a_client_without_certificate_is_refused(
    listening: Listening, issuer: Issuer
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, trusting=issuer.ca_file) as client,
    ):
        assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE
        assert await refused(client.health()) is grpc.StatusCode.UNAVAILABLE
    assert server.asked.callers == []


async def test_a_client_of_another_authority_is_refused(
    listening: Listening, issuer: Issuer, foreign: Issuer
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, foreign.issue(SHOP), trusting=issuer.ca_file) as client,
    ):
        assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE
    assert server.asked.callers == []


async def test_a_client_that_speaks_no_tls_is_refused(listening: Listening, issuer: Issuer) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port) as client,
    ):
        assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE
    assert server.asked.callers == []


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("shop")],
        [x509.UniformResourceIdentifier(str(SHOP)), x509.UniformResourceIdentifier(str(BANK))],
        [x509.UniformResourceIdentifier(str(SHOP)), x509.UniformResourceIdentifier(str(SHOP))],
        [x509.UniformResourceIdentifier("https://shop.example/")],
        [x509.UniformResourceIdentifier(f"{SHOP}/more")],
        [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/sho%70/sa/till")],
        [x509.DNSName(str(SHOP))],
        [x509.RFC822Name(str(SHOP))],
    ],
    ids=["none", "dns", "two", "twice", "https", "longer", "escaped", "uri-as-dns", "uri-as-mail"],
)
async def test_a_certificate_that_names_no_one_workload_names_nobody(
    listening: Listening, issuer: Issuer, names: list[x509.GeneralName]
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, issuer.naming(*names)) as client,
    ):
        await client.ask(b"", {})
    assert server.asked.callers == [None]


async def test_a_dns_name_beside_the_one_uri_does_not_matter(
    listening: Listening, issuer: Issuer
) -> None:
    names = x509.DNSName("other"), x509.UniformResourceIdentifier(str(SHOP))
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, issuer.naming(*names)) as client,
    ):
        await client.ask(b"", {})
    assert server.asked.callers == [SHOP]


# Reload ----------------------------------------------------------------------------------------


async def test_a_new_certificate_is_presented_after_reload(
    listening: Listening, issuer: Issuer
) -> None:
    old, new = issuer.server(), issuer.renewed()
    async with listening(tls=material(old)) as server:
        seen = await asyncio.to_thread(presented, server.port)
        assert seen == serial(old)
        server.listener.use(material(new))
        seen = await asyncio.to_thread(presented, server.port)
        assert seen == serial(new)


async def test_a_connection_outlives_the_reload_of_the_certificate(
    listening: Listening, issuer: Issuer
) -> None:
    async with (
        listening(tls=material(issuer.server())) as server,
        connected(server.port, issuer.issue(SHOP)) as client,
    ):
        await client.ask(b"", {})
        server.listener.use(material(issuer.renewed()))
        assert await client.ask(b"", {}) == Answering.answer


async def test_clients_of_a_removed_authority_are_refused_and_of_a_new_one_taken(
    listening: Listening, issuer: Issuer, foreign: Issuer
) -> None:
    certificate = issuer.server()
    ours, theirs = issuer.issue(SHOP), foreign.issue(SHOP)
    async with listening(tls=material(certificate)) as server:
        async with connected(server.port, ours) as client:
            await client.ask(b"", {})
        server.listener.use(material(certificate, foreign.ca_file))
        async with connected(server.port, ours) as client:
            assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE
        async with connected(server.port, theirs, trusting=issuer.ca_file) as client:
            assert await client.ask(b"", {}) == Answering.answer


def handshake(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bool, ssl.SSLSession | None]:
    """Connect as a client that resumes its TLS sessions; whether HTTP/2 began, and the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME, session=session) as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        try:
            began = tls.recv(9)  # in TLS 1.3 the client learns here that it was refused
        except (ssl.SSLError, ConnectionError):
            return False, None
        return began[3:4] == b"\x04", tls.session  # a SETTINGS frame


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_resumed_session_does_not_keep_a_removed_authority_alive(
    listening: Listening, issuer: Issuer, foreign: Issuer, version: ssl.TLSVersion
) -> None:
    certificate = issuer.server()
    context = issuer.issue(SHOP).client_context()
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    async with listening(tls=material(certificate)) as server:
        began, session = await asyncio.to_thread(handshake, server.port, context)
        assert began
        assert session is not None
        began, _ = await asyncio.to_thread(handshake, server.port, context, session)
        assert began
        server.listener.use(material(certificate, foreign.ca_file))
        try:
            began, _ = await asyncio.to_thread(handshake, server.port, context, session)
        except (ssl.SSLError, ConnectionError):  # in TLS 1.2 the handshake itself fails
            began = False
        assert not began


# x-forwarded-client-cert and metadata ----------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        (element(SHOP), SHOP),
        (f"{element(BANK)},{element(SHOP)}", SHOP),
        (f'By={SERVICE};URI={BANK};Subject="a,{element(BANK)}",{element(SHOP)}', SHOP),
        (f"{element(SHOP)},", None),
        (f"{element(SHOP)},{element(BANK, by=BANK)}", None),
        (f"By={SERVICE};URI={SHOP};URI={BANK}", None),
        (f"By={SERVICE};Subject=x", None),
        (f"URI={SHOP}", None),
        (f'By={SERVICE};URI="{SHOP}', None),
        ("", None),
    ],
)
async def test_only_the_last_element_that_our_own_sidecar_wrote_says_who_asks(
    listening: Listening, header: str, caller: SpiffeId | None
) -> None:
    async with (
        listening(caller_of=from_xfcc(SERVICE)) as server,
        connected(server.port) as client,
    ):
        await client.ask(b"", {XFCC: header})
    assert server.asked.callers == [caller]


@pytest.mark.parametrize("values", [[], [element(SHOP), element(SHOP)], [element(BANK), ""]])
async def test_a_missing_or_repeated_header_names_nobody(
    listening: Listening, values: list[str]
) -> None:
    async with (
        listening(caller_of=from_xfcc(SERVICE)) as server,
        connected(server.port) as client,
    ):
        await client.ask(b"", [(XFCC, value) for value in values])
    assert server.asked.callers == [None]


async def test_one_connection_carries_many_callers(listening: Listening) -> None:
    """Our own sidecar multiplexes all tenants over one."""
    people = [workload(f"ns-{number}") for number in range(20)]
    async with (
        listening(caller_of=from_xfcc(SERVICE)) as server,
        connected(server.port) as client,
    ):
        await asyncio.gather(*(client.ask(str(p).encode(), {XFCC: element(p)}) for p in people))
    asked = dict(zip(server.asked.requests, server.asked.callers, strict=True))
    assert asked == {str(person).encode(): person for person in people}


async def test_the_insecure_metadata_is_believed_where_it_was_chosen(listening: Listening) -> None:
    async with (
        listening(caller_of=from_insecure_metadata()) as server,
        connected(server.port) as client,
    ):
        for value in (str(SHOP), "shop", f"{SHOP},{BANK}"):
            await client.ask(b"", {"x-authz-insecure-caller": value})
        await client.ask(b"", {XFCC: element(SHOP)})
    assert server.asked.callers == [SHOP, None, None, None]


async def test_a_listener_has_one_source_of_identity(kind: AnyListener, issuer: Issuer) -> None:
    tls, caller_of = material(issuer.server()), from_insecure_metadata()
    for both in ({"tls": tls, "caller_of": caller_of}, {}):
        with pytest.raises(TypeError, match="either tls or caller_of"):
            kind(
                Answering(),
                Health(),
                host="127.0.0.1",
                port=0,
                limits=LIMITS,
                **both,  # type: ignore[arg-type]
            )


# Limits and wrong calls ------------------------------------------------------------------------


async def test_a_message_over_the_limit_is_refused_and_the_next_one_answered(plain: Plain) -> None:
    async with plain() as (server, client):
        assert await client.ask(bytes(4096), {}) == Answering.answer
        too_large = client.ask(bytes(4097), {})
        assert await refused(too_large) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.ask(b"", {}) == Answering.answer
    assert list(map(len, server.asked.requests)) == [4096, 0]


async def test_metadata_over_the_limit_is_refused_and_the_next_call_answered(plain: Plain) -> None:
    async with plain() as (server, client):
        assert await client.ask(b"", {"x-long": "a" * 8192}) == Answering.answer
        status = await refused(client.ask(b"", {"x-long": "a" * 40_000}))
        # Ours says so with HTTP's 431, for which gRPC has no status.
        assert status in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN}
        assert await client.ask(b"", {}) == Answering.answer
    assert len(server.asked.requests) == 2


@pytest.mark.parametrize(
    "path",
    [
        f"/{AUTHORIZATION}/Allow",
        f"/{AUTHORIZATION}/check",
        "/envoy.service.auth.v2.Authorization/Check",
        f"/{HEALTH}/List",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/",
    ],
)
async def test_an_unknown_method_is_unimplemented(plain: Plain, path: str) -> None:
    async with plain() as (server, client):
        assert await refused(client.method(path)(b"")) is grpc.StatusCode.UNIMPLEMENTED
    assert server.asked.requests == []


async def test_binary_metadata_is_left_out(plain: Plain) -> None:
    async with plain() as (server, client):
        await client.ask(b"", [("x-authz-question-bin", b"\xff"), ("x-a", "b")])
    keys = [key for key, _ in server.asked.metadata[0]]
    assert "x-a" in keys
    assert "x-authz-question-bin" not in keys


async def test_a_second_listener_on_the_same_port_is_an_error(
    plain: Plain, kind: AnyListener
) -> None:
    async with plain() as (server, client):
        second = kind(
            Answering(),
            Health(),
            host="127.0.0.1",
            port=server.port,
            limits=LIMITS,
            caller_of=from_insecure_metadata(),
        )
        with pytest.raises(OSError, match="in use") as problem:
            await second.start()
        assert problem.value.errno == errno.EADDRINUSE
        assert await client.ask(b"", {}) == Answering.answer


async def test_it_listens_on_ipv6(kind: AnyListener) -> None:
    listener = kind(
        Answering(), Health(), host="::1", port=0, limits=LIMITS, caller_of=from_insecure_metadata()
    )
    port = await listener.start()
    try:
        _, writer = await soon(asyncio.open_connection("::1", port))
        writer.close()
        await writer.wait_closed()
    finally:
        await listener.stop(0)


async def test_stopping_before_starting_is_harmless(kind: AnyListener) -> None:
    listener = kind(
        Answering(),
        Health(),
        host="127.0.0.1",
        port=0,
        limits=LIMITS,
        caller_of=from_insecure_metadata(),
    )
    await soon(listener.stop(0))


async def test_a_stopped_listener_refuses_new_connections(listening: Listening) -> None:
    async with listening(caller_of=from_insecure_metadata()) as server:
        async with connected(server.port) as client:
            await client.ask(b"", {})
        await soon(server.listener.stop(0))
        async with connected(server.port) as client:
            assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE


async def test_a_watch_of_health_does_not_hold_up_the_stop(plain: Plain) -> None:
    """Else every drain would take its whole grace."""
    async with plain() as (server, client):
        states = aiter(client.watch())
        await soon(anext(states))
        await soon(server.listener.stop(600))
        assert [state async for state in states] == []


async def test_what_cannot_be_decided_is_unavailable(plain: Plain) -> None:
    async with plain() as (server, client):
        server.asked.answer = None
        assert await refused(client.ask(b"", {})) is grpc.StatusCode.UNAVAILABLE
        server.asked.answer = b"answer"
        assert await client.ask(b"", {}) == b"answer"


@pytest.mark.parametrize("size", [0, 1, 4000])
async def test_answers_of_any_size_arrive(plain: Plain, size: int) -> None:
    async with plain() as (server, client):
        server.asked.answer = bytes(size)
        answers = await asyncio.gather(*(client.ask(b"", {}) for _ in range(20)))
        assert answers == [bytes(size)] * 20


async def test_a_listener_that_stops_lets_running_calls_finish(plain: Plain) -> None:
    async with plain() as (server, client):
        await client.ask(b"", {})
        asked = [asyncio.ensure_future(client.ask(b"", {})) for _ in range(200)]
        await asyncio.sleep(0)  # they are on their way
        await soon(server.listener.stop(10))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers.count(b"answer") == len(server.asked.requests) - 1


# Health ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", AUTHORIZATION])
async def test_health_starts_as_not_serving_and_follows_the_server(
    plain: Plain, service: str
) -> None:
    async with plain() as (server, client):
        assert await client.health(service) == "NOT_SERVING"
        server.health.serving = True
        assert await client.health(service) == "SERVING"
        server.health.serving = False
        assert await client.health(service) == "NOT_SERVING"


async def test_the_health_of_an_unknown_service_is_not_found(plain: Plain) -> None:
    async with plain() as (_, client):
        assert await refused(client.health("other")) is grpc.StatusCode.NOT_FOUND


async def test_what_is_no_health_request_is_an_invalid_argument(plain: Plain) -> None:
    async with plain() as (_, client):
        check = client.method(f"/{HEALTH}/Check")(b"\xff")
        assert await refused(check) is grpc.StatusCode.INVALID_ARGUMENT
        watch = client.stream(f"/{HEALTH}/Watch", b"\xff")
        assert await refused(aiter(watch).__anext__()) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watch_tells_the_state_and_each_change(plain: Plain) -> None:
    async with plain() as (server, client):
        watch = client.watch(AUTHORIZATION)
        states = aiter(watch)
        assert await soon(anext(states)) == b"\x08\x02"
        server.health.serving = True
        assert await soon(anext(states)) == b"\x08\x01"
        server.health.serving = True  # no change
        server.health.serving = False
        assert await soon(anext(states)) == b"\x08\x02"
        watch.cancel()


async def test_a_watch_of_an_unknown_service_says_so_and_goes_on(plain: Plain) -> None:
    async with plain() as (server, client):
        watch = client.watch("other")
        assert await soon(aiter(watch).__anext__()) == b"\x08\x03"
        server.health.serving = True
        assert await client.health() == "SERVING"
        assert not watch.done()
        watch.cancel()


async def test_a_watch_that_is_slow_sees_the_newest_state() -> None:
    health = Health()
    states = health.watch(b"")
    assert await anext(states) == b"\x08\x02"
    for serving in (True, False, True):
        health.serving = serving
    assert await soon(anext(states)) == b"\x08\x01"
    await states.aclose()  # type: ignore[attr-defined]


async def test_settings_of_limits_reach_the_server(plain: Plain) -> None:
    small = dataclasses.replace(LIMITS, message_bytes=1024)
    async with plain(small) as (_, client):
        assert await client.ask(bytes(1024), {}) == Answering.answer
        assert await refused(client.ask(bytes(1025), {})) is grpc.StatusCode.RESOURCE_EXHAUSTED
