"""One box for all attacks; rules are taken away in it and brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from authz.lab.box.istio import box, network
from tests.attacks.stage import Stage, policy, world


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    if reason := network.missing():
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(box.running(world(), policy=policy()))
        await mesh.settled()
        yield Stage(mesh, stack)
