"""Attacks on the rules for pods: nobody's pod is without the sidecar that the mesh made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from tests.admission.rows import CERT_MANAGER, Account, Json, Row, changed, thing

POD: Final = thing(
    "v1", "Pod", "plain", spec={"containers": [{"name": "app", "image": "example.test/app:1"}]}
)
RUNNING: Final = changed(POD, {"metadata name": "running"})
"""The same, but this one is made: it has the sidecar that the injector gave it."""
KUBELET: Final = Account("system:node:one", ("system:nodes",))

_MADE: Final = "tenant-authz-pods"
_LATER: Final = "tenant-authz-pod-changes"
_A: Final = "metadata annotations "
_L: Final = "metadata labels "
_PROXY: Final = {"name": "istio-proxy", "image": "evil.test/sleep", "command": ["sleep"]}

WAYS_OUT: Final = {
    # What the CNI plugin and istio-init exclude, or take for traffic of another direction.
    "traffic.sidecar.istio.io/excludeInboundPorts": "15020,8080",
    "traffic.sidecar.istio.io/includeInboundPorts": "8012",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "80",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": "0.0.0.0/0",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
    "traffic.sidecar.istio.io/includeOutboundPorts": "443",
    "traffic.sidecar.istio.io/excludeInterfaces": "eth0",
    "traffic.sidecar.istio.io/kubevirtInterfaces": "eth0",
    "istio.io/reroute-virtual-interfaces": "eth0",
    "sidecar.istio.io/interceptionMode": "NONE",
    "sidecar.istio.io/inject": "false",
    # Another proxy, or one that somebody else tells what to do.
    "sidecar.istio.io/proxyImage": "evil.test/proxy:1",
    "sidecar.istio.io/bootstrapOverride": "mine",
    "sidecar.istio.io/userVolume": '{"v": {"emptyDir": {}}}',
    "sidecar.istio.io/nativeSidecar": "false",
    "sidecar.istio.io/capNetBindService": "true",
    "inject.istio.io/templates": "grpc-agent",
    "proxy.istio.io/config": "discoveryAddress: evil.test:15012",
    "status.sidecar.istio.io/port": "0",
    "readiness.status.sidecar.istio.io/periodSeconds": "999",
    # Of no meaning for a sidecar today, or of none at all.
    "ambient.istio.io/bypass-inbound-capture": "true",
    "something.new.istio.io/way-out": "true",
}


def _status(containers: list[str], init: list[str]) -> str:
    return json.dumps({"containers": containers, "initContainers": init, "revision": "default"})


def _with(kind: str, container: Json, changes: Json | None = None) -> Json:
    """The pod with another container."""
    there = POD["spec"]["containers"] if kind == "containers" else []
    return changed(POD, {f"spec {kind}": [*there, container], **(changes or {})})


def _forged() -> Iterator[Row]:
    names = "spec.containers: istio-proxy"
    honest = _with("containers", {**_PROXY, "name": "own-proxy"})
    claim = f"{_A}sidecar.istio.io/status"
    for name, evil in {
        "istio-proxy of its own": _with("containers", _PROXY),
        "istio-proxy, said to be injected": _with(
            "containers", _PROXY, {claim: _status(["istio-proxy"], [])}
        ),
        "istio-proxy, and a status that names nothing": _with(
            "containers", _PROXY, {claim: _status([], [])}
        ),
        "istio-proxy, and a status that names another": _with(
            "containers", _PROXY, {claim: _status(["app"], ["app"])}
        ),
        "istio-proxy, and a status that is no JSON": _with("containers", _PROXY, {claim: "{"}),
        "istio-proxy as native sidecar, said to be injected": _with(
            "initContainers",
            {**_PROXY, "restartPolicy": "Always"},
            {claim: _status([], ["istio-proxy"])},
        ),
        "istio-proxy with the platform's image and another's control plane": _with(
            "containers",
            {"name": "istio-proxy", "image": "auto", "env": [{"name": "CA_ADDR", "value": "x:1"}]},
        ),
        "istio-validation of its own, as user 1337": _with(
            "initContainers", {**_PROXY, "name": "istio-validation"}
        ),
        "istio-init of its own, as user 1337": _with(
            "initContainers",
            {**_PROXY, "name": "istio-init", "securityContext": {"runAsUser": 1337}},
        ),
        "a container istio-init, by which the CNI plugin stays away": _with(
            "containers", {**_PROXY, "name": "istio-init"}
        ),
        "an override that it wrote itself": changed(
            POD, {_A + "proxy.istio.io/overrides": json.dumps({"containers": [_PROXY]})}
        ),
    }.items():
        yield Row(name, _MADE, names, evil, honest)


def _opted_out() -> Iterator[Row]:
    tame = changed(POD, {_A + "sidecar.istio.io/proxyCPU": "50m"})
    for key, value in WAYS_OUT.items():
        yield Row(key, _MADE, f"metadata.annotations: {key}", changed(POD, {_A + key: value}), tame)
    for key, value in (
        ("sidecar.istio.io/inject", "false"),
        ("sidecar.istio.io/inject", "False"),
        ("istio.io/dataplane-mode", "none"),
        ("security.istio.io/tlsMode", "disabled"),
    ):
        yield Row(
            f"label {key}: {value}",
            _MADE,
            "metadata.labels",
            changed(POD, {_L + key: value}),
            changed(POD, {_L + "sidecar.istio.io/inject": "true"}),
        )


def _as_the_sidecar() -> Iterator[Row]:
    for field in ("runAsUser", "runAsGroup"):
        evil, honest = {field: 1337}, {field: 1338}
        yield Row(
            f"{field} 1337 of the pod",
            _MADE,
            "1337",
            changed(POD, {"spec securityContext": evil}),
            changed(POD, {"spec securityContext": {**honest, "fsGroup": 1337}}),
        )
        for kind in ("containers", "initContainers"):
            container = {"name": "other", "image": "example.test/other:1"}
            yield Row(
                f"{field} 1337 in {kind}",
                _MADE,
                "1337",
                _with(kind, {**container, "securityContext": evil}),
                _with(kind, {**container, "securityContext": honest}),
            )


def _as_cert_manager() -> Iterator[Row]:
    quiet = {_A + "sidecar.istio.io/inject": "false"}
    solver = changed(POD, {**quiet, "spec containers app name": "acmesolver"})
    name = "no sidecar, like cert-manager's solver"
    yield Row(name, _MADE, "inject", solver, twin_by=CERT_MANAGER)
    more = [*solver["spec"]["containers"], {"name": "other", "image": "example.test/other:1"}]
    evil = changed(solver, {"spec containers": more})
    name = "no sidecar, made by cert-manager with something else in it"
    yield Row(name, _MADE, "inject", evil, solver, by=CERT_MANAGER)


def _later() -> Iterator[Row]:
    """Changes of a pod that was admitted; RUNNING as it is after injection."""
    note = {_A + "example.test/note": "changed"}
    at = "metadata.annotations"
    tame: Json = {"spec containers app image": "example.test/app:2"}
    for name in ("istio-proxy", "istio-validation"):
        change: Json = {f"spec initContainers {name} image": "evil.test/proxy:1"}
        yield Row(f"image of {name}", _LATER, "the image of", change, tame, RUNNING)
    for name, said, change in (
        ("rerouted", at, {_A + "istio.io/reroute-virtual-interfaces": "eth0"}),
        ("a port let past", at, {_A + "traffic.sidecar.istio.io/excludeInboundPorts": "80"}),
        ("status taken away", at, {_A + "sidecar.istio.io/status": None}),
        ("label inject", "metadata.labels", {_L + "sidecar.istio.io/inject": "false"}),
        ("label tlsMode", "metadata.labels", {_L + "security.istio.io/tlsMode": None}),
        ("label mode", "metadata.labels", {_L + "istio.io/dataplane-mode": "none"}),
    ):
        for way in ("", "status"):
            by = f"{name}, by an update{' of the status' if way else ''}"
            yield Row(by, _LATER, said, change, note, RUNNING, way)
    yield Row(
        "another pod's address",
        _LATER,
        "status.podIPs",
        {"status podIP": "10.244.0.9", "status podIPs": [{"ip": "10.244.0.9"}]},
        None,
        RUNNING,
        "status",
        twin_by=KUBELET,
    )
    debugger = {"name": "debugger", "image": "example.test/debugger:1"}
    for name, evil in {
        "an ephemeral container as user 1337": {**debugger, "securityContext": {"runAsUser": 1337}},
        "an ephemeral container as group 1337": {
            **debugger,
            "securityContext": {"runAsGroup": 1337},
        },
        "an ephemeral container istio-init": {**debugger, "name": "istio-init"},
    }.items():
        yield Row(
            name,
            _LATER,
            "spec.ephemeralContainers",
            {"spec ephemeralContainers": [evil]},
            {"spec ephemeralContainers": [debugger]},
            RUNNING,
            "ephemeralcontainers",
        )
    binding = thing("v1", "Binding", "running", target={"kind": "Node", "name": "one"})
    yield Row(
        "an annotation that comes with the node",
        _LATER,
        at,
        changed(binding, {_A + "istio.io/reroute-virtual-interfaces": "eth0"}),
        binding,
        RUNNING,
        "binding",
    )


ROWS: Final = [*_forged(), *_opted_out(), *_as_the_sidecar(), *_as_cert_manager(), *_later()]
