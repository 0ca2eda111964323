"""The worlds of which there are recordings: those that the demo, the tests and conformance play.

A world is found by its objects, so a name here is for people. What differs in EnvoyFilters alone is
no variant: they are applied to a recording by `authz.envoyfilters`, and the variants with `filters`
hold that to what istiod does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from ruamel.yaml import YAML

from authz import envoyfilters
from authz.lab.world import attacked as worlds
from authz.lab.world import cluster, paths
from authz.lab.world.model import World

Json = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A world, and what is installed in it."""

    name: str
    world: World
    documents: tuple[Json, ...] = ()
    filters: bool = False
    """Whether the EnvoyFilters among the documents are in force."""
    stock: bool = True
    """Whether Istio's own filters are in it, which upstream's Envoy does not know."""


def variants() -> Iterator[Variant]:
    """All that are recorded."""
    shipped = tuple(envoyfilters.shipped())
    yield Variant("standard", cluster.standard(), shipped)
    half_open = (*shipped, worlds.mutual_tls("globex", "PERMISSIVE"))
    yield Variant("standard, globex PERMISSIVE", cluster.standard(), half_open)
    for it in (*_paths(shipped), *_attacked(shipped), *_examined(shipped)):
        yield it
        if it.name in _WITH_FILTERS:
            yield replace(it, name=f"{it.name}, with filters", filters=True)


_WITH_FILTERS: Final = {
    "paths",
    "paths, for upstream's Envoy",
    "sidecar-scope",
    "PERMISSIVE everywhere",
    "attacked without knative-local-gateway",
    "examined",
}
"""In which the filters that ship are in force, too: they hold our own engine to istiod's."""


def _paths(shipped: tuple[Json, ...]) -> Iterator[Variant]:
    """The world of the paths: bare, as the demo has it, with each component and its opposite."""
    world = paths.world()
    scoped = (*shipped, *paths.scoped())
    yield Variant("bare", world)
    yield Variant("paths", world, scoped)
    yield Variant("paths, for upstream's Envoy", world, scoped, stock=False)
    yield Variant("paths and a hidden pod", world, (*shipped, paths.HIDDEN, *paths.scoped()))
    yield Variant("paths, shipped alone", world, shipped)
    for name in ("sidecar-scope", "strict-mtls"):
        yield Variant(name, world, (*shipped, *component(name)))
    for mode in ("STRICT", "PERMISSIVE"):
        everywhere = tuple(
            worlds.mutual_tls(it, mode) for it in ("istio-system", "knative-serving")
        )
        yield Variant(f"{mode} everywhere", world, (*shipped, *everywhere))


def _attacked(shipped: tuple[Json, ...]) -> Iterator[Variant]:
    """The world of the attacks, and without what keeps one off."""
    world = worlds.attacked()
    without = {
        "knative-local-gateway": [
            it for it in shipped if it["metadata"]["name"] != "knative-local-gateway"
        ],
        "AuthorizationPolicy": [it for it in shipped if it["kind"] != "AuthorizationPolicy"],
    }
    yield Variant("attacked", world, shipped)
    for name, documents in without.items():
        yield Variant(f"attacked without {name}", world, tuple(documents))
    yield Variant(
        "attacked PERMISSIVE", world, (*shipped, worlds.mutual_tls("acme-db", "PERMISSIVE"))
    )
    scope = component("sidecar-scope")
    yield Variant("attacked with a Sidecar", world, (*shipped, *scope))


def _examined(shipped: tuple[Json, ...]) -> Iterator[Variant]:
    """What the doctor has to understand, and holes that are not in EnvoyFilters."""
    world = worlds.examined()
    yield Variant("examined", world, shipped)
    for kind in ("Gateway", "AuthorizationPolicy", "DestinationRule"):
        documents = tuple(it for it in shipped if it["kind"] != kind)
        yield Variant(f"examined without {kind}", world, documents)
    hidden = (*shipped, worlds.HIDES_THE_SERVICE)
    yield Variant("examined, where globex does not see the service", world, hidden)
    opened = (*shipped, worlds.mutual_tls("globex", "PERMISSIVE"))
    yield Variant("examined, globex PERMISSIVE", world, opened)


def component(name: str) -> tuple[Json, ...]:
    """The documents of a component that ships."""
    folder = envoyfilters.directory() / "components" / name
    files = [path for path in sorted(folder.glob("*.yaml")) if path.stem != "kustomization"]
    yaml = YAML(typ="safe")
    return tuple(document for file in files for document in yaml.load_all(file))
