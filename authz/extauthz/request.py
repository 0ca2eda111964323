"""Reads a CheckRequest and its gRPC metadata into values that decisions are made by.

Source: envoy/service/auth/v3/attribute_context.proto.
"""

from collections.abc import Sequence
from typing import Final

from authz._proto.ext_authz_pb2 import AttributeContext, CheckRequest
from authz.domain.facts import BY_PATH, Asked, Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.policy import Policy
from authz.wire import CONTAINERS, HOP, QUESTION, UPSTREAM

Metadata = Sequence[tuple[str, str]]
"""gRPC request metadata: lower-case keys and text values, repeated ones apart."""


_TRACE: Final = "traceparent"
"""Of W3C Trace Context: Envoy puts it on a Check where it traces."""
_ASKING: Final = frozenset({QUESTION, UPSTREAM, HOP, CONTAINERS, _TRACE})
_QUEUE_PROXY: Final = "queue-proxy"
FORWARDED: Final = frozenset({"x-request-id", "x-forwarded-proto"})
"""What Envoy puts on each request that it passes on, and on no Check of its own.

Source: envoy source/common/http/conn_manager_utility.cc, mutateRequestHeaders.
"""
_USER_AGENT: Final = "user-agent"
_NETWORK_PROBE: Final = "k-network-probe"
_KN_NAMESPACE: Final = "kn-namespace"
_SERVING_NAMESPACE: Final = "knative-serving-namespace"
_SERVING_REVISION: Final = "knative-serving-revision"
_CONTENT_LENGTH: Final = "content-length"
_READ: Final = frozenset(
    {
        _USER_AGENT,
        _NETWORK_PROBE,
        _KN_NAMESPACE,
        _SERVING_NAMESPACE,
        _SERVING_REVISION,
        _CONTENT_LENGTH,
    }
)
_REQUEST_ID: Final = "x-request-id"
_MAX_REQUEST_ID = 64
_QUESTIONS = {question.value: question for question in Question}
_HOPS = {hop.value: hop for hop in Hop}
_NO_VALUES: tuple[str, ...] = ()


def asked_of(caller: SpiffeId | None, metadata: Metadata, *, direct: bool = False) -> Asked:
    """What the metadata of a Check ask; `direct`: Envoys ask with no proxy in between."""
    told = [pair for pair in metadata if pair[0] in _ASKING]
    questions = [value for name, value in told if name == QUESTION]
    hops = [value for name, value in told if name == HOP]
    upstreams = [value for name, value in told if name == UPSTREAM]
    containers = [value for name, value in told if name == CONTAINERS]
    traces = [value for name, value in told if name == _TRACE]
    return Asked(
        caller,
        _QUESTIONS.get(questions[0]) if len(questions) == 1 else None,
        _HOPS.get(hops[0]) if len(hops) == 1 else None,
        # A repeated upstream is one that cannot be read, not one that was not sent.
        None if not upstreams else upstreams[0] if len(upstreams) == 1 else "",
        direct and any(name in FORWARDED for name, _ in metadata),
        len(containers) == 1 and _QUEUE_PROXY in containers[0].split(","),
        traces[0] if len(traces) == 1 else "",
    )


def facts_of(
    request: CheckRequest,
    caller: SpiffeId,
    asked: Asked,
    *,
    token_header: str,
    policy: Policy,
) -> Facts:
    """Gather what decisions are made by, and nothing that no rule looks at.

    So that equal facts are equal answers' reasons, and few: the path, which is another one for
    each request, is left out where nobody reads it, and the method of all but probes.
    """
    attributes = request.attributes
    http = attributes.request.http
    headers = headers_of(http, token_header)
    principal = attributes.source.principal
    probe = ",".join(headers.get(_NETWORK_PROBE, _NO_VALUES))
    reads_path = asked.hop in BY_PATH or bool(probe) or policy.reads_path_of(principal)
    return Facts(
        caller,
        asked.hop,
        asked.upstream,
        _virtual_service(attributes) if attributes.HasField("route_metadata_context") else "",
        principal,
        attributes.destination.address.socket_address.port_value,
        http.host,
        http.path if reads_path else "",
        headers.get(token_header, _NO_VALUES),
        ",".join(headers.get(_USER_AGENT, _NO_VALUES)),
        probe,
        headers.get(_KN_NAMESPACE, _NO_VALUES),
        headers.get(_SERVING_NAMESPACE, _NO_VALUES),
        headers.get(_SERVING_REVISION, _NO_VALUES),
        asked.forwarded,
        asked.queue_proxy,
        "" if not probe or _announces_body(headers) else http.method,
    )


def request_id_of(request: CheckRequest) -> str:
    """The id under which Envoy's access log knows the request, cut and made printable."""
    http = request.attributes.request.http
    given = ",".join(headers_of(http, _REQUEST_ID).get(_REQUEST_ID, _NO_VALUES)) or http.id
    if not (given.isascii() and given.isprintable()):
        given = "".join(c for c in given if c.isascii() and c.isprintable())
    return given[:_MAX_REQUEST_ID]


def headers_of(http: AttributeContext.HttpRequest, name: str) -> dict[str, tuple[str, ...]]:
    """Values of the header `name` and of all that some rule reads, by name.

    In either form: joined (`headers`), raw (`encode_raw_headers`). A request with both has each
    value of both: a header in two places is a repeated header.
    """
    headers: dict[str, tuple[str, ...]] = {}
    if http.headers:
        for key, text in http.headers.items():
            if key in _READ or key == name:
                headers[key] = (text,)
    for header in http.header_map.headers:
        key = header.key
        if key in _READ or key == name:
            value = header.raw_value.decode("ascii", "replace") or header.value
            headers[key] = (*headers[key], value) if key in headers else (value,)
    return headers


def _announces_body(headers: dict[str, tuple[str, ...]]) -> bool:
    """Whether a body follows, as far as Envoy tells: of HTTP/2's and chunked ones it does not."""
    return any(length != "0" for length in headers.get(_CONTENT_LENGTH, _NO_VALUES))


def _virtual_service(attributes: AttributeContext) -> str:
    """The route metadata that istiod writes: filter_metadata["istio"], field `config`."""
    metadata = attributes.route_metadata_context.filter_metadata
    return metadata["istio"].fields["config"].string_value if "istio" in metadata else ""
