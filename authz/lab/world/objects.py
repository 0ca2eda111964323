"""A world as objects of Kubernetes and Istio, as if their own programs had written them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from authz.lab.world.model import (
    GATEWAYS,
    Json,
    Pod,
    Port,
    Route,
    Service,
    VirtualService,
    World,
)

NODE: Final = "10.0.0.1"
"""The address of the one node, which is none: nobody runs a kubelet here."""

_NOW: Final = "2026-01-01T00:00:00Z"
_NOT_IN_THE_MESH: Final = {"istio-system", "authz-system", "outside"}
_INGRESS: Final = {"mesh": "mesh", **GATEWAYS}


def rendered(world: World, documents: Iterable[Json] = ()) -> list[Json]:
    """What is in the API server when `world` is there, and `documents` beside it.

    Args:
        world: who is there, and Istio's objects that are there without us.
        documents: more of them, ours and others'. EnvoyFilters are left out; of two documents with
            one kind, namespace and name, the later counts.
    """
    objects = [*_made(world), *world.documents, *documents]
    kept = {key(it): it for it in objects if it["kind"] != "EnvoyFilter"}
    return [kept[name] for name in sorted(kept)]


def key(item: Json) -> tuple[str, str, str]:
    """Kind, namespace and name of an object."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def labels(pod: Pod) -> dict[str, str]:
    """All labels of a pod, those of Istio's injector too."""
    if pod.proxy == "none":
        return dict(pod.labels)
    name = pod.labels.get("app.kubernetes.io/name") or pod.labels.get("app") or pod.name
    own = {
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": "latest",
    }
    if pod.proxy == "sidecar":
        own["security.istio.io/tlsMode"] = "istio"
    return {**pod.labels, **own}


def container_ports(pod: Pod) -> list[Json]:
    """Ports of a pod's containers, as its spec and its proxy's metadata have them."""
    names = {number: {"name": name} for number, name in pod.port_names.items()}
    return [
        {"containerPort": number, "protocol": "TCP", **names.get(number, {})}
        for number in pod.listens
    ]


def _made(world: World) -> Iterator[Json]:
    for namespace in sorted(_namespaces(world)):
        inject = {} if namespace in _NOT_IN_THE_MESH else {"istio-injection": "enabled"}
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": inject},
        }
    for pod in world.pods.values():
        yield _object("v1", "ServiceAccount", pod.namespace, pod.service_account)
        yield _pod(pod)
    for service in world.services:
        yield _service(service)
        if not service.external_name:
            yield _endpoints(world, service)
    for virtual in world.virtual_services:
        yield _virtual_service(virtual)


def _namespaces(world: World) -> set[str]:
    return {
        *(pod.namespace for pod in world.pods.values()),
        *(service.namespace for service in world.services),
        *(it.namespace for it in world.virtual_services),
    }


def _object(version: str, kind: str, namespace: str, name: str, labels: Json | None = None) -> Json:
    metadata: Json = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _pod(pod: Pod) -> Json:
    containers: list[Json] = [
        {"name": "app", "image": "lab.invalid/app", "ports": container_ports(pod)}
    ]
    if pod.proxy != "none":
        containers.append({"name": "istio-proxy", "image": "lab.invalid/proxy"})
    running = {"running": {"startedAt": _NOW}}
    return _object("v1", "Pod", pod.namespace, pod.name, labels(pod)) | {
        "spec": {
            "serviceAccountName": pod.service_account,
            "automountServiceAccountToken": False,
            "nodeName": "node",
            "containers": containers,
        },
        "status": {
            "phase": "Running",
            "hostIP": NODE,
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": _NOW,
            "conditions": [
                {"type": it, "status": "True"}
                for it in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": container["image"],
                    "ready": True,
                    "restartCount": 0,
                    "state": running,
                }
                for container in containers
            ],
        },
    }


def _service(service: Service) -> Json:
    spec: Json = {"ports": [_port(port) for port in service.ports]}
    if service.external_name:
        spec |= {"type": "ExternalName", "externalName": service.external_name}
    else:
        spec |= {"type": "ClusterIP", "clusterIP": service.address}
    if service.selector:
        spec["selector"] = dict(service.selector)
    if not spec["ports"]:
        del spec["ports"]
    return _object("v1", "Service", service.namespace, service.name, dict(service.labels)) | {
        "spec": spec
    }


def _port(port: Port) -> Json:
    target = port.target_name or port.target
    return {"name": _port_name(port), "port": port.number, "targetPort": target, "protocol": "TCP"}


def _port_name(port: Port) -> str:
    return port.name or port.protocol


def _endpoints(world: World, service: Service) -> Json:
    name = {"kubernetes.io/service-name": service.name}
    made = _object("discovery.k8s.io/v1", "EndpointSlice", service.namespace, service.name, name)
    pods = [world.pods[endpoint] for endpoint in service.endpoints]
    return made | {
        "addressType": "IPv4",
        "ports": [
            {"name": _port_name(it), "port": it.target, "protocol": "TCP"} for it in service.ports
        ],
        "endpoints": [
            {
                "addresses": [pod.address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "node",
                "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
            }
            for pod in pods
        ],
    }


def _virtual_service(virtual: VirtualService) -> Json:
    made = _object("networking.istio.io/v1", "VirtualService", virtual.namespace, virtual.name)
    spec = {
        "gateways": sorted(_INGRESS[gateway] for gateway in virtual.gateways),
        "hosts": list(virtual.hosts),
        "http": [_http_route(virtual, route) for route in virtual.routes],
    }
    return made | {"spec": spec}


def _http_route(virtual: VirtualService, route: Route) -> Json:
    gateways = [route.gateway] if route.gateway else sorted(virtual.gateways)
    match: Json = {
        "authority": {"prefix": route.authority},
        "gateways": [_INGRESS[gateway] for gateway in gateways],
    }
    headers = dict(route.headers)
    made: Json = {"match": [match], "retries": {}}
    if route.probe_hash:
        match["headers"] = {"K-Network-Hash": {"exact": "override"}}
        own = {"K-Network-Hash": headers.pop("K-Network-Hash")}
        made["headers"] = {"request": {"set": own}}
    made["route"] = [_destination(it, headers) for it in route.to]
    if route.rewrite:
        made["rewrite"] = {"authority": route.rewrite}
    if route.mirror is not None:
        host, port = route.mirror
        made["mirror"] = {"host": host, "port": {"number": port}}
    return made


def _destination(to: tuple[str, int, int], headers: Json) -> Json:
    host, port, weight = to
    made: Json = {"destination": {"host": host, "port": {"number": port}}, "weight": weight}
    if headers:
        made["headers"] = {"request": {"set": headers}}
    return made
