"""What the two tenants are made of, as Kubernetes objects.

knative.dev/docs/serving/load-balancing/target-burst-capacity: 0 takes the activator out of the path
while there are pods, -1 keeps it in. istio.io/latest/docs/ops/configuration/traffic-management/
protocol-selection: a Service's port is HTTP or TCP by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from authz.wire import MODE_LABEL

Json = dict[str, Any]

PROBE: Final = "probe"
"""What the container that calls is called."""

_SCRIPT: Final = "/conformance/probe.py"
_CONFIG: Final = "conformance"
_CONTEXT: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"cpu": "500m", "memory": "128Mi"},
}


def namespace(name: str, labels: Mapping[str, str]) -> Json:
    """A tenant's namespace, enforced where the policy takes labels."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {MODE_LABEL: "enforce", **labels}},
    }


def config_map(space: str) -> Json:
    """The probe's text."""
    script = (files("authz.conformance") / "probe.py").read_text("utf-8")
    return _object("v1", "ConfigMap", space, _CONFIG) | {"data": {"probe.py": script}}


def deployment(space: str, image: str) -> Json:
    """`plain`: HTTP on 8000 and 9999, raw TCP on 7000."""
    labels = {"app": "plain"}
    spec = _pod_spec(image, "plain", ["serve", "8000", "9999", "tcp:7000"])
    return _object("apps/v1", "Deployment", space, "plain") | {
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        }
    }


def services(space: str) -> list[Json]:
    """`plain`, and `plain-tcp`; nothing for port 9999."""
    ports: dict[str, Json] = {
        "plain": {"name": "http", "port": 80, "targetPort": 8000},
        "plain-tcp": {"name": "tcp", "port": 7000, "targetPort": 7000},
    }
    return [
        _object("v1", "Service", space, name)
        | {"spec": {"selector": {"app": "plain"}, "ports": [port]}}
        for name, port in ports.items()
    ]


def knative_service(space: str, name: str, image: str, *, activator: bool) -> Json:
    """A Knative Service with one pod, called directly or always by the activator."""
    spec = _pod_spec(image, "app", ["serve", "8080"])
    spec["containers"][0]["ports"] = [{"containerPort": 8080}]
    annotations = {
        "autoscaling.knative.dev/min-scale": "1",
        "autoscaling.knative.dev/target-burst-capacity": "-1" if activator else "0",
    }
    template = {"metadata": {"annotations": annotations}, "spec": spec}
    return _object("serving.knative.dev/v1", "Service", space, name) | {
        "spec": {"template": template}
    }


def probe(space: str, name: str, image: str, calls: Sequence[Json], *, sidecar: bool) -> Json:
    """A pod that makes calls and says in its termination message what came.

    The calls are public: none of them holds a secret.
    """
    told = json.dumps(list(calls), separators=(",", ":"))
    spec = _pod_spec(image, PROBE, ["call", told, "/dev/termination-log"])
    made = _object("v1", "Pod", space, name)
    made["metadata"]["labels"] = {"app": name} | (
        {} if sidecar else {"sidecar.istio.io/inject": "false"}
    )
    made["metadata"]["annotations"] = {
        "proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true}'
    }
    return made | {"spec": {**spec, "restartPolicy": "Never"}}


def _object(version: str, kind: str, space: str, name: str) -> Json:
    metadata = {"name": name, "namespace": space}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _pod_spec(image: str, name: str, words: list[str]) -> Json:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": name,
                "image": image,
                "command": ["python3", _SCRIPT, *words],
                "securityContext": _CONTEXT,
                "resources": _RESOURCES,
                "volumeMounts": [{"name": _CONFIG, "mountPath": "/conformance", "readOnly": True}],
            }
        ],
        "volumes": [{"name": _CONFIG, "configMap": {"name": _CONFIG}}],
    }
