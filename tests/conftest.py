"""Options of the whole test suite; pytest reads them from the topmost conftest only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings
from xdist.remote import Producer

from authz.lab.controlplane import build
from authz.lab.controlplane.versions import ISTIODS
from tests.command import Run, in_process
from tests.kube_double import ApiDouble
from tests.scheduling import Together, scheduler

if TYPE_CHECKING:
    from authz.lab.box.istio.mesh import Mesh, Source


KUBECONFIG = os.environ.get("KUBECONFIG", "~/.kube/config")  # before a fixture takes it away

# Other work may be on the machine: no example has a time limit of its own.
settings.register_profile("unhurried", parent=settings.default, deadline=None)
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile("unhurried")


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
    parser.addoption(
        "--reuse",
        action="store_true",
        help="run the boxes with proxies that give answers again (envoyfilters/overlays/reuse)",
    )
    parser.addoption(
        "--oracle",
        action="store_true",
        help="compare the decisions with what the pages say a million times, not 20,000, and read "
        "a million XFCC headers, not 10,000",
    )


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests start without settings of ours, and outside Kubernetes, wherever they run."""
    for name in list(os.environ):
        if name.upper().startswith(("AUTHZ_", "KUBERNETES_", "KUBECONFIG")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> None:
    """What a test asks for that starts a real control plane or a part of it."""
    if not pytestconfig.getoption("--istiod"):
        pytest.skip("starts a real control plane: pytest --istiod")
    if reason := build.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def given_kubeconfig(pytestconfig: pytest.Config) -> str:
    """That of a cluster which is there."""
    if not pytestconfig.getoption("--kube"):
        pytest.skip("no cluster: run pytest --kube with a KUBECONFIG")
    return KUBECONFIG


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs something real, so that `-m "kube or istiod"` is that and no more."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        for fixture, marker in (("control_plane", "istiod"), ("given_kubeconfig", "kube")):
            if fixture in asked:
                item.add_marker(marker)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process, in a folder of its own, on a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    return in_process(monkeypatch, capsys)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    """An API server that KUBECONFIG leads to."""
    with ApiDouble.running() as double:
        monkeypatch.setenv("KUBECONFIG", str(double.kubeconfig(tmp_path / "kubeconfig")))
        yield double


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Boxes play recordings; with --istiod the same tests are played by real istiods, too."""
    if "istiod" in metafunc.fixturenames and metafunc.config.getoption("--istiod"):
        played = ["", *ISTIODS]
        names = [it or "recorded" for it in played]
        metafunc.parametrize("istiod", played, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def istiod(request: pytest.FixtureRequest) -> Source | None:
    """Where the configurations of a box's proxies come from: what `box.running` takes."""
    if not getattr(request, "param", ""):
        return None
    from authz.lab.live import live  # noqa: PLC0415 - few tests need it

    return live(request.param)


@pytest.fixture(scope="session")
def reuse(pytestconfig: pytest.Config) -> bool:
    """Whether the proxies of a box give answers again."""
    return bool(pytestconfig.getoption("--reuse"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(istiod: Source | None, *, reuse: bool) -> AsyncIterator[Mesh]:
    """One box for all tests that leave it as it was: which share a worker: see `scheduling`."""
    from authz.lab.box.istio import box, network  # noqa: PLC0415 - few tests need them
    from authz.lab.world import paths as world  # noqa: PLC0415

    if reason := network.missing():
        pytest.skip(reason)
    extra = [world.HIDDEN, *world.scoped()]
    async with box.running(
        world.world(),
        policy=world.policy(),
        extra=extra,
        source=istiod,
        reuse=reuse,
        patched=box.patient,
    ) as running:
        await running.settled()
        yield running
