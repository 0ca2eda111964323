"""The bootstrap of an Envoy that istiod feeds.

As Istio's agent writes it, without what is for metrics, tracing and health, and without limits. The
agent, which stands between Envoy and istiod and speaks TLS to it, is not here: Envoy speaks TLS
itself, with the pod's certificate. Tests hold it to what the agent wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from authz.lab.harness.certs import Certificate
from authz.lab.recordings.worlds import runtime
from authz.lab.world.model import ROOT_NAMESPACE

Json = dict[str, Any]

ISTIOD: Final = f"istiod.{ROOT_NAMESPACE}.svc"
"""The name in istiod's certificate."""

_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def bootstrap(
    istio: str, node: Json, certificate: Certificate, istiod: Path, secrets: Path
) -> Json:
    """The bootstrap, without an admin endpoint.

    Args:
        istio: which istiod it is.
        node: how the proxy introduces itself.
        certificate: the pod's, by which istiod knows it.
        istiod: the socket that leads to istiod's secure port.
        secrets: the socket of SDS.
    """
    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    services = [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]
    return {
        "node": node,
        "layered_runtime": runtime(istio),
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
                "grpc_services": services,
            },
        },
        "static_resources": {
            "clusters": [
                _cluster("sds-grpc", secrets),
                _cluster("xds-grpc", istiod) | {"transport_socket": _tls(certificate)},
            ]
        },
    }


def _cluster(name: str, socket: Path) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    http2: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            _OPTIONS: {"@type": f"type.googleapis.com/{_OPTIONS}", **http2}
        },
    }


def _tls(certificate: Certificate) -> Json:
    own = {
        "certificate_chain": {"filename": str(certificate.cert_file)},
        "private_key": {"filename": str(certificate.key_file)},
    }
    name = {"san_type": "DNS", "matcher": {"exact": ISTIOD}}
    context = {
        "tls_certificates": [own],
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": str(certificate.ca_file)},
            "match_typed_subject_alt_names": [name],
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": _TLS, "sni": ISTIOD, "common_tls_context": context},
    }
