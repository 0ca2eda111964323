"""Clients of the service's ports, and what an answer says."""

import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from authz._proto.ext_authz_pb2 import CheckResponse
from authz._proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from authz.lab.harness.certs import Certificate
from tests.support.certificates import SERVER_NAME
from tests.support.waiting import PATIENCE

AUTHORIZATION = "envoy.service.auth.v3.Authorization"
HEALTH = "grpc.health.v1.Health"


class Client:
    """Speaks to one server, as an Envoy does."""

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel
        self._check = self.method(f"/{AUTHORIZATION}/Check")
        self._health = self.method(f"/{HEALTH}/Check")

    def method(self, path: str) -> Callable[..., Awaitable[bytes]]:
        return self.channel.unary_unary(path)

    def watch(self, service: str = "") -> Any:
        request = HealthCheckRequest(service=service).SerializeToString()
        return self.stream(f"/{HEALTH}/Watch", request)

    def stream(self, path: str, request: bytes) -> Any:
        call: Any = self.channel.unary_stream(path)
        return call(request)

    async def ask(self, request: bytes, metadata: Mapping[str, str] | Sequence[Any]) -> bytes:
        pairs = tuple(metadata.items()) if isinstance(metadata, Mapping) else tuple(metadata)
        return await self._check(request, metadata=pairs, timeout=PATIENCE)

    async def check(self, question: str, request: bytes = b"", /, **metadata: str) -> CheckResponse:
        named = {f"x-authz-{key}": value for key, value in metadata.items()}
        return CheckResponse.FromString(
            await self.ask(request, {"x-authz-question": question, **named})
        )

    async def health(self, service: str = "") -> str:
        request = HealthCheckRequest(service=service).SerializeToString()
        answer = await self._health(request, timeout=PATIENCE)
        status = HealthCheckResponse.FromString(answer).status
        return HealthCheckResponse.ServingStatus.Name(status)


@asynccontextmanager
async def connected(
    port: int, certificate: Certificate | None = None, *, trusting: Path | None = None
) -> AsyncIterator[Client]:
    """A client on a connection of its own."""
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    address = f"127.0.0.1:{port}"
    if certificate is None and trusting is None:
        channel = aio.insecure_channel(address, options)
    else:
        roots = trusting or (Path() if certificate is None else certificate.ca_file)
        pair = (
            (None, None)
            if certificate is None
            else (certificate.key_file.read_bytes(), certificate.cert_file.read_bytes())
        )
        credentials = grpc.ssl_channel_credentials(roots.read_bytes(), *pair)
        channel = aio.secure_channel(address, credentials, options)
    async with channel:
        yield Client(channel)


async def refused(call: Awaitable[object]) -> grpc.StatusCode:
    """The status with which a call fails."""
    try:
        await call
    except aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    raise AssertionError("the call was answered")


def outcome(answer: CheckResponse) -> str:
    """What an answer says: `allowed`, or the word of a denial."""
    if answer.status.code == 0:
        return "allowed"
    (header,) = answer.denied_response.headers
    return header.header.value


def token_in(answer: CheckResponse) -> str:
    """The token that an answer to sign sets."""
    (header,) = answer.ok_response.headers
    return header.header.value


def http_get(url: str) -> tuple[int, str]:
    """Status and body of an HTTP resource."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
