"""One box for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from authz.demo.istio import box, cluster, network
from authz.demo.istio.mesh import Mesh

TENANTS = ("acme-web", "acme-db", "globex", "mallory")


needs_network = pytest.mark.skipif(bool(network.missing()), reason=network.missing())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    async with box.running(cluster.standard(TENANTS)) as running:
        await running.settled()
        yield running
