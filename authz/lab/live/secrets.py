"""Serves certificates as Istio's agent does: by SDS on a Unix socket.

`default` is the pod's own certificate and `ROOTCA` what others' are checked with; a proxy is known
by the id of its node. What a gateway shows to clients outside istiod delivers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import json_format

from authz.lab.ads import Discovery
from authz.lab.harness.certs import Certificate

Json = dict[str, Any]

_SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_KIND: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_V3: Final = "envoy.service.discovery.v3"


@asynccontextmanager
async def serving(
    path: Path, discovery: Discovery, certificates: Mapping[str, Certificate]
) -> AsyncIterator[None]:
    """Serve certificates, by id of a node, as long as the block lasts.

    Args:
        path: the socket.
        discovery: knows the messages.
        certificates: more may be added while it serves.
    """
    request = discovery.message(f"{_V3}.DiscoveryRequest")
    response = discovery.message(f"{_V3}.DiscoveryResponse")

    async def stream(asked: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        del context
        node = ""
        told: list[str] = []
        async for it in asked:
            node = it.node.id or node  # only the first request of a stream has it
            if (names := list(it.resource_names)) == told:
                continue  # it has taken what it was told; certificates here do not change
            told = names
            certificate = certificates[node]
            answer = {
                "version_info": "1",
                "nonce": "1",
                "type_url": _KIND,
                "resources": [_secret(name, certificate) for name in names],
            }
            yield json_format.ParseDict(answer, response(), descriptor_pool=discovery.pool)

    handler = grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"StreamSecrets": handler}),)
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _secret(name: str, certificate: Certificate) -> Json:
    secret: Json = {"@type": _KIND, "name": name}
    if name == "ROOTCA":
        return secret | {"validation_context": {"trusted_ca": _inline(certificate.ca_file)}}
    chain, key = _inline(certificate.cert_file), _inline(certificate.key_file)
    return secret | {"tls_certificate": {"certificate_chain": chain, "private_key": key}}


def _inline(file: Path) -> Json:
    """A file's content, as Istio's agent sends it.

    Of a file's name Envoy makes an inotify instance for each secret, and it aborts where there is
    none left: Linux gives a user 128, and two boxes at once need more.
    """
    return {"inline_bytes": b64encode(file.read_bytes()).decode()}
