"""How each pod stands to the mesh: whom to ask for a dump, and whom everybody reaches unasked."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from authz.doctor.dump import CannotRead
from authz.doctor.finding import Finding, Rule

Json = dict[str, Any]

PROXY: Final = "istio-proxy"
"""What Istio calls its container, in sidecars and gateways; ztunnel and waypoints have one, too."""
ADMIN_PORT: Final = 15000

OUTSIDE: Final = frozenset(
    {"kube-system", "kube-public", "kube-node-lease", "istio-system", "authz-system"}
)
"""Namespaces whose pods are not expected to have a sidecar."""

_AGENT_ALONE: Final = frozenset({"grpc-agent", "grpc-simple"})
"""Istio's templates for gRPC without a proxy."""
MODE: Final = "istio.io/dataplane-mode"
_REDIRECTED: Final = "ambient.istio.io/redirection"


class Standing(enum.Enum):
    """What is in a pod; the text says what that means, where it is not examined."""

    PROXY = ""
    BARE = "no sidecar"
    NODE = "it is in its node's network, where no sidecar can be"
    AGENT_ALONE = "its sidecar is Istio's agent without an Envoy"
    ZTUNNEL = "it is ambient's ztunnel, in which no filter of ours can be"
    WAYPOINT = "it is a waypoint of ambient mode, in which no filter of ours is"
    AMBIENT = "it is in ambient mode: its traffic passes ztunnel, and nobody is asked"


class Pod(NamedTuple):
    """What matters of a pod."""

    namespace: str
    name: str
    standing: Standing
    waits: str
    """Why its proxy cannot be asked yet; empty, if it runs."""
    admin_port: int
    revision: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_pods(text: str, source: str) -> list[Pod]:
    """The pods that `kubectl get pods -A -o json` prints, without those that have ended.

    Raises:
        CannotRead: it is no such list.
    """
    try:
        return [*pods(json.loads(text)["items"])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CannotRead(
            f"{source}: no list of pods; give what `kubectl get pods -A -o json` prints"
        ) from None


def pods(objects: Iterable[Json], ambient: frozenset[str] = frozenset()) -> Iterator[Pod]:
    """What matters of each pod that has not ended; `ambient` are namespaces of ambient mode."""
    for it in objects:
        if has_ended(it):
            continue
        metadata, containers = it["metadata"], [*_containers(it)]
        proxy = next((one for one in containers if one["name"] == PROXY), {})
        yield Pod(
            metadata["namespace"],
            metadata["name"],
            _standing(it, proxy, ambient),
            _waits(it),
            _admin_port(proxy),
            (metadata.get("labels") or {}).get("istio.io/rev")
            or (metadata.get("annotations") or {}).get("istio.io/rev", "default"),
        )


def has_ended(pod: Json) -> bool:
    """Whether all that was in a pod is gone."""
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def slim(pod: Json) -> Json:
    """What is looked at of a pod: thousands of them are held at once."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
    return {
        "metadata": {
            key: metadata[key]
            for key in ("namespace", "name", "labels", "annotations")
            if key in metadata
        },
        "spec": {
            "hostNetwork": spec.get("hostNetwork", False),
            "containers": [
                it if it["name"] == PROXY else {"name": it["name"], "ports": it.get("ports")}
                for it in _containers(pod)
            ],
        },
        "status": {
            "phase": status.get("phase"),
            "containerStatuses": [it for it in _statuses(status) if it.get("name") == PROXY],
        },
    }


def ambient_namespaces(namespaces: Iterable[Json]) -> frozenset[str]:
    """Those whose label puts their pods into ambient mode."""
    return frozenset(
        namespace["metadata"]["name"]
        for namespace in namespaces
        if (namespace["metadata"].get("labels") or {}).get(MODE) == "ambient"
    )


def uncovered(several: Iterable[Pod]) -> Iterator[Finding]:
    """Those among them that take calls past us."""
    for pod in several:
        if pod.standing is Standing.PROXY or pod.namespace in OUTSIDE:
            continue
        covered = pod.standing not in {Standing.WAYPOINT, Standing.AMBIENT}
        rule = Rule.NO_PROXY if covered else Rule.AMBIENT
        yield Finding(str(pod), "pod", pod.standing.value, rule)


def skipped(several: Iterable[Pod]) -> dict[str, str]:
    """Those of which no dump is wanted, though nothing is wrong with that; and why."""
    found = {}
    for pod in several:
        if pod.standing is Standing.PROXY and pod.waits:
            found[str(pod)] = pod.waits
        elif pod.namespace in OUTSIDE and pod.standing in {Standing.ZTUNNEL, Standing.AGENT_ALONE}:
            found[str(pod)] = pod.standing.value
    return found


def _standing(pod: Json, proxy: Json, ambient: frozenset[str]) -> Standing:
    metadata, spec = pod["metadata"], pod["spec"]
    annotations = metadata.get("annotations") or {}
    templates = annotations.get("inject.istio.io/templates", "").split(",")
    if proxy and not _AGENT_ALONE.isdisjoint(template.strip() for template in templates):
        return Standing.AGENT_ALONE
    arguments = proxy.get("args") or ()
    if "waypoint" in arguments:
        return Standing.WAYPOINT
    if "ztunnel" in arguments:
        return Standing.ZTUNNEL
    if proxy:
        return Standing.PROXY
    if spec.get("hostNetwork"):
        return Standing.NODE
    mode = (metadata.get("labels") or {}).get(MODE, "")
    of_namespace = metadata["namespace"] in ambient and mode != "none"
    if mode == "ambient" or of_namespace or annotations.get(_REDIRECTED) == "enabled":
        return Standing.AMBIENT
    return Standing.BARE


def _waits(pod: Json) -> str:
    """Why the proxy cannot be asked, if so; what the kubelet has not said yet is no reason."""
    status = pod["status"]
    state: Mapping[str, Any] | None = next(
        (it.get("state", {}) for it in _statuses(status) if it.get("name") == PROXY), None
    )
    if state is None and status.get("phase") == "Pending":
        return "it is pending"
    if state and "running" not in state:
        [(kind, more)] = [*state.items()][:1]
        return f"its proxy does not run: {kind}, {more.get('reason', 'no reason given')}"
    return ""


def _statuses(status: Json) -> list[Json]:
    return [
        *(status.get("containerStatuses") or ()),
        *(status.get("initContainerStatuses") or ()),
    ]


def _containers(pod: Json) -> Iterator[Json]:
    """A native sidecar is among the init containers."""
    yield from pod["spec"]["containers"]
    yield from pod["spec"].get("initContainers") or ()


def _admin_port(proxy: Json) -> int:
    """Where Envoy's admin endpoint listens: as the injector wrote it for the agent."""
    said = next(
        (it.get("value") for it in proxy.get("env") or () if it["name"] == "PROXY_CONFIG"), ""
    )
    try:
        port = json.loads(said or "{}").get("proxyAdminPort", ADMIN_PORT)
    except (ValueError, AttributeError, RecursionError):
        return ADMIN_PORT
    return port if isinstance(port, int) and 0 < port < 1 << 16 else ADMIN_PORT
