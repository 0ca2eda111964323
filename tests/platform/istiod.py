"""What istiod 1.30 sends for one Knative service, in Envoy's own messages, to know its size."""

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `@model_validator`", DeprecationWarning)
    from envoy_data_plane.envoy.config.cluster.v3 import Cluster
    from envoy_data_plane.envoy.config.route.v3 import VirtualHost
    from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import UpstreamTlsContext

NAMESPACE, SERVICE = "acme-web", "hello"
REVISION = f"{SERVICE}-00001.{NAMESPACE}.svc.cluster.local"
_HIGHEST = 2**32 - 1


def virtual_host() -> bytes:
    """The service's part of the route table of port 80: net-istio makes two routes."""
    short = f"{SERVICE}.{NAMESPACE}"
    full = f"{short}.svc.cluster.local"
    probe = {"name": "K-Network-Hash", "stringMatch": {"exact": "override"}}
    return bytes(
        VirtualHost.from_dict(
            {
                "name": f"{full}:80",
                "domains": [full, f"{full}.", f"{short}.svc", short],
                "routes": [_route([probe], {"K-Network-Hash": "a" * 64}), _route([], {})],
                "includeRequestAttemptCount": True,
            }
        )
    )


def _route(headers: list[Any], more: dict[str, str]) -> dict[str, Any]:
    added = {"Knative-Serving-Namespace": NAMESPACE, "Knative-Serving-Revision": "hello-00001"}
    config = f"/apis/networking.istio.io/v1alpha3/namespaces/{NAMESPACE}/virtual-service/hello-mesh"
    authority = {"name": ":authority", "stringMatch": {"prefix": f"{SERVICE}.{NAMESPACE}"}}
    return {
        "match": {"prefix": "/", "caseSensitive": True, "headers": [*headers, authority]},
        "route": {
            "cluster": f"outbound|80||{REVISION}",
            "timeout": "0s",
            "maxStreamDuration": {"maxStreamDuration": "0s", "grpcTimeoutHeaderMax": "0s"},
        },
        "metadata": {"filterMetadata": {"istio": {"config": config}}},
        "decorator": {"operation": f"{REVISION}:80/*"},
        "requestHeadersToAdd": [
            {"header": {"key": key, "value": value}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in (added | more).items()
        ],
    }


def cluster() -> bytes:
    """One port of the revision, with its TLS settings, without Istio's own filters."""
    name = f"outbound|80||{REVISION}"
    most = {"maxConnections": _HIGHEST, "maxPendingRequests": _HIGHEST, "maxRequests": _HIGHEST}
    service = {"host": REVISION, "name": "hello-00001", "namespace": NAMESPACE}
    plain = Cluster.from_dict(
        {
            "name": name,
            "type": "EDS",
            "edsClusterConfig": {"edsConfig": {"ads": {}}, "serviceName": name},
            "connectTimeout": "10s",
            "lbPolicy": "LEAST_REQUEST",
            "circuitBreakers": {"thresholds": [most | {"maxRetries": _HIGHEST}]},
            "metadata": {"filterMetadata": {"istio": {"services": [service]}}},
            "transportSocketMatches": [
                {"name": f"tlsMode-{mode}", "transportSocket": {"name": f"envoy.transport.{mode}"}}
                for mode in ("istio", "disabled")
            ],
        }
    )
    return bytes(plain) + bytes(_tls())


def _tls() -> UpstreamTlsContext:
    source = {"apiType": "GRPC", "grpcServices": [{"envoyGrpc": {"clusterName": "sds-grpc"}}]}
    sds = {"apiConfigSource": source, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"}
    peers = [
        {"sanType": "URI", "matcher": {"exact": f"spiffe://cluster.local/ns/{ns}/sa/{account}"}}
        for ns, account in ((NAMESPACE, "default"), ("knative-serving", "activator"))
    ]
    return UpstreamTlsContext.from_dict(
        {
            "sni": f"outbound_.80_._.{REVISION}",
            "commonTlsContext": {
                "alpnProtocols": ["istio-peer-exchange", "istio", "istio-http/1.1", "istio-h2"],
                "tlsCertificateSdsSecretConfigs": [{"name": "default", "sdsConfig": sds}],
                "combinedValidationContext": {
                    "defaultValidationContext": {"matchTypedSubjectAltNames": peers},
                    "validationContextSdsSecretConfig": {"name": "ROOTCA", "sdsConfig": sds},
                },
            },
        }
    )
