"""An ext_authz server that answers what the test tells it to and remembers what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from authz._proto.ext_authz_pb2 import (
    CheckRequest,
    CheckResponse,
    HeaderValueOption,
    StatusCode,
)
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint

Context: TypeAlias = "grpc.aio.ServicerContext[CheckRequest, CheckResponse]"
Answer: TypeAlias = Callable[[CheckRequest, Context], Awaitable[CheckResponse]]


OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@dataclass(frozen=True)
class Question:
    """One Check as it arrived."""

    metadata: list[tuple[str, str]]
    request: CheckRequest

    def asked(self, key: str) -> list[str]:
        """All values of one key of the gRPC metadata."""
        return [value for name, value in self.metadata if name == key]


def allowing(sets: Mapping[str, str] | None = None, removes: Sequence[str] = ()) -> CheckResponse:
    response = CheckResponse()
    response.status.code = 0
    response.ok_response.headers_to_remove.extend(removes)
    for key, value in (sets or {}).items():
        option = response.ok_response.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = key, value
    response.ok_response.SetInParent()
    return response


def denying(key: str, value: str, body: str) -> CheckResponse:
    response = CheckResponse()
    response.status.code = 7
    response.denied_response.status.code = StatusCode.Forbidden
    response.denied_response.body = body
    option = response.denied_response.headers.add(append_action=OVERWRITE)
    option.header.key, option.header.value = key, value
    return response


def always(response: CheckResponse) -> Answer:
    async def answer(_request: CheckRequest, _context: Context) -> CheckResponse:
        return response

    return answer


@dataclass
class ScriptedAuthz:
    """Set `answer` before each request."""

    server: grpc.aio.Server
    certificate: Certificate
    answer: Answer = field(default_factory=lambda: always(allowing()))
    questions: list[Question] = field(default_factory=list)
    endpoint: Endpoint = field(init=False)

    async def start(self) -> None:
        files = self.certificate
        credentials = grpc.ssl_server_credentials(
            [(files.key_file.read_bytes(), files.cert_file.read_bytes())],
            files.ca_file.read_bytes(),
            require_client_auth=True,
        )
        port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.endpoint = Endpoint("127.0.0.1", port)
        handler = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=CheckRequest.FromString,
            response_serializer=CheckResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "envoy.service.auth.v3.Authorization", {"Check": handler}
        )
        self.server.add_generic_rpc_handlers((service,))
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(grace=None)

    async def _check(self, request: CheckRequest, context: Context) -> CheckResponse:
        metadata = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
        self.questions.append(Question(metadata, request))
        return await self.answer(request, context)


@asynccontextmanager
async def scripted_authz(certificate: Certificate) -> AsyncIterator[ScriptedAuthz]:
    authz = ScriptedAuthz(grpc.aio.server(), certificate)
    await authz.start()
    try:
        yield authz
    finally:
        await authz.stop()
