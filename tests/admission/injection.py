"""What Istio's injector makes of a pod, as far as the policies look.

Tests hold it to the real one.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Final

from tests.admission.rows import Json

STATUS: Final = "sidecar.istio.io/status"
_OWN: Final = ("istio-validation", "istio-proxy")
_ANNOTATIONS: Final = {
    "istio.io/rev": "default",
    "sidecar.istio.io/interceptionMode": "REDIRECT",
    "traffic.sidecar.istio.io/excludeInboundPorts": "15020",
    "traffic.sidecar.istio.io/includeInboundPorts": "*",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
}


def injected(pod: Json) -> Json:
    """A pod after the mutating policy and the injector, with native sidecars and the CNI plugin."""
    made = deepcopy(pod)
    metadata, spec = made["metadata"], made["spec"]
    annotations = metadata.setdefault("annotations", {})
    labels = metadata.setdefault("labels", {})
    annotations.pop(STATUS, None)
    off = "sidecar.istio.io/inject"
    if labels.get(off, annotations.get(off)) == "false":
        return made
    lists = [spec[it] for it in ("containers", "initContainers") if it in spec]
    if any(container["name"] in _OWN for containers in lists for container in containers):
        annotations["proxy.istio.io/overrides"] = "{}"
    for containers in lists:
        containers[:] = [it for it in containers if it["name"] not in _OWN]
    user = {"securityContext": {"runAsUser": 1337, "runAsGroup": 1337}}
    own = [{"name": name, "image": "registry.test/istio/proxyv2:dev", **user} for name in _OWN]
    spec["initContainers"] = [*own, *spec.get("initContainers", [])]
    for key, value in _ANNOTATIONS.items():
        annotations.setdefault(key, value)
    annotations[STATUS] = '{"initContainers":["istio-validation","istio-proxy"],"containers":null}'
    labels.setdefault("security.istio.io/tlsMode", "istio")
    return made
