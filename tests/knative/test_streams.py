"""Requests that are more than a head and a small body, through both proxies to the app."""

import asyncio

import pytest
import wsproto
from grpc import aio
from hyperframe.frame import GoAwayFrame
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from authz.lab.box.knative.http2 import Http2Stream
from authz.lab.box.knative.messages import End, Headers, Response, Stream, body, reply
from authz.lab.box.knative.messages import Request as Head
from authz.lab.box.knative.net import address, call, dial, serve
from tests.knative.support import HOST, Stand, get, told
from tests.support.waiting import eventually, soon

pytestmark = pytest.mark.usefixtures("awake")

SIZE = 20 << 20


@pytest.fixture
async def awake(stand: Stand) -> None:
    await stand.up()


async def test_grpc_streams_both_ways(stand: Stand) -> None:
    """serving pkg/http h2c transports: HTTP/2 stays HTTP/2, trailers and `te` pass."""
    options = [("grpc.default_authority", HOST)]
    async with aio.insecure_channel(stand.activator_at, options) as channel:
        bidi: aio.StreamStreamCall[bytes, bytes] = channel.stream_stream("/demo.Echo/Chat")()
        for number in range(5):
            message = str(number).encode() * 1000
            await bidi.write(message)
            assert await soon(bidi.read()) == message  # before the next is written
        await bidi.done_writing()
        assert await soon(bidi.read()) is aio.EOF
        assert (await bidi.code()).name == "OK"
    assert stand.app.seen[0]["http"] == 2
    assert ["te", "trailers"] in stand.app.seen[0]["headers"]


async def test_many_grpc_calls_share_a_connection(stand: Stand) -> None:
    """net/http2 serves streams concurrently."""

    async def one(channel: aio.Channel, number: int) -> bytes:
        say: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/demo.Echo/Say")
        return await say(str(number).encode())

    options = [("grpc.default_authority", HOST)]
    async with aio.insecure_channel(stand.activator_at, options) as channel:
        answers = await soon(asyncio.gather(*(one(channel, n) for n in range(30))))
    assert answers == [str(n).encode() for n in range(30)]


async def test_a_websocket_passes(stand: Stand) -> None:
    """reverseproxy.go: upgradeType, handleUpgradeResponse."""
    reader, writer = await asyncio.open_connection(*address(stand.activator_at))
    socket = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    writer.write(socket.send(Request(host=HOST, target="/chat")))

    events = socket.events()

    async def next_event() -> wsproto.events.Event:
        nonlocal events
        while (event := next(events, None)) is None:
            socket.receive_data(await soon(reader.read(1 << 16)) or None)
            events = socket.events()
        return event

    assert isinstance(await next_event(), AcceptConnection)
    for text in ("one", "two" * 50_000):
        writer.write(socket.send(TextMessage(data=text)))
        echoed = ""
        while len(echoed) < len(text):
            event = await next_event()
            assert isinstance(event, TextMessage)
            echoed += event.data
        assert echoed == text
    writer.write(socket.send(CloseConnection(code=1000)))
    assert isinstance(await next_event(), CloseConnection)
    assert await soon(reader.read()) == b""
    writer.close()
    headers = dict(map(tuple, stand.app.seen[0]["headers"]))
    assert (headers["upgrade"], headers["connection"]) == ("websocket", "Upgrade")


async def test_an_upgrade_that_is_refused_is_an_ordinary_answer(stand: Stand) -> None:
    """reverseproxy.go: only a 101 is an upgrade; the connection goes on."""
    headers = [("connection", "upgrade"), ("upgrade", "h2c")]
    async with dial(stand.activator_at) as stream:
        await stream.send(get("/", headers))
        await stream.send(End())
        head = await soon(stream.receive())
    assert isinstance(head, Response)
    assert head.status == 200


async def test_a_body_is_sent_after_100_continue(stand: Stand) -> None:
    """net/http server.go expectContinueReader; transport.go; reverseproxy.go Got1xxResponse."""
    async with dial(stand.activator_at) as stream:
        expecting = Headers([("expect", "100-continue")])
        await stream.send(Head("POST", "/", HOST, expecting, length=5))
        interim = await soon(stream.receive())
        assert isinstance(interim, Response)
        assert interim.status == 100
        assert stand.app.seen[0]["length"] == 0
        await stream.send(b"hello")
        await stream.send(End())
        head = await soon(stream.receive())
        assert isinstance(head, Response)
        assert head.status == 200
    assert stand.app.seen[0]["length"] == 5


