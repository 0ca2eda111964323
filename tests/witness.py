"""Envoy's messages from an independent source, to check that ours mean the same on the wire.

envoy-data-plane is generated from Envoy's own protos by another compiler (betterproto2) and shares
no code with protobuf. Import it from here: it warns as it loads, and warnings are errors.
"""

import datetime as dt
import warnings
from collections.abc import Mapping, Sequence

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `@model_validator`", DeprecationWarning)
    import envoy_data_plane.envoy.config.core.v3 as core
    import envoy_data_plane.envoy.service.auth.v3 as auth
    from envoy_data_plane.google import rpc
    from envoy_data_plane.google.protobuf import Struct

__all__ = ["auth", "core", "envoy_check_request", "envoy_reads", "rpc"]

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def envoy_check_request(
    *,
    principal: str = "spiffe://cluster.local/ns/blue/sa/default",
    method: str = "GET",
    path: str = "/",
    host: str = "hello.green.svc.cluster.local",
    headers: Sequence[tuple[str, str]] = (),
    raw: bool = True,
    port: int = 8012,
    context_extensions: Mapping[str, str] | None = None,
    route_metadata: Mapping[str, Mapping[str, object]] | None = None,
) -> bytes:
    """A CheckRequest as an inbound sidecar sends it for a request that brings these headers.

    With `raw` Envoy was told `encode_raw_headers`; without, it joins repeated headers by commas.
    """
    sent = [(":authority", host), (":method", method), (":path", path), (":scheme", "http")]
    sent += [("x-request-id", "6f1c"), *headers]
    joined: dict[str, str] = {}
    for key, value in sent:
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    header_map = core.HeaderMap(
        headers=[core.HeaderValue(key=key, raw_value=value.encode()) for key, value in sent]
    )
    request = auth.AttributeContextHttpRequest(
        id="2795469873",
        method=method,
        headers={} if raw else joined,
        header_map=header_map if raw else None,
        path=path,
        host=host,
        scheme="http",
        size=-1,
        protocol="HTTP/1.1",
    )
    attributes = auth.AttributeContext(
        source=auth.AttributeContextPeer(address=_address("10.1.0.7", 41234), principal=principal),
        destination=auth.AttributeContextPeer(address=_address("10.1.0.9", port)),
        request=auth.AttributeContextRequest(time=NOON, http=request),
        context_extensions=dict(context_extensions or {}),
        metadata_context=core.Metadata(),
        route_metadata_context=core.Metadata(
            filter_metadata={
                name: Struct.from_dict(fields) for name, fields in (route_metadata or {}).items()
            }
        ),
    )
    return bytes(auth.CheckRequest(attributes=attributes))


def envoy_reads(response: bytes) -> auth.CheckResponse:
    """A CheckResponse as Envoy understands it.

    Compare what is absent with `is None`: a message full of defaults, `status` 0 too, is falsy.
    """
    return auth.CheckResponse.parse(response)


def _address(ip: str, port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address=ip, port_value=port))
