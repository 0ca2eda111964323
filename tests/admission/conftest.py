"""One control plane for all of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from authz.lab import controlplane
from authz.lab.controlplane import build
from authz.lab.controlplane.versions import ISTIO
from tests.admission.cluster import Cluster, policies, world
from tests.admission.injector import injecting
from tests.admission.table import ROWS


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(control_plane: None) -> AsyncIterator[Cluster]:
    """A real API server with the real injector, and with the policies in force."""
    async with controlplane.running(istio=None) as plane, plane.api() as api:
        made = Cluster(api)
        build.built(build.istiod(ISTIO), lambda _: None)
        await made.apply(world())
        await made.aggregate()
        async with injecting(plane, ISTIO) as webhook:
            await made.apply([webhook])
            await made.apply(policies())
            for row in {row.policy: row for row in ROWS}.values():
                await made.until(row, refused=True)
            yield made
