"""WebSocket: the handshake of both sides and an echo; the frames are wsproto's."""

from __future__ import annotations

import base64
import secrets

from wsproto import events, utilities
from wsproto.connection import Connection, ConnectionType

from authz.lab.box.knative.messages import End, Headers, Request, Response, Stream


def ask(target: str, host: str, agent: str) -> Request:
    """A client's handshake, as gorilla/websocket client.go sends it."""
    headers = [
        ("user-agent", agent),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", base64.b64encode(secrets.token_bytes(16)).decode()),
        ("sec-websocket-version", "13"),
    ]
    return Request("GET", target, host, Headers(headers))


async def accept(request: Request, stream: Stream) -> None:
    """A server's handshake, after which the stream is the connection's bytes."""
    while not isinstance(await stream.receive(), End):
        pass
    key = request.headers.get("sec-websocket-key").encode()
    headers = Headers([("upgrade", "websocket"), ("connection", "Upgrade")])
    headers.set("sec-websocket-accept", utilities.generate_accept_token(key).decode())
    await stream.send(Response(101, headers))


async def echo(stream: Stream) -> None:
    """Send every message back, fragment by fragment, until the client closes."""
    frames = Connection(ConnectionType.SERVER)
    while isinstance(part := await stream.receive(), bytes):
        frames.receive_data(part)
        for event in frames.events():
            if isinstance(event, events.Message):
                await stream.send(frames.send(event))
            elif isinstance(event, events.Ping | events.CloseConnection):
                await stream.send(frames.send(event.response()))
            if isinstance(event, events.CloseConnection):
                await stream.send(End())
                return
