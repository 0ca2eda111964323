"""One box for all attacks; rules are taken away in it and brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from authz.demo.istio import box, network
from tests.attacks.stage import TENANTS, Stage, policy, world


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    if reason := network.missing():
        pytest.skip(reason)
    async with box.running(world(), tenants=TENANTS, policy=policy()) as mesh:
        await mesh.settled()
        yield Stage(mesh)
