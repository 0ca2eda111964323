"""HTTP with a port of a pod by way of the API server: `pods/portforward` over a WebSocket.

The protocol is v4.channel.k8s.io of the kubelet (kubernetes/kubernetes, staging directory
`k8s.io/cri-streaming/pkg/streaming/portforward`): each message begins with the number of a channel,
0 for data and 1 for an error's text, and the first of each channel is the port, in two bytes.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol

import h11
import httpcore2
import httpx2 as httpx
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.utilities import ProtocolError

from authz.kube.api import Resource
from authz.kube.errors import KubeError, TooMuch

PORT_FORWARD: Final = "portforward"

_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA, _ERROR = b"\0", b"\1"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_PART: Final = 1 << 16
_LONGEST_ERROR: Final = 300


class Upgrading(Protocol):
    """As much of `ApiServer` as this needs."""

    def upgraded(
        self,
        resource: Resource,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """See `ApiServer.upgraded`."""


async def get_from_pod(
    server: Upgrading,
    namespace: str,
    pod: str,
    port: int,
    target: str,
    *,
    longest: int,
    seconds: float,
) -> bytes:
    """What a port of a pod answers to GET `target`.

    It takes the rights `get` and `create` of `pods/portforward`, the latter by Kubernetes 1.35 and
    newer. The pod's own processes see the connection come from inside the pod.

    Args:
        server: whom to ask.
        namespace: the pod's.
        pod: its name.
        port: where it listens, perhaps on its loopback only.
        target: path and query.
        longest: bytes of the answer's body, at most.
        seconds: for all of it.

    Raises:
        KubeError: the API server does not let us, the port does not answer, or not with 200.
        TooMuch: the body is longer.
    """
    where = f"port {port} of pod {namespace}/{pod}"
    try:
        async with asyncio.timeout(seconds):
            async with aclosing(_forwarded(server, namespace, pod, port, target)) as data:
                return await _body(data, where, longest)
    except TimeoutError:
        raise KubeError(f"{where} did not answer within {seconds:g} s") from None
    except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError) as error:
        what = str(error) or type(error).__name__
        raise KubeError(f"the connection to {where} broke: {what}") from None
    except (h11.ProtocolError, ProtocolError) as error:
        raise KubeError(f"what {where} says is cut off or is no HTTP: {error}") from None


async def _body(data: AsyncIterator[bytes], where: str, longest: int) -> bytes:
    http = h11.Connection(h11.CLIENT)
    http.send(_request("/"))
    http.send(h11.EndOfMessage())
    body = bytearray()
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                part = await anext(data, b"")
                if not part and http.their_state is h11.SEND_RESPONSE and not http.trailing_data[0]:
                    raise KubeError(f"{where} closed the connection without an answer")
                http.receive_data(part)
            case h11.Response(status_code=code) if code != 200:
                raise KubeError(f"{where} answers {code}")
            case h11.Data(data=part):
                body += part
                if len(body) > longest:
                    raise TooMuch(f"{where} answers with more than {longest} bytes")
            case h11.EndOfMessage():
                return bytes(body)


def _request(target: str) -> h11.Request:
    headers = [("Host", "localhost"), ("Connection", "close")]
    return h11.Request(method="GET", target=target, headers=headers)


async def _forwarded(
    server: Upgrading, namespace: str, pod: str, port: int, target: str
) -> AsyncGenerator[bytes, None]:
    """What the port says to the request.

    Raises:
        KubeError: the API server or the node says why there is no such connection.
    """
    key = base64.b64encode(secrets.token_bytes(16))
    asked = Resource(f"pods/{PORT_FORWARD}", namespace=namespace)
    headers = {
        "accept": "*/*",  # containerd's server answers 406 to anything narrower
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": _PROTOCOL,
        "sec-websocket-key": key.decode(),
    }
    path = f"{Resource('pods', namespace=namespace).path}/{pod}/{PORT_FORWARD}"
    async with server.upgraded(
        asked, path, params={"ports": str(port)}, headers=headers
    ) as response:
        accepted = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        if response.headers.get("sec-websocket-accept") != accepted.decode():
            raise KubeError("the API server does not speak WebSockets: is there a proxy before it?")
        stream, sockets = response.extensions["network_stream"], Connection(ConnectionType.CLIENT)
        http = h11.Connection(h11.CLIENT)
        asking = (http.send(_request(target)) or b"") + (http.send(h11.EndOfMessage()) or b"")
        await stream.write(sockets.send(BytesMessage(data=_DATA + asking)))
        said, ended = _Channels(), False
        while not ended and (part := await stream.read(_PART)):
            sockets.receive_data(part)
            for event in sockets.events():
                match event:
                    case Ping():
                        await stream.write(sockets.send(event.response()))
                    case CloseConnection():
                        ended = True
                    case BytesMessage():
                        said.add(bytes(event.data), last=event.message_finished)
            if said.error:
                text = said.error[:_LONGEST_ERROR].decode(errors="replace")
                raise KubeError(f"the node of pod {namespace}/{pod} says: {text}")
            if said.data:
                yield said.data
                said.data = b""


class _Channels:
    """What came on both channels."""

    def __init__(self) -> None:
        self.data = b""
        self.error = b""
        self._channel = b""
        self._ports = {_DATA: 2, _ERROR: 2}
        """How many bytes of the port are still to come."""

    def add(self, part: bytes, *, last: bool) -> None:
        """A part of a message; the first begins with its channel."""
        if not self._channel:
            self._channel, part = part[:1], part[1:]
        ahead = min(self._ports.get(self._channel, 0), len(part))
        if ahead:
            self._ports[self._channel] -= ahead
        if self._channel == _DATA:
            self.data += part[ahead:]
        elif self._channel == _ERROR:
            self.error += part[ahead:]
        if last:
            self._channel = b""
