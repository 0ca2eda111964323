"""Calling the service's own port, as anybody with a certificate of the mesh can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse
from authz.lab.harness.certs import Certificate
from authz.lab.loopback.mesh import AUTHZ_HOST, Mesh
from authz.testing import token_set
from authz.wire import QUESTION, UPSTREAM, virtual_service_name

_CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
_SECONDS: Final = 10.0


async def check(
    mesh: Mesh,
    certificate: Certificate,
    metadata: Sequence[tuple[str, str]],
    *,
    headers: Sequence[tuple[str, str]] = (),
    principal: str = "",
    route_of: str = "",
) -> CheckResponse:
    """Ask one question with `certificate`, for a route of the namespace `route_of`.

    Raises:
        grpc.aio.AioRpcError: there was no answer.
    """
    request = CheckRequest()
    request.attributes.source.principal = principal
    request.attributes.request.http.method = "GET"
    request.attributes.request.http.path = "/hello"
    if route_of:
        istio = request.attributes.route_metadata_context.filter_metadata["istio"]
        istio.fields["config"].string_value = virtual_service_name(route_of, "any")
    for key, value in headers:
        request.attributes.request.http.header_map.headers.add(key=key, raw_value=value.encode())
    credentials = grpc.ssl_channel_credentials(
        certificate.ca_file.read_bytes(),
        certificate.key_file.read_bytes(),
        certificate.cert_file.read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", AUTHZ_HOST)]
    async with grpc.aio.secure_channel(str(mesh.authz), credentials, options) as channel:
        ask = channel.unary_unary(
            _CHECK,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
        response: CheckResponse = await ask(request, metadata=tuple(metadata), timeout=_SECONDS)
        return response


async def token(
    mesh: Mesh, certificate: Certificate, upstream: str, question: str = "sign", route_of: str = ""
) -> str:
    """A real token for a request to the cluster `upstream`, as the certificate's owner gets it."""
    metadata = [(QUESTION, question), (UPSTREAM, upstream)]
    return token_set(await check(mesh, certificate, metadata, route_of=route_of))
