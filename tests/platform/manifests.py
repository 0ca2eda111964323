"""Validates Kubernetes objects as the API server would: unknown fields, types, what is required."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
PLATFORM = ROOT / "deploy" / "platform"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders")

# What Kubernetes has no schema for: the fields that we write, by kind.
_FIELDS: dict[str, set[str]] = {
    "Certificate": {"secretName", "dnsNames", "issuerRef", "privateKey"},
    "Gateway": {"selector", "servers"},
    "PeerAuthentication": {"mtls"},
    "Sidecar": {"egress"},
}
_GROUPS = {
    "Certificate": "cert-manager.io/v1",
    "Gateway": "networking.istio.io/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "Sidecar": "networking.istio.io/v1",
}


def rendered(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of a folder; it needs no cluster."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True)
    return list(YAML(typ="safe").load_all(done.stdout))


def validate(objects: Iterable[dict[str, Any]]) -> int:
    """Check all, and say how many they were."""
    count = 0
    for one in objects:
        count += 1
        if (kind := one["kind"]) in _FIELDS:
            assert one["apiVersion"] == _GROUPS[kind]
            assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
            assert set(one["spec"]) <= _FIELDS[kind], one
            assert one["metadata"]["namespace"]
        else:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    return count
