"""The EnvoyFilters that ship, applied to a filter chain as istiod applies them.

So the demo and the tests run exactly what `kubectl apply -k envoyfilters` installs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from authz.demo.processes import CouldNotStart

ROOT_NAMESPACE: Final = "istio-system"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"


@dataclass(frozen=True)
class Chain:
    """What istiod compares an EnvoyFilter with: one HTTP filter chain of one proxy."""

    context: str
    namespace: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)


def directory() -> Path:
    """Where the EnvoyFilters are: at the root of a clone, or packed into the wheel."""
    package = Path(str(files("authz")))
    for candidate in (package / "_envoyfilters", package.parent / "envoyfilters"):
        if candidate.is_dir():
            return candidate
    raise CouldNotStart(f"no EnvoyFilters beside {package}: install from a wheel or a clone")


@cache
def shipped() -> tuple[dict[str, Any], ...]:
    """All EnvoyFilters that the kustomization installs, in the order in which istiod applies them.

    That is by priority, the root namespace first, then by name.
    """
    folder = directory()
    resources = _load(folder / "kustomization.yaml")["resources"]
    documents = [_load(folder / name) for name in resources]
    envoy_filters = [document for document in documents if document["kind"] == "EnvoyFilter"]
    return tuple(sorted(envoy_filters, key=_precedence))


def patched(http_filters: Sequence[dict[str, Any]], chain: Chain) -> list[dict[str, Any]]:
    """The HTTP filters of `chain` after every shipped patch that is meant for it."""
    result = list(http_filters)
    for patch, sub_filter in _patches(chain):
        names = [http_filter["name"] for http_filter in result]
        match patch["operation"]:
            case "INSERT_FIRST":
                result.insert(0, patch["value"])
            case "INSERT_BEFORE" if sub_filter in names:
                result.insert(names.index(sub_filter), patch["value"])
            case "REMOVE" if sub_filter in names:
                del result[names.index(sub_filter)]
            case "INSERT_BEFORE" | "REMOVE":
                pass  # istiod ignores what refers to a filter that is not there
            case operation:
                raise CouldNotStart(f"the demo cannot apply the operation {operation}")
    return result


def _patches(chain: Chain) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The patches meant for `chain`, each with the HTTP filter that it refers to."""
    for envoy_filter in shipped():
        if envoy_filter["metadata"]["namespace"] not in {ROOT_NAMESPACE, chain.namespace}:
            continue
        wanted = envoy_filter["spec"].get("workloadSelector", {}).get("labels", {})
        if not wanted.items() <= chain.labels.items():
            continue
        for item in envoy_filter["spec"]["configPatches"]:
            listener = item["match"]["listener"]
            manager = listener["filterChain"]["filter"]
            if (
                item["applyTo"] == "HTTP_FILTER"
                and item["match"]["context"] == chain.context
                and listener.get("portNumber", chain.port) == chain.port
                and manager["name"] == _MANAGER
            ):
                yield item["patch"], manager.get("subFilter", {}).get("name")


def _precedence(envoy_filter: dict[str, Any]) -> tuple[int, bool, str]:
    metadata = envoy_filter["metadata"]
    priority = envoy_filter["spec"].get("priority", 0)
    return priority, metadata["namespace"] != ROOT_NAMESPACE, metadata["name"]


def _load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(file)
    return loaded
