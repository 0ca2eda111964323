"""Reads a CheckRequest and its gRPC metadata into `Facts`.

Source: envoy/service/auth/v3/attribute_context.proto.
"""

from collections.abc import Sequence
from typing import Final

from authz._proto.ext_authz_pb2 import AttributeContext, CheckRequest
from authz.facts import Facts, Hop, Question
from authz.identity import SpiffeId

Metadata = Sequence[tuple[str, str]]
"""gRPC request metadata: lower-case keys and text values, repeated ones apart."""

QUESTION: Final = "x-authz-question"
UPSTREAM: Final = "x-authz-upstream"
HOP: Final = "x-authz-hop"

_MAX_REQUEST_ID = 64
_QUESTIONS = {question.value: question for question in Question}
_HOPS = {hop.value: hop for hop in Hop}


def question_of(metadata: Metadata) -> Question | None:
    """The question, if it is asked exactly once and is one of the five."""
    asked = _values(metadata, QUESTION)
    return _QUESTIONS.get(asked[0]) if len(asked) == 1 else None


def facts_of(
    request: CheckRequest, caller: SpiffeId, metadata: Metadata, *, token_header: str
) -> Facts:
    """Gather what decisions are made by. Headers that no rule reads are not looked at."""
    attributes = request.attributes
    http = attributes.request.http
    headers = _Headers(http)
    hops = _values(metadata, HOP)
    upstreams = _values(metadata, UPSTREAM)
    return Facts(
        caller=caller,
        hop=_HOPS.get(hops[0]) if len(hops) == 1 else None,
        # A repeated upstream is one that cannot be read, not one that was not sent.
        upstream=None if not upstreams else upstreams[0] if len(upstreams) == 1 else "",
        virtual_service=_virtual_service(attributes),
        principal=attributes.source.principal,
        port=attributes.destination.address.socket_address.port_value,
        host=http.host,
        path=http.path,
        tokens=headers.values(token_header),
        user_agent=headers.joined("user-agent"),
        network_probe=headers.joined("k-network-probe"),
        kn_namespace=headers.values("kn-namespace"),
        serving_namespace=headers.values("knative-serving-namespace"),
        serving_revision=headers.values("knative-serving-revision"),
    )


def request_id_of(request: CheckRequest) -> str:
    """The id under which Envoy's access log knows the request, cut and made printable."""
    http = request.attributes.request.http
    given = _Headers(http).joined("x-request-id") or http.id
    return "".join(c for c in given if c.isascii() and c.isprintable())[:_MAX_REQUEST_ID]


class _Headers:
    """Request headers in either form: joined (`headers`) or raw (`encode_raw_headers`).

    A request with both has each value of both: a header in two places is a repeated header.
    """

    def __init__(self, http: AttributeContext.HttpRequest) -> None:
        self._joined = http.headers
        self._raw = http.header_map.headers

    def values(self, name: str) -> tuple[str, ...]:
        joined = (self._joined[name],) if name in self._joined else ()
        return joined + tuple(
            header.raw_value.decode("ascii", "replace") or header.value
            for header in self._raw
            if header.key == name
        )

    def joined(self, name: str) -> str:
        return ",".join(self.values(name))


def _values(metadata: Metadata, key: str) -> list[str]:
    return [value for name, value in metadata if name == key]


def _virtual_service(attributes: AttributeContext) -> str:
    """The route metadata that istiod writes: filter_metadata["istio"], field `config`."""
    metadata = attributes.route_metadata_context.filter_metadata
    return metadata["istio"].fields["config"].string_value if "istio" in metadata else ""
