"""EnvoyFilters, applied to an Envoy's configuration as istiod applies them.

Whatever istiod knows and this does not is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from authz.envoyfilters.envoyfilter import CannotPatch, EnvoyFilter, Patch, Proxy, read
from authz.envoyfilters.merge import CannotMerge
from authz.envoyfilters.patching import patched_clusters, patched_listeners


@dataclass(frozen=True)
class Patches:
    """EnvoyFilters in the order in which istiod applies them."""

    root_namespace: str
    _envoy_filters: tuple[EnvoyFilter, ...]

    @classmethod
    def of(
        cls, documents: Iterable[Mapping[str, Any]], root_namespace: str = "istio-system"
    ) -> Patches:
        """Take the EnvoyFilters among Kubernetes documents.

        istiod orders them by priority, then the root namespace first, then by age. Documents have
        no age: names stand for it, as in istiod when two are of one second.

        Raises:
            CannotPatch: one uses what is unknown here.
        """
        envoy_filters = [document for document in documents if document["kind"] == "EnvoyFilter"]

        def precedence(it: Mapping[str, Any]) -> tuple[int, bool, str]:
            metadata = it["metadata"]
            name = f"{metadata['name']}.{metadata['namespace']}"
            return it["spec"].get("priority", 0), metadata["namespace"] != root_namespace, name

        return cls(root_namespace, tuple(map(read, sorted(envoy_filters, key=precedence))))

    def applied(self, proxy: Proxy, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of `proxy` after every patch that is meant for it.

        `config` stays as it is; what no patch changes is part of both.

        On a sidecar, a listener's `traffic_direction` tells which patches are; one without it is
        not istiod's and stays as it is.

        Raises:
            CannotPatch: a merge that cannot be told from JSON.
        """
        patches = list(self._meant_for(proxy))
        resources = dict(config["static_resources"])
        try:
            resources["listeners"] = patched_listeners(
                proxy, resources.get("listeners", []), patches
            )
            resources["clusters"] = patched_clusters(proxy, resources.get("clusters", []), patches)
        except CannotMerge as error:
            raise CannotPatch(str(error)) from None
        return {**config, "static_resources": resources}

    def _meant_for(self, proxy: Proxy) -> Iterator[Patch]:
        for envoy_filter in self._envoy_filters:
            if envoy_filter.namespace not in {self.root_namespace, proxy.namespace}:
                continue
            if not envoy_filter.labels.items() <= proxy.labels.items():
                continue
            for patch in envoy_filter.patches:
                if patch.version is None or patch.version.search(proxy.istio_version):
                    yield patch


def directory() -> Path:
    """Where the manifests are: at the root of a clone, or packed into the wheel."""
    package = Path(str(files("authz")))
    for candidate in (package / "_envoyfilters", package.parent / "envoyfilters"):
        if candidate.is_dir():
            return candidate
    raise CannotPatch(f"no manifests beside {package}: install from a wheel or a clone")


@cache
def shipped(overlay: str = "") -> tuple[dict[str, Any], ...]:
    """Every Kubernetes document that `envoyfilters`, or one of its overlays, installs.

    They are read as rendered, see `envoyfilters/render.py`: no kustomize is needed.

    Raises:
        CannotPatch: there is no such overlay.
    """
    file = directory() / "rendered" / f"{overlay or 'enforce'}.yaml"
    if not file.is_file():
        raise CannotPatch(f"no overlay {overlay!r} in {directory() / 'overlays'}")
    return tuple(YAML(typ="safe").load_all(file))
