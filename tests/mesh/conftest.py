"""One box for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from authz.demo.istio import box, cluster, network
from authz.demo.istio.mesh import Mesh

TENANTS = ("acme-web", "acme-db", "globex", "mallory")


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    if reason := network.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    async with box.running(cluster.standard(TENANTS)) as running:
        await running.settled()
        yield running
