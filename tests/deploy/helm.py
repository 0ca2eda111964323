"""Helm, built with Go and kept in the user's cache, as the control plane is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from authz.lab.controlplane import build
from authz.lab.controlplane.versions import KUBERNETES
from tests.deploy.manifests import DEPLOY, Json

CHART = DEPLOY / "chart"
HOME = "authz-system"


def program() -> Path:
    """Helm's file; the test is skipped where there is none and no Go to build it."""
    helm = build.helm()
    if not helm.file.exists() and (reason := build.missing()):
        pytest.skip(f"no helm: {reason}")
    return build.built(helm, lambda _: None)


def folders() -> dict[str, str]:
    """What keeps Helm out of the user's own folders."""
    return {it: str(build.cache() / "helm") for it in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME")}


def run(
    *arguments: str | Path, given: str = "", kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Helm to its end; it writes nothing into the user's folders."""
    helm = program()
    return subprocess.run(
        [helm, *arguments],
        input=given,
        env={**os.environ, **folders(), "KUBECONFIG": str(kubeconfig or "/nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(chart: Path = CHART, values: Mapping[str, object] | None = None) -> list[Json]:
    """What the chart comes to, as `helm template` has it."""
    done = template(chart, values)
    assert done.returncode == 0, done.stderr
    return [it for it in YAML(typ="safe", pure=True).load_all(done.stdout) if it]


def template(
    chart: Path = CHART, values: Mapping[str, object] | None = None, namespace: str = HOME
) -> subprocess.CompletedProcess[str]:
    """Render the chart; its errors are Helm's."""
    text = json.dumps(dict(values or {}))
    # Built from a module, Helm takes itself for one of Kubernetes 1.20.
    version = ("--kube-version", KUBERNETES)
    return run("template", "tenant-authz", chart, "-n", namespace, *version, "-f", "-", given=text)
