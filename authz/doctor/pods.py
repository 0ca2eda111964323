"""Pods that have no proxy: no dump tells of them, and everybody reaches them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from authz.doctor.dump import CannotRead
from authz.doctor.finding import Finding, Rule

PROXY: Final = "istio-proxy"
"""What Istio calls its container, in sidecars and gateways."""

_AGENT_ALONE: Final = frozenset({"grpc-agent", "grpc-simple"})
"""Istio's templates for gRPC without a proxy."""

OUTSIDE: Final = frozenset(
    {"kube-system", "kube-public", "kube-node-lease", "istio-system", "authz-system"}
)
"""Namespaces whose pods are not expected to have a sidecar."""


def read_pods(text: str, source: str) -> list[dict[str, Any]]:
    """The pods that `kubectl get pods -A -o json` prints, without those that have ended.

    Raises:
        CannotRead: it is no such list.
    """
    try:
        pods: list[dict[str, Any]] = json.loads(text)["items"]
        running = [it for it in pods if it["status"].get("phase") not in {"Succeeded", "Failed"}]
        for it in running:
            name_of(it), has_proxy(it)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CannotRead(
            f"{source}: no list of pods; give what `kubectl get pods -A -o json` prints"
        ) from None
    return running


def without_proxy(text: str, source: str) -> Iterator[Finding]:
    """Those among them that take calls past us.

    Raises:
        CannotRead: it is no list of pods.
    """
    for pod in read_pods(text, source):
        namespace, name = name_of(pod)
        if namespace in OUTSIDE or has_proxy(pod):
            continue
        what = "no sidecar"
        if pod["spec"].get("hostNetwork"):
            what = "it is in its node's network, where no sidecar can be"
        elif _is_agent_alone(pod):
            what = "its sidecar is Istio's agent without an Envoy"
        yield Finding(f"{namespace}/{name}", "pod", what, Rule.NO_PROXY)


def name_of(pod: dict[str, Any]) -> tuple[str, str]:
    """Namespace and name."""
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def has_proxy(pod: dict[str, Any]) -> bool:
    """Whether an Envoy is in Istio's container; a native sidecar is among the init containers."""
    spec = pod["spec"]
    containers = (*spec["containers"], *spec.get("initContainers", ()))
    return any(it["name"] == PROXY for it in containers) and not _is_agent_alone(pod)


def _is_agent_alone(pod: dict[str, Any]) -> bool:
    """Whether it is injected as ours are: for a certificate, and nobody's traffic is captured."""
    templates = pod["metadata"].get("annotations", {}).get("inject.istio.io/templates", "")
    return not {it.strip() for it in templates.split(",")}.isdisjoint(_AGENT_ALONE)
