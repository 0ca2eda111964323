"""How a pod's proxy introduces itself to istiod: Envoy's `core.v3.Node`, as pilot-agent fills it.

istio/istio pkg/bootstrap/config.go, pkg/model/proxy.go.
"""

from __future__ import annotations

import json
from typing import Any, Final

from authz.lab.world import objects
from authz.lab.world.model import DOMAIN, ROOT_NAMESPACE, Pod

PROXY_VERSION: Final = "1.31.0"
"""What the proxies say that they are. EnvoyFilters may ask for it (`proxyVersion`)."""


def node(pod: Pod, version: str = PROXY_VERSION) -> dict[str, Any]:
    """The node of a pod's proxy."""
    kind = "router" if pod.proxy == "gateway" else "sidecar"
    labels = objects.labels(pod)
    workload = f"kubernetes://apis/apps/v1/namespaces/{pod.namespace}/deployments/{pod.name}"
    metadata = {
        "ANNOTATIONS": {},
        "APP_CONTAINERS": "user-container,queue-proxy" if pod.role == "revision" else "app",
        "CLUSTER_ID": "Kubernetes",
        "ENVOY_PROMETHEUS_PORT": 15090,
        "ENVOY_STATUS_PORT": 15021,
        "INSTANCE_IPS": pod.address,
        "INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_VERSION": version,
        "LABELS": labels,
        "MESH_ID": DOMAIN,
        "NAME": pod.name,
        "NAMESPACE": pod.namespace,
        "NODE_NAME": "node",
        "OWNER": workload,
        "PILOT_SAN": [f"istiod.{ROOT_NAMESPACE}.svc"],
        "POD_PORTS": json.dumps(objects.container_ports(pod), separators=(",", ":")),
        "SERVICE_ACCOUNT": pod.service_account,
        "WORKLOAD_NAME": pod.name,
    }
    if pod.proxy == "gateway":
        del metadata["INTERCEPTION_MODE"]
    return {
        "id": f"{kind}~{pod.address}~{pod.name}.{pod.namespace}~{pod.namespace}.svc.{DOMAIN}",
        "cluster": f"{labels['service.istio.io/canonical-name']}.{pod.namespace}",
        "metadata": metadata,
    }
