"""Writes recordings down, each resource once, and the same recordings as the same bytes."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

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

    @classmethod
    def of(cls, file: Path, names: Collection[str]) -> Self:
        """What a file has of the variants with these names, so that some are recorded anew."""
        content = json.loads(lzma.decompress(file.read_bytes()))
        writer = cls(content["about"], content["bootstraps"])
        writer.content["resources"] = content["resources"]
        kept = {name: it for name, it in content["variants"].items() if name in names}
        writer.content["variants"] = kept
        return writer

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
        """Write it all into a file, and no resource that no variant has."""
        used = {
            key
            for variant in self.content["variants"].values()
            for proxy in variant["proxies"].values()
            for kind in KINDS
            for key in proxy[kind]
        }
        resources = {key: it for key, it in self.content["resources"].items() if key in used}
        text = canonical({**self.content, "resources": resources}).encode()
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
