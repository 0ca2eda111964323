"""The worlds of which there are recordings: those that the demo, the tests and conformance play.

A world is found by its objects, so a name here is for people. What differs in EnvoyFilters alone is
no variant: they are applied to a recording by `authz.envoyfilters`, and the variants with `filters`
hold that to what istiod does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML

from authz import envoyfilters
from authz.demo.istio import cluster
from authz.demo.istio.world import World
from authz.demo.paths import world as paths
from authz.lab import worlds

Json = dict[str, Any]

CONFORMANCE: Final = ("globex", "mallory")
"""The tenants between whom `authz conformance --box` plays."""


@dataclass(frozen=True)
class Variant:
    """A world, and what is installed in it."""

    name: str
    world: World
    documents: tuple[Json, ...] = ()
    filters: bool = False
    """Whether the EnvoyFilters among the documents are in force."""
    stock: bool = False
    """Whether istiod puts Istio's own filters into it, too."""


def variants() -> Iterator[Variant]:
    """All that are recorded."""
    shipped = tuple(envoyfilters.shipped())
    yield from _standard(shipped)
    yield from _attacked(shipped)
    yield from _others(shipped)


def _standard(shipped: tuple[Json, ...]) -> Iterator[Variant]:
    """The world of the paths: bare, as shipped, and with each component and its opposite."""
    world = paths.world()
    scoped = (*shipped, *paths.scoped())
    yield Variant("bare", world)
    yield Variant("paths", world, scoped)
    yield Variant("paths with filters", world, scoped, filters=True)
    yield Variant("paths with stock filters", world, scoped, stock=True)
    yield Variant("paths with all filters", world, scoped, filters=True, stock=True)
    yield Variant("box", world, (*shipped, paths.HIDDEN, *paths.scoped()))
    for name in ("sidecar-scope", "strict-mtls"):
        yield Variant(name, world, (*shipped, *component(name)))
    for mode in ("STRICT", "PERMISSIVE"):
        everywhere = tuple(_mutual_tls(it, mode) for it in ("istio-system", "knative-serving"))
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
    yield Variant("attacked PERMISSIVE", world, (*shipped, _mutual_tls("acme-db", "PERMISSIVE")))
    scope = component("sidecar-scope", "sidecar")
    yield Variant("attacked with a Sidecar", world, (*shipped, *scope))


def _others(shipped: tuple[Json, ...]) -> Iterator[Variant]:
    """Smaller worlds, which start sooner."""
    few: Iterable[tuple[str, ...]] = (
        CONFORMANCE,
        ("acme-db", "globex"),
        ("globex",),
        ("acme-web",),
    )
    for tenants in few:
        yield Variant(" ".join(tenants), cluster.standard(tenants), shipped)
    alone = paths.world(("acme-web", "acme-db", "initech", "globex"))
    yield Variant("two servers", worlds.with_a_second_server(alone), shipped)


def component(name: str, *stems: str) -> tuple[Json, ...]:
    """The documents of a component that ships; only those of some files, if any are named."""
    folder = envoyfilters.directory() / "components" / name
    files = [it for it in sorted(folder.glob("*.yaml")) if it.stem != "kustomization"]
    wanted = [it for it in files if not stems or it.stem in stems]
    yaml = YAML(typ="safe")
    return tuple(document for file in wanted for document in yaml.load_all(file))


def _mutual_tls(namespace: str, mode: str) -> Json:
    """A namespace's own word about mutual TLS; istio-system's is the mesh's."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"mtls": {"mode": mode}},
    }
