"""The words of the wire, each in one place: headers, metadata, labels, names of Envoy's clusters.

The filters that ship, and `conformance/probe`, which runs without this package, say them again.
Source of the clusters' names: istiod, `outbound|<port>|<subset>|<host>`.
"""

import re
from typing import Final

TOKEN_HEADER: Final = "x-tenant-token"  # noqa: S105 - a name, not a secret
"""The request header that carries the token, where the setting `token_header` names no other."""
REASON_HEADER: Final = "x-tenant-authz-reason"
"""The response header that says in one word why a request was denied."""

QUESTION: Final = "x-authz-question"
"""Metadata of a Check: which of the five questions a filter asks."""
HOP: Final = "x-authz-hop"
"""Metadata of a Check: how the hop that asks `transit` chooses where a request goes."""
UPSTREAM: Final = "x-authz-upstream"
"""Metadata of a Check: the cluster that Envoy chose."""
CONTAINERS: Final = "x-authz-containers"
"""Metadata of a Check: the names of the asking pod's containers, by commas."""
APP_CONTAINERS: Final = "ISTIO_META_APP_CONTAINERS"
"""The variable by which Istio's injector tells a sidecar those names."""
INSECURE_CALLER: Final = "x-authz-insecure-caller"
"""Metadata of a Check: who asks, where anybody is believed."""

REUSE: Final = "tenant_authz_reuse"
"""Dynamic metadata of an answer: for how many seconds the proxy may give it again by itself."""
REUSED_TOKEN: Final = "tenant_authz_token"  # noqa: S105 - a name, not a secret
"""Dynamic metadata of an answer that may be given again: the token that it sets."""
REUSE_EPOCH: Final = "tenant_authz_epoch"
"""Dynamic metadata of an answer that may be given again: those with another number are not."""

GROUP: Final = "tenant-authz.dev"
"""Our API group in Kubernetes, and the prefix of our labels and annotations."""
TENANT_LABEL: Final = f"{GROUP}/tenant"
"""Of a namespace: the tenant that it belongs to. Nothing but the platform may set it."""
MODE_LABEL: Final = f"{GROUP}/mode"
"""Of a namespace: whether its answers are enforced."""

_outbound = re.compile(r"outbound\|[1-9][0-9]{0,4}\|[A-Za-z0-9._-]*\|([^|]+)")


def cluster_name(host: str, port: int) -> str:
    """What istiod calls the cluster of a Service's port in every proxy that may call it."""
    return f"outbound|{port}||{host}"


def host_of_cluster(name: str) -> str | None:
    """The host of an outbound cluster as it stands in its name; `None` for every other cluster."""
    match = _outbound.fullmatch(name)
    return None if match is None else match[1]


def virtual_service_name(namespace: str, name: str) -> str:
    """How istiod's metadata of a route (`istio`, field `config`) name the VirtualService."""
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}"


def server_name(host: str, port: int) -> str:
    """The SNI that a sidecar's TLS connection to a Service's port goes by."""
    return f"outbound_.{port}_._.{host}"
