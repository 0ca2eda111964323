"""Configurations as the real istiod sent them when it was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from authz.demo.istio.mesh import Mesh
from authz.demo.istio.world import Json, Pod
from authz.envoyfilters import Patches
from authz.lab.recordings import Files, Secrets, Variant, played

Found: TypeAlias = Callable[[Sequence[Json]], Variant]


class Recorded:
    """Plays recordings; EnvoyFilters are put in by our own engine, which is held to istiod's."""

    def __init__(self, mesh: Mesh, find: Found) -> None:
        self._mesh = mesh
        self._find = find

    async def install(self, documents: Sequence[Json]) -> None:
        """Play what istiod sent where these were in the cluster."""
        self._sent = self._find(documents)
        self._engine = Patches.of(documents)

    async def of(self, pod: Pod) -> Json:
        """What its proxy was sent, and what the EnvoyFilters make of it."""
        sent = self._sent[pod.id].patched(self._engine)
        return played(sent, self._secrets(pod))

    def _secrets(self, pod: Pod) -> Secrets:
        own = self._mesh.certificate(pod.id)
        public = self._mesh.certificate("outside/server")
        return {
            "default": Files(own.cert_file, own.key_file),
            "ROOTCA": Files(authority=own.ca_file),
            "kubernetes://public": Files(public.cert_file, public.key_file),
        }
