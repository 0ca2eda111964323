"""Options of the whole test suite; pytest reads them from the topmost conftest only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from authz.demo.istio.mesh import Mesh


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--envoy-matrix",
        action="store_true",
        help="run the tests with real Envoys on every supported version, not just the newest",
    )


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests start without settings of ours, and outside Kubernetes, wherever they run."""
    for name in list(os.environ):
        if name.upper().startswith(("AUTHZ_", "KUBERNETES_")):
            monkeypatch.delenv(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    """One box for all tests that leave it as it was: those of the xdist group `mesh`."""
    from authz.demo.istio import box, network  # noqa: PLC0415 - few tests need them
    from authz.demo.paths import world  # noqa: PLC0415
    from tests.mesh.conftest import SCOPED  # noqa: PLC0415

    if reason := network.missing():
        pytest.skip(reason)
    extra = [SCOPED, *world.scoped()]
    async with box.running(world.world(), policy=world.policy(), extra=extra) as running:
        await running.settled()
        yield running
