"""TLS contexts, as istiod writes them for mutual TLS within the mesh.

pilot/pkg/security/authn/utils/utils.go (inbound), pilot/pkg/networking/core/cluster_tls.go
(outbound). Certificates come from files instead of SDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from authz.lab.box.istio.world import DOMAIN, Json
from authz.lab.harness.certs import Certificate

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"

HTTP_ALPN: Final = ("h2", "http/1.1")
TCP_ALPN: Final = ("istio-peer-exchange", *HTTP_ALPN)


def downstream(certificate: Certificate, alpn: Sequence[str]) -> Json:
    """A server that wants a client certificate of the mesh's trust domain."""
    anyone = {"san_type": "URI", "matcher": {"prefix": f"spiffe://{DOMAIN}/"}}
    return _socket(
        "DownstreamTlsContext",
        {
            "require_client_certificate": True,
            "common_tls_context": _common(certificate, alpn, [anyone]),
        },
    )


def public(certificate: Certificate) -> Json:
    """A gateway's server for clients without certificates: TLS mode SIMPLE."""
    context = _common(certificate, HTTP_ALPN, [])
    del context["validation_context"]
    return _socket(
        "DownstreamTlsContext",
        {"require_client_certificate": False, "common_tls_context": context},
    )


def upstream(certificate: Certificate, sni: str, alpn: Sequence[str], peers: Iterable[str]) -> Json:
    """A client that talks to nobody but `peers`, SPIFFE IDs; to anybody, if there are none."""
    names = [{"san_type": "URI", "matcher": {"exact": peer}} for peer in sorted(set(peers))]
    return _socket(
        "UpstreamTlsContext",
        {"sni": sni, "common_tls_context": _common(certificate, alpn, names)},
    )


def _socket(kind: str, context: Json) -> Json:
    typed = {"@type": f"{_TLS}.{kind}", **context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _common(certificate: Certificate, alpn: Sequence[str], names: list[Json]) -> Json:
    files = {
        "certificate_chain": {"filename": str(certificate.cert_file)},
        "private_key": {"filename": str(certificate.key_file)},
    }
    validation: Json = {"trusted_ca": {"filename": str(certificate.ca_file)}}
    if names:
        validation["match_typed_subject_alt_names"] = names
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [files],
        "alpn_protocols": list(alpn),
        "validation_context": validation,
    }
