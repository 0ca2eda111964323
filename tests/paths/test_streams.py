"""Whatever HTTP can be: WebSocket, gRPC, large bodies, 100-continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from wsproto import events
from wsproto.connection import Connection, ConnectionType

from authz.lab.box.istio.mesh import Mesh
from authz.lab.box.knative import websocket
from authz.lab.box.knative.messages import End, Headers, Request, Response, Stream
from authz.lab.box.knative.net import exchange
from authz.lab.box.paths.table import ACTIVATOR
from tests.paths.conftest import in_the_box
from tests.support.waiting import soon

pytestmark = in_the_box

SIZE = 20_000_000
CHUNK = 1 << 18
BY_THE_LOCAL_GATEWAY = ("acme-web/idle", "hello.acme-db", "hello")
WAYS = [
    ("acme-web/hello", "hello.acme-db", "hello"),
    ("acme-web/hello", "idle.acme-db", "idle"),
    BY_THE_LOCAL_GATEWAY,
    ("outside/server", "hello.acme-web.example.com", "hello"),
    ("outside/server", "idle.acme-web.example.com", "idle"),
]
ways = pytest.mark.parametrize(
    ("caller", "host"),
    [way[:2] for way in WAYS],
    ids=["pod", "activator", "gateway", "public", "all"],
)


@asynccontextmanager
async def stream(mesh: Mesh, caller: str, host: str, port: int = 80) -> AsyncIterator[Stream]:
    """An exchange whose parts can be sent and received in any order."""
    async with mesh.connected(caller, f"{host}:{port}") as raw:
        version = 2 if port in {81, 8013} else 1
        async with exchange(raw.reader, raw.writer, version) as opened:
            yield opened


async def head_of(opened: Stream) -> Response:
    head = await soon(opened.receive())
    assert isinstance(head, Response)
    return head


@pytest.mark.parametrize(
    ("caller", "host"),
    [it[:2] for it in WAYS if it != BY_THE_LOCAL_GATEWAY],
    ids=["pod", "activator", "public", "all"],
)
async def test_a_websocket(mesh: Mesh, caller: str, host: str) -> None:
    client = Connection(ConnectionType.CLIENT)
    async with stream(mesh, caller, host) as opened:
        await opened.send(websocket.ask("/", host, "test"))
        await opened.send(End())
        assert (await head_of(opened)).status == 101
        for text in ("one", "two"):
            await opened.send(client.send(events.TextMessage(text)))
            part = await soon(opened.receive())
            assert isinstance(part, bytes)
            client.receive_data(part)
            [message] = client.events()
            assert isinstance(message, events.TextMessage)
            assert message.data == text


async def test_no_websocket_passes_the_local_gateway(mesh: Mesh) -> None:
    """Nor would it without us: HTTP/2 leads there, and istiod does not let it take CONNECT."""
    caller, host, app = BY_THE_LOCAL_GATEWAY
    await mesh.forget(f"acme-db/{app}")
    async with stream(mesh, caller, host) as opened:
        await opened.send(websocket.ask("/", host, "test"))
        await opened.send(End())
        assert (await head_of(opened)).status == 503
    assert await mesh.seen(f"acme-db/{app}") == []


async def test_a_websocket_of_another_tenant_is_denied(mesh: Mesh) -> None:
    for name in ("hello", "idle"):
        await mesh.forget(f"acme-db/{name}")
        async with stream(mesh, "globex/hello", f"{name}.acme-db") as opened:
            await opened.send(websocket.ask("/", f"{name}.acme-db", "test"))
            await opened.send(End())
            assert (await head_of(opened)).status == 403
        assert await mesh.seen(f"acme-db/{name}") == []


def message(text: bytes) -> bytes:
    """A gRPC message."""
    return b"\0" + len(text).to_bytes(4, "big") + text


GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def routed(name: str) -> list[tuple[str, str]]:
    """What a VirtualService that leads to port 81 sets."""
    return [
        ("knative-serving-namespace", "acme-db"),
        ("knative-serving-revision", f"{name}-00001"),
        *GRPC,
    ]


@pytest_asyncio.fixture(loop_scope="session")
async def h2c(mesh: Mesh) -> AsyncIterator[Mesh]:
    """The box, where the activator knows of `idle` that it speaks HTTP/2: by port 81."""
    private = f"{mesh.address('idle-00001-private.acme-db')}:81"
    pods = [f"{mesh.address('acme-db/idle')}:8013"]
    wanted = {"pods": pods, "cluster_ip": private}
    await mesh.control(ACTIVATOR, "PUT", "/revisions/acme-db/idle-00001", wanted)
    await mesh.settled()
    yield mesh
    await mesh.scale("acme-db/idle", up=True)
    await mesh.settled()


@pytest.mark.parametrize("name", ["hello", "idle"])
async def test_a_unary_grpc_call(h2c: Mesh, name: str) -> None:
    mesh = h2c
    answer = await mesh.call(
        "acme-web/hello",
        f"http://{name}-00001.acme-db:81/demo.Echo/Say",
        method="POST",
        headers=routed(name),
        body=message(b"hello"),
        http2=True,
    )
    assert (answer.status, answer.body) == (200, message(b"hello"))


@pytest.mark.parametrize(
    ("name", "service", "port"),
    [
        ("hello", "hello-00001", 81),
        ("hello", "hello-00001-private", 8013),
        ("idle", "idle-00001", 81),
    ],
)
async def test_a_grpc_stream_in_both_directions(
    h2c: Mesh, name: str, service: str, port: int
) -> None:
    host = f"{service}.acme-db"
    async with stream(h2c, "acme-web/hello", host, port) as opened:
        request = Request("POST", "/demo.Echo/Chat", host, Headers(routed(name)), None, 2)
        await opened.send(request)
        assert (await head_of(opened)).status == 200
        for number in range(3):  # each is answered before the next is sent
            sent = message(b"%d" % number)
            await opened.send(sent)
            received = b""
            while len(received) < len(sent):
                part = await soon(opened.receive())
                assert isinstance(part, bytes)
                received += part
            assert received == sent
        await opened.send(End())
        end = await soon(opened.receive())
        assert isinstance(end, End)
        assert end.trailers.get("grpc-status") == "0"


async def test_a_grpc_stream_of_another_tenant_is_denied(mesh: Mesh) -> None:
    for name in ("hello", "idle"):
        url = f"http://{name}-00001.acme-db:81/demo.Echo/Chat"
        answer = await mesh.call(
            "globex/hello", url, method="POST", headers=routed(name), http2=True
        )
        # Envoy tells a gRPC client in its own words: 200, and the status behind it.
        assert answer.headers.get("grpc-status") == "7"
        assert answer.reason == "not-allowed"


@ways
async def test_twenty_megabytes_both_ways(mesh: Mesh, caller: str, host: str) -> None:
    async with stream(mesh, caller, host) as opened:

        async def send() -> None:
            await opened.send(Request("POST", "/echo", host, length=SIZE))
            for start in range(0, SIZE, CHUNK):
                await opened.send(b"x" * min(CHUNK, SIZE - start))
            await opened.send(End())

        async def receive() -> int:
            assert (await head_of(opened)).status == 200
            count = 0
            while isinstance(part := await soon(opened.receive()), bytes):
                count += len(part)
            return count

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            received = group.create_task(receive())
    assert received.result() == SIZE


@ways
async def test_a_client_that_waits_for_100_continue(mesh: Mesh, caller: str, host: str) -> None:
    async with stream(mesh, caller, host) as opened:
        headers = Headers([("expect", "100-continue")])
        await opened.send(Request("POST", "/", host, headers, 5))
        assert (await head_of(opened)).status == 100
        await opened.send(b"later")
        await opened.send(End())
        assert (await head_of(opened)).status == 200


async def test_one_who_is_denied_is_not_told_to_continue(mesh: Mesh) -> None:
    async with stream(mesh, "globex/hello", "hello.acme-db") as opened:
        headers = Headers([("expect", "100-continue")])
        await opened.send(Request("POST", "/", "hello.acme-db", headers, 5))
        head = await head_of(opened)
        if head.status == 100:  # the caller's own sidecar may have said so
            await opened.send(b"later")
            await opened.send(End())
            head = await head_of(opened)
        assert head.status == 403


@ways
async def test_an_answer_before_the_body_was_read(mesh: Mesh, caller: str, host: str) -> None:
    async with stream(mesh, caller, host) as opened:
        await opened.send(Request("POST", "/early", host, length=SIZE))
        await opened.send(b"x" * CHUNK)
        assert (await head_of(opened)).status == 417
