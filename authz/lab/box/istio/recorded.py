"""Configurations as the real istiod sent them when it was recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from authz.envoyfilters import Patches
from authz.lab.recordings import played
from authz.lab.recordings.worlds import runtime, secrets, variant
from authz.lab.world.model import Json, Pod

if TYPE_CHECKING:
    from authz.lab.box.istio.mesh import Mesh


@asynccontextmanager
async def recorded(mesh: Mesh) -> AsyncIterator[Recorded]:
    """A source: see `configurations`."""
    yield Recorded(mesh)


class Recorded:
    """Plays recordings; EnvoyFilters are put in by our own engine, which is held to istiod's."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._public = mesh.certificate("outside/server")

    async def install(self, documents: Sequence[Json]) -> None:
        """Play what istiod sent where these were in the cluster.

        Raises:
            NotRecorded: it was not recorded with these.
        """
        self._sent = variant(self._mesh.world, documents)
        self._engine = Patches.of(documents)

    async def of(self, pod: Pod) -> Json:
        """What its proxy was sent, and what the EnvoyFilters make of it."""
        sent = self._sent[pod.id].patched(self._engine)
        files = secrets(self._mesh.certificate(pod.id), self._public)
        return played(sent, files) | {"layered_runtime": runtime()}
