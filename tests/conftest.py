"""Options of the whole test suite; pytest reads them from the topmost conftest only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from xdist.remote import Producer

from tests.scheduling import Together, scheduler

if TYPE_CHECKING:
    from authz.lab.box.istio.mesh import Mesh


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    return scheduler(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--envoy-matrix",
        action="store_true",
        help="run the tests with real Envoys on every supported version, not just the newest",
    )
    parser.addoption(
        "--kube",
        action="store_true",
        help="run the tests of the key store also on the cluster that KUBECONFIG names",
    )
    parser.addoption(
        "--istiod",
        action="store_true",
        help="run the tests that start a real control plane; Go builds it, once",
    )


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests start without settings of ours, and outside Kubernetes, wherever they run."""
    for name in list(os.environ):
        if name.upper().startswith(("AUTHZ_", "KUBERNETES_", "KUBECONFIG")):
            monkeypatch.delenv(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    """One box for all tests that leave it as it was: which share a worker: see `scheduling`."""
    from authz.lab.box.istio import box, network  # noqa: PLC0415 - few tests need them
    from authz.lab.box.paths import world  # noqa: PLC0415
    from tests.mesh.conftest import SCOPED  # noqa: PLC0415

    if reason := network.missing():
        pytest.skip(reason)
    extra = [SCOPED, *world.scoped()]
    async with box.running(world.world(), policy=world.policy(), extra=extra) as running:
        await running.settled()
        yield running
