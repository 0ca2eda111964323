"""What is in a cluster before our manifests: kinds of others, their namespaces, Knative Serving."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML

from authz.lab.controlplane import build
from tests.admission.rows import Json, thing

SERVING: Final = ("knative.dev/serving", "v0.51.0")
CERT_MANAGER: Final = ("github.com/cert-manager/cert-manager", "v1.20.0")
PROMETHEUS: Final = ("github.com/prometheus-operator/prometheus-operator", "v0.88.0")
"""Go modules whose source has manifests: every schema here is its project's own."""

NAMESPACES: Final = ("knative-serving", "knative-eventing", "cert-manager", "monitoring", "shop")


def others() -> Iterator[Json]:
    """CRDs of cert-manager and Prometheus' operator, and Serving's own manifests."""
    yield from _files(build.module(*CERT_MANAGER) / "deploy" / "crds")
    prometheus = build.module(*PROMETHEUS) / "example" / "prometheus-operator-crd"
    for kind in ("servicemonitors", "prometheusrules"):
        yield from _files(prometheus, f"*_{kind}.yaml")
    core = build.module(*SERVING) / "config" / "core"
    for part in ("300-resources", "configmaps", "deployments"):
        yield from _files(core / part)
    yield from (thing("v1", "Namespace", name, None) for name in NAMESPACES)
    yield _net_istio()


def _net_istio() -> Json:
    """Of net-istio nothing can be had as a Go module; as much as our patch of it meets."""
    labels = {"app": "net-istio-controller"}
    containers = [{"name": "controller", "image": "example.test/net-istio:1"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return thing("apps/v1", "Deployment", labels["app"], "knative-serving", spec=spec)


def webhooks(injector: Json) -> Iterator[Json]:
    """The injector's, and the one by which the same istiod reads every object of Istio's kinds.

    As Istio's chart base has the latter, for all revisions.
    """
    yield injector
    [hook] = deepcopy(injector["webhooks"])
    hook["clientConfig"]["url"] = hook["clientConfig"]["url"].replace("/inject", "/validate")
    groups = ("security", "networking", "telemetry", "extensions")
    rule = {
        "operations": ["CREATE", "UPDATE"],
        "apiGroups": [f"{group}.istio.io" for group in groups],
        "apiVersions": ["*"],
        "resources": ["*"],
    }
    kept = ("clientConfig", "sideEffects", "failurePolicy", "admissionReviewVersions")
    made = {key: hook[key] for key in kept} | {"name": "validation.istio.io", "rules": [rule]}
    version = "admissionregistration.k8s.io/v1"
    yield thing(version, "ValidatingWebhookConfiguration", "istio-validator", None, webhooks=[made])


def _files(folder: Path, pattern: str = "*.yaml") -> Iterator[Json]:
    yaml = YAML(typ="safe", pure=False)
    found = sorted(folder.glob(pattern))
    assert found, folder
    for file in found:
        yield from (it for it in yaml.load_all(file.read_text()) if it)
