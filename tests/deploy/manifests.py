"""The manifests that ship, rendered as `kubectl apply -k` would apply them."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
Json: TypeAlias = dict[str, Any]

INSTALLS = ("base", "overlays/deployment", "overlays/xfcc")
"""The ways in which the service runs in a cluster."""


def load(file: Path) -> list[Json]:
    """All documents of a YAML file."""
    return [it for it in YAML(typ="safe", pure=True).load_all(file.read_text()) if it is not None]


def kustomizations() -> list[str]:
    """Every folder that can be applied; the platform around the service has tests of its own."""
    folders = [file.parent.relative_to(DEPLOY) for file in DEPLOY.rglob("kustomization.yaml")]
    return sorted(str(folder) for folder in folders if folder.parts[0] != "platform")


@cache
def rendered(name: str) -> tuple[Json, ...]:
    """What a folder renders to, without a cluster and without a network."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl to render with")
    command = ["kubectl", "kustomize", str(DEPLOY / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # what is deprecated is told there
    return tuple(YAML(typ="safe", pure=True).load_all(done.stdout))


def with_component(name: str, component: str, folder: Path) -> list[Json]:
    """What an install renders to with a component. `folder` is empty, and is filled."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl to render with")
    shutil.copytree(DEPLOY, folder / "deploy")
    own = folder / "own"
    own.mkdir()
    lines = f"resources: [../deploy/{name}]\ncomponents: [../deploy/components/{component}]\n"
    (own / "kustomization.yaml").write_text(lines)
    command = ["kubectl", "kustomize", str(own)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return list(YAML(typ="safe", pure=True).load_all(done.stdout))


def everything() -> Iterator[tuple[str, Json]]:
    """Every object that ships, with where it is from."""
    for name in kustomizations():
        for it in rendered(name):
            yield f"{name}: {it['kind']} {it['metadata']['name']}", it


def one(objects: tuple[Json, ...], kind: str, name: str) -> Json:
    """The one object of this kind and name."""
    (found,) = [it for it in objects if it["kind"] == kind and it["metadata"]["name"] == name]
    return found


def workload(name: str) -> Json:
    """The DaemonSet or Deployment of an install."""
    (found,) = [it for it in rendered(name) if it["kind"] in {"DaemonSet", "Deployment"}]
    return found


def pod(name: str) -> Json:
    """The pod's spec in an install."""
    spec: Json = workload(name)["spec"]["template"]["spec"]
    return spec


def server(name: str) -> Json:
    """Our container in it."""
    (found,) = [container for container in pod(name)["containers"] if container["name"] == "authz"]
    return dict(found)


def environment(container: Json) -> dict[str, str]:
    """The environment that a manifest gives a container."""
    return {it["name"]: it["value"] for it in container.get("env", [])}


def bytes_of(quantity: str) -> int:
    """A quantity of memory as Kubernetes writes it."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(quantity[:-2]) * units[quantity[-2:]]
