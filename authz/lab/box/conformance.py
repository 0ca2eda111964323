"""The matrix on the mesh in a box: two of its tenants, the same probe inside their pods."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from authz.conformance import probe
from authz.conformance.matrix import Caller
from authz.conformance.run import CouldNotProve, Json
from authz.lab.box.istio import box
from authz.lab.box.istio.mesh import Mesh, Source
from authz.lab.box.istio.rules import APP_UID

A: Final = "globex"
B: Final = "mallory"
_PODS: Final[Mapping[Caller, str]] = {"a": f"{A}/plain", "b": f"{B}/plain", "bare": f"{B}/bare"}


class BoxTenants:
    """Two tenants of a mesh in a box. It has no DNS server: names are looked up here."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def names(self) -> Mapping[str, str]:
        """Namespaces and addresses."""
        plain, hello = self._mesh.address(f"{A}/plain"), self._mesh.address(f"{A}/hello")
        return {"a": A, "b": B, "a_plain": plain, "a_hello": hello}

    async def probe(self, caller: Caller, calls: Sequence[Json]) -> list[Json]:
        """Run the probe in the pod's network."""
        pod = _PODS[caller]
        told = json.dumps([self._resolved(pod, call) for call in calls])
        argv = [*self._mesh.network[pod].argv(APP_UID), sys.executable, str(Path(probe.__file__))]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, "call", told, stdout=pipe, stderr=pipe
        )
        said, errors = await process.communicate()
        if process.returncode != 0:
            raise CouldNotProve(f"caller {caller}: {errors.decode(errors='replace')[-500:]}")
        results: list[Json] = json.loads(said)
        return results

    def _resolved(self, pod: str, call: Json) -> Json:
        parts = urlsplit(call["url"])
        host, port = parts.hostname or "", parts.port or 80
        if not host.replace(".", "").isdecimal():
            host = self._mesh.world.resolve(host, self._mesh.pod(pod).namespace)
        return {**call, "connect": f"{host}:{port}"}


@asynccontextmanager
async def driver(
    patched: box.Patched = tuple, source: Source | None = None, *, reuse: bool = False
) -> AsyncIterator[BoxTenants]:
    """A mesh in a box as long as the block lasts; arguments as in `box.running`."""
    running = box.running(tenants=(A, B), patched=patched, source=source, reuse=reuse)
    async with running as mesh:
        await mesh.settled()
        yield BoxTenants(mesh)
