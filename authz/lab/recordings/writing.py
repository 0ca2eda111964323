"""Writes recordings down, each resource once, and the same recordings as the same bytes."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from authz.lab.recordings.reading import FOLDER, KINDS, Json, Sent, canonical, digest

_DIGITS: Final = 12


class Writer:
    """The recordings of one istiod, as they grow."""

    def __init__(self, about: Json, bootstraps: Mapping[str, Json]) -> None:
        """`about` tells versions and how they are made, `bootstraps` what proxies start with."""
        self.content: Json = {
            "about": about,
            "bootstraps": dict(bootstraps),
            "resources": {},
            "variants": {},
        }

    def add(
        self,
        name: str,
        objects: Iterable[Mapping[str, Any]],
        sent: Mapping[str, Sent],
        *,
        filters: bool,
        stock: bool,
    ) -> None:
        """Write down what the proxies of a world were sent, by pod.

        istiod sends some resources in another order each time: they are sorted by name.
        """
        self.content["variants"][name] = {
            "objects": digest(objects),
            "filters": filters,
            "stock": stock,
            "proxies": {
                pod: {"node": it.node, **{kind: self._kept(getattr(it, kind)) for kind in KINDS}}
                for pod, it in sent.items()
            },
        }

    def write(self, file: Path) -> None:
        """Write it all into a file."""
        text = canonical(self.content).encode()
        file.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))

    def _kept(self, resources: Iterable[Json]) -> list[str]:
        return [self._keep(it) for it in sorted(resources, key=_name)]

    def _keep(self, resource: Json) -> str:
        key = hashlib.sha256(canonical(resource).encode()).hexdigest()[:_DIGITS]
        if self.content["resources"].setdefault(key, resource) != resource:
            raise ValueError(f"two resources with the digest {key}: take more digits")
        return key


def file_of(istio: str) -> Path:
    """Where the recordings of an istiod are."""
    return FOLDER / f"{istio}.json.xz"


def _name(resource: Json) -> str:
    return str(resource.get("name") or resource["cluster_name"])
