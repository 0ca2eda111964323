"""One box for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from authz.demo.istio import box, cluster, network
from authz.demo.istio.mesh import Mesh

TENANTS = ("acme-web", "acme-db", "globex", "mallory")


# To acme-web/plain, other tenants' VirtualServices are out of sight: the local gateway is left.
SCOPED = {
    "kind": "Sidecar",
    "metadata": {"name": "scoped", "namespace": "acme-web"},
    "spec": {
        "workloadSelector": {"labels": {"app": "plain"}},
        "egress": [{"hosts": ["./*", "istio-system/*", "knative-serving/*", "authz-system/*"]}],
    },
}

needs_network = pytest.mark.skipif(bool(network.missing()), reason=network.missing())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    async with box.running(cluster.standard(TENANTS), extra=[SCOPED]) as running:
        await running.settled()
        yield running
