"""One box for all attacks; rules are taken away in it and brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from authz.lab.box.istio import network
from authz.lab.box.istio.box import patient, running
from authz.lab.box.istio.mesh import Source
from authz.lab.world import attacked as worlds
from tests.attacks.box import Box, policy


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def box(istiod: Source | None, *, reuse: bool) -> AsyncIterator[Box]:
    if reason := network.missing():
        pytest.skip(reason)
    mesh_of_attacks = running(
        worlds.attacked(),
        tenants=worlds.ATTACKED,
        policy=policy(),
        source=istiod,
        reuse=reuse,
        patched=patient,
    )
    async with mesh_of_attacks as mesh:
        await mesh.settled()
        yield Box(mesh)
