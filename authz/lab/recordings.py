"""What istiod sent to each proxy of a world, written down: one file for each istiod.

    {"about": {"istio": ..., "command": ..., "date": ..., ...},
     "resources": {digest: resource},
     "variants": {name: {"objects": digest, "filters": bool, "stock": bool, "proxies": {
         "namespace/pod": {"node": {...}, "clusters": [digest], "listeners": [digest],
                           "routes": [digest], "endpoints": [digest]}}}}}

Resources are Envoy's v3 messages as JSON, with the field names of their definitions. Each is there
once, however many proxies were sent it. They are as istiod made them, but sorted by name: it sends
some in another order each time.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from authz.errors import AuthzError
from authz.lab import objects
from authz.lab.controlplane.versions import ISTIO, ISTIODS

Json = dict[str, Any]

KINDS: Final = ("clusters", "listeners", "routes", "endpoints")
COMMAND: Final = "python -m authz.lab.record"
_FOLDER: Final = Path(__file__).parent / "recordings"
_DIGITS: Final = 12


class NotRecorded(AuthzError):
    """Nobody has asked istiod about such a world."""


@dataclass(frozen=True)
class Sent:
    """What one proxy was sent."""

    node: Json
    """Envoy's `core.v3.Node`, as the proxy introduced itself."""
    clusters: list[Json]
    listeners: list[Json]
    routes: list[Json]
    endpoints: list[Json]


@dataclass(frozen=True)
class Recording:
    """What the proxies of one world were sent."""

    name: str
    objects: str
    """The digest of what was in the API server, EnvoyFilters left out."""
    filters: bool
    """Whether the EnvoyFilters that ship were in force."""
    stock: bool
    """Whether Istio's own filters are in it, which upstream's Envoy does not know."""
    istio: str
    proxies: Mapping[str, Mapping[str, Any]] = field(repr=False)
    resources: Mapping[str, Json] = field(repr=False)

    def sent(self, pod: str) -> Sent:
        """What the proxy of a pod, `namespace/name`, was sent; copies, to be changed at will.

        Raises:
            KeyError: it has no proxy, or is not of this world.
        """
        proxy = self.proxies[pod]
        copies = {
            kind: [json.loads(json.dumps(self.resources[it])) for it in proxy[kind]]
            for kind in KINDS
        }
        return Sent(json.loads(json.dumps(proxy["node"])), **copies)


class Book:
    """The recordings of one istiod, to be read or to be written."""

    def __init__(self, about: Json, resources: dict[str, Json], variants: Json) -> None:
        self.about = about
        self._resources = resources
        self._variants = variants

    @classmethod
    def read(cls, file: Path) -> Book:
        """The content of a file."""
        content = json.loads(lzma.decompress(file.read_bytes()))
        return cls(content["about"], content["resources"], content["variants"])

    def write(self, file: Path) -> None:
        """Write a file; the same recordings give the same bytes."""
        content = {
            "about": self.about,
            "resources": self._resources,
            "variants": self._variants,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    def __iter__(self) -> Iterator[Recording]:
        for name, it in self._variants.items():
            yield Recording(
                name,
                it["objects"],
                it["filters"],
                it["stock"],
                self.about["istio"],
                it["proxies"],
                self._resources,
            )

    def add(
        self, name: str, digest: str, sent: Mapping[str, Sent], *, filters: bool, stock: bool
    ) -> None:
        """Write down what the proxies of a world were sent."""
        proxies = {
            pod: {"node": it.node, **{kind: self._keep(getattr(it, kind)) for kind in KINDS}}
            for pod, it in sent.items()
        }
        self._variants[name] = {
            "objects": digest,
            "filters": filters,
            "stock": stock,
            "proxies": proxies,
        }

    def _keep(self, resources: Iterable[Json]) -> list[str]:
        kept = []
        for it in sorted(resources, key=_name):
            text = json.dumps(it, sort_keys=True, separators=(",", ":"))
            name = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
            if self._resources.setdefault(name, it) != it:
                raise ValueError(f"two resources with the digest {name}: use more digits")
            kept.append(name)
        return kept


def _name(resource: Json) -> str:
    return str(resource.get("name") or resource["cluster_name"])


def file_of(istio: str) -> Path:
    """Where the recordings of an istiod are."""
    return _FOLDER / f"{istio}.json.xz"


@cache
def book(istio: str = ISTIO) -> Book:
    """The recordings of one of `versions.ISTIODS`.

    Raises:
        NotRecorded: there are none.
    """
    if not file_of(istio).exists():
        raise NotRecorded(f"no recordings of istiod {istio}: run {COMMAND}")
    return Book.read(file_of(istio))


def find(
    rendered: Iterable[Json], *, istio: str = ISTIO, filters: bool = False, stock: bool = False
) -> Recording:
    """What was sent to the proxies of a world whose objects are these.

    Args:
        rendered: what `objects.rendered` says of a world and its documents.
        istio: which istiod was asked.
        filters: with the shipped EnvoyFilters in force.
        stock: with Istio's own filters in it.

    Raises:
        NotRecorded: no such world has been recorded.
    """
    wanted = objects.digest(rendered), filters, stock
    for it in book(istio):
        if (it.objects, it.filters, it.stock) == wanted:
            return it
    how = " with the shipped filters" if filters else ""
    raise NotRecorded(
        f"istiod {istio} has not been asked about this world{how} (objects {wanted[0]}): if it is "
        f"new, name it in authz/lab/variants.py; then run {COMMAND}"
    )


def complete() -> bool:
    """Whether there are recordings of every istiod."""
    return all(file_of(it).exists() for it in ISTIODS)
