"""Recordings of the real istiod: what it sent to each proxy of a world.

A file holds those of one istiod, see `about` for its version and how they were made: every
resource once, by its digest, and variants, each a set of objects in the cluster and what istiod
made of them for each proxy. Resources are JSON with the protos' own field names.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from authz.envoyfilters import Patches, Proxy
from authz.errors import AuthzError

Json: TypeAlias = dict[str, Any]

COMMAND: Final = "python -m authz.lab.record"
"""What makes them, where Go is."""

FOLDER: Final = Path(__file__).parent
KINDS: Final = ("clusters", "listeners", "routes", "endpoints")


class NotRecorded(AuthzError):
    """There is no recording of that istiod, or none of a cluster with these objects."""


@dataclass(frozen=True)
class Sent:
    """What istiod sent to one proxy. Read only: proxies and variants share the resources."""

    node: Json
    """How the proxy introduced itself."""
    clusters: tuple[Json, ...]
    listeners: tuple[Json, ...]
    routes: tuple[Json, ...]
    endpoints: tuple[Json, ...]

    @property
    def pod(self) -> str:
        """Whose proxy it is: `namespace/name`."""
        metadata = self.node["metadata"]
        return f"{metadata['NAMESPACE']}/{metadata['NAME']}"

    @property
    def proxy(self) -> Proxy:
        """Which EnvoyFilters are for it."""
        metadata = self.node["metadata"]
        return Proxy(
            "gateway" if self.node["id"].startswith("router~") else "sidecar",
            metadata["NAMESPACE"],
            metadata["LABELS"],
            metadata["ISTIO_VERSION"],
        )

    def patched(self, patches: Patches, proxy: Proxy | None = None) -> Sent:
        """What istiod had sent, were these EnvoyFilters in the cluster, too.

        Args:
            patches: the EnvoyFilters.
            proxy: in place of its own: which of them are for it.
        """
        config = {"listeners": list(self.listeners), "clusters": list(self.clusters)}
        resources = {"static_resources": config}
        made = patches.applied(proxy or self.proxy, resources)["static_resources"]
        listeners, clusters = tuple(made["listeners"]), tuple(made["clusters"])
        return replace(self, listeners=listeners, clusters=clusters)


@dataclass(frozen=True)
class Variant(Mapping[str, Sent]):
    """What istiod made of one set of objects, by pod, `namespace/name`."""

    name: str
    filters: bool
    """Whether the shipped EnvoyFilters were among the objects."""
    stock: bool
    """Whether Istio's own filters are in it, which upstream's Envoy does not know."""
    objects: str
    """Their digest, EnvoyFilters left out."""
    _proxies: Mapping[str, Json]
    _resources: Mapping[str, Json]

    def __getitem__(self, pod: str) -> Sent:
        recorded = self._proxies[pod]
        lists = (tuple(self._resources[it] for it in recorded.get(kind, ())) for kind in KINDS)
        return Sent(recorded["node"], *lists)

    def __iter__(self) -> Iterator[str]:
        return iter(self._proxies)

    def __len__(self) -> int:
        return len(self._proxies)


class Recordings:
    """All that one istiod was recorded with."""

    def __init__(self, content: Json) -> None:
        self.about: Json = content["about"]
        """Versions and how it was made."""
        self.bootstraps: Mapping[str, Json] = content.get("bootstraps", {})
        """What Istio's agent starts an Envoy with, without the node: `sidecar` and `router`."""
        self.variants = tuple(
            Variant(
                name,
                it["filters"],
                it["stock"],
                it["objects"],
                it["proxies"],
                content["resources"],
            )
            for name, it in content["variants"].items()
        )

    @classmethod
    @cache
    def of(cls, istio: str = "") -> Recordings:
        """Those of an istiod by its version, by default the newest; read once.

        Raises:
            NotRecorded: there are none.
        """
        version = istio or versions()[-1]
        if version not in versions():
            raise NotRecorded(
                f"no recordings of istiod {version}, only of {', '.join(versions())}; "
                f"`{COMMAND}` makes them"
            )
        return cls.read(FOLDER / f"{version}.json.xz")

    @classmethod
    def read(cls, file: Path) -> Recordings:
        """Those in a file."""
        return cls(json.loads(lzma.decompress(file.read_bytes())))

    def find(
        self,
        objects: Iterable[Mapping[str, Any]],
        *,
        filters: bool = False,
        stock: bool = True,
    ) -> Variant:
        """What istiod makes of a cluster with these objects.

        Args:
            objects: everything that istiod reads but EnvoyFilters, which are ignored here.
            filters: whether the shipped EnvoyFilters are in force, too.
            stock: whether Istio's own filters are in it.

        Raises:
            NotRecorded: it was not recorded with them.
        """
        wanted = digest(objects)
        for variant in self.variants:
            if (variant.objects, variant.filters, variant.stock) == (wanted, filters, stock):
                return variant
        raise NotRecorded(
            f"no variant of the recordings of istiod {self.about['istio']} has exactly these "
            f"objects (digest {wanted}{', with the shipped EnvoyFilters' if filters else ''}); "
            "if they are right, and authz/lab/world/variants.py names the world, "
            f"`{COMMAND}` records them"
        )


@cache
def versions() -> tuple[str, ...]:
    """The istiods of which there are recordings, the newest last."""
    found = (path.name.removesuffix(".json.xz") for path in FOLDER.glob("*.json.xz"))
    return tuple(sorted(found, key=_numbers))


def digest(objects: Iterable[Mapping[str, Any]]) -> str:
    """What names a set of objects: equal for equal objects, in whatever order."""
    texts = sorted(canonical(it) for it in objects if it["kind"] != "EnvoyFilter")
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def canonical(value: Any) -> str:
    """JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _numbers(version: str) -> list[int]:
    return [int("".join(filter(str.isdigit, it)) or 0) for it in version.split(".")]