async def test_a_refusal_instead_of_100_continue_arrives(stand: Stand) -> None:
    """net/http transport.go: a final answer ends the waiting."""
    async with dial(stand.activator_at) as stream:
        expecting = Headers([("expect", "100-continue")])
        await stream.send(Head("POST", "/early", HOST, expecting, length=5))
        head = await soon(stream.receive())
        assert isinstance(head, Response)
        assert head.status == 417


@pytest.mark.parametrize("version", [1, 2])
async def test_a_large_body_flows_both_ways(stand: Stand, version: int) -> None:
    """reverseproxy.go copyBuffer: nothing waits for the end of the request."""
    block = bytes(range(256)) * 256

    async def send() -> None:
        await stream.send(Head("POST", "/echo", HOST, length=SIZE, version=version))
        for _ in range(SIZE // len(block)):
            await stream.send(block)
        await stream.send(End())

    received = 0
    async with dial(stand.activator_at, version) as stream:
        sending = asyncio.create_task(send())
        head = await soon(stream.receive())
        assert isinstance(head, Response)
        assert head.status == 200
        while isinstance(part := await soon(stream.receive()), bytes):
            assert part == (block * 2)[received % len(block) :][: len(part)]
            received += len(part)
        await sending
    assert received == SIZE


@pytest.mark.parametrize("version", [1, 2])
async def test_a_large_answer_arrives(stand: Stand, version: int) -> None:
    """reverseproxy.go copyResponse."""
    response, content = await call(stand.activator_at, get(f"/large?bytes={SIZE}", version=version))
    assert (response.status, len(content)) == (200, SIZE)


async def test_trailers_of_a_request_pass(stand: Stand) -> None:
    """reverseproxy.go; a chunked body stays chunked."""
    async with dial(stand.activator_at) as stream:
        await stream.send(Head("POST", "/", HOST, length=None))
        await stream.send(b"abc")
        await stream.send(End(Headers([("x-checksum", "1")])))
        head = await soon(stream.receive())
        assert isinstance(head, Response)
        assert head.status == 200
    assert stand.app.seen[0]["length"] == 3


@pytest.mark.parametrize("version", [1, 2])
async def test_a_client_that_leaves_takes_its_request_along(stand: Stand, version: int) -> None:
    """net/http server.go: the context ends; transport.go then closes upstream."""
    async with dial(stand.activator_at, version) as stream:
        await stream.send(get("/slow?seconds=30", version=version))
        await stream.send(End())

        await eventually(told(lambda: stand.app.seen), "the app has it")
    await eventually(told(lambda: not stand.proxy._pending), "queue-proxy has let go")


async def test_a_connection_is_used_again(stand: Stand) -> None:
    """net/http server.go: keep-alive, also for a client that pipelines."""
    reader, writer = await asyncio.open_connection(*address(stand.activator_at))
    one = f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    writer.write(one * 3)
    writer.write(one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answers = await soon(reader.read())
    assert answers.count(b"HTTP/1.1 200") == 4
    writer.close()


async def test_what_is_not_http_is_a_bad_request(stand: Stand) -> None:
    """net/http server.go: badRequestError."""
    reader, writer = await asyncio.open_connection(*address(stand.activator_at))
    writer.write(b"\x16\x03\x01\x00\x05hello\r\n\r\n")
    assert (await soon(reader.read())).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_goaway_without_error_ends_no_stream() -> None:
    """RFC 9113 section 6.8; Envoy sends one to whoever it drains."""
    going = GoAwayFrame(0, last_stream_id=(1 << 31) - 1).serialize()

    async def wish_well(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        stream._connection._writer.write(going)
        await stream._connection.drain()

    async def answer(_request: Head, stream: Stream) -> None:
        await wish_well(stream)
        assert await body(stream) == b"x"
        await reply(stream, 200, b"y")

    async with serve(answer, host="127.0.0.1") as port, dial(f"127.0.0.1:{port}", 2) as stream:
        await stream.send(Head("POST", "/", HOST, length=None, version=2))
        await wish_well(stream)
        await stream.send(b"x")
        await stream.send(End())
        head = await soon(stream.receive())
        assert isinstance(head, Response)
        assert await soon(body(stream)) == b"y"
