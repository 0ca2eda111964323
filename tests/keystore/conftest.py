import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube.resources.core_v1 import Secret

from authz.keystore import Keks, MemoryBackend, SealedStore
from authz.keystore.kubernetes import KubernetesBackend
from authz.keystore.memory import Memory
from authz.kube import Pace
from tests.keystore.in_secret import Opened, Sleeps
from tests.keystore.support import KEKS, sqlite_store
from tests.kube_double import ApiDouble

Opener = Callable[..., SealedStore]

ON_CLUSTER = pytest.param("cluster", marks=pytest.mark.kube)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
def cluster(given_kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a Secret to make in a real cluster, in the namespace of its kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", given_kubeconfig)
    name = f"tenant-authz-test-{secrets.token_hex(4)}"
    yield name
    config = lightkube.KubeConfig.from_file(given_kubeconfig).get()
    with closing(lightkube.Client(config)) as client, suppress(lightkube.ApiError):
        client.delete(Secret, name)


@pytest.fixture(params=["memory", "sqlite", "kubernetes", ON_CLUSTER])
async def opened(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Opener]:
    """Opens a store, each time another object, always in the same place."""
    memory = Memory()
    stores: list[SealedStore] = []
    secret = "keyring"
    if request.param == "kubernetes":
        request.getfixturevalue("api")
    elif request.param == "cluster":
        secret = request.getfixturevalue("cluster")

    def open_another(keks: Keks = KEKS) -> SealedStore:
        match request.param:
            case "memory":
                stores.append(SealedStore(MemoryBackend(memory, interval=0.01), keks))
            case "sqlite":
                stores.append(sqlite_store(path, keks, interval=0.01))
            case _:
                stores.append(SealedStore(KubernetesBackend(secret, pace=Pace(lease=1)), keks))
        return stores[-1]

    yield open_another
    for store in stores:
        await store.close()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
async def another(api: ApiDouble, sleeps: Sleeps) -> AsyncIterator[Opened]:
    """Opens the store in the Secret authz-system/keyring, each time another object."""
    stores: list[SealedStore] = []

    def opening(keks: Keks = KEKS, **pace: Any) -> SealedStore:
        backend = KubernetesBackend("keyring", pace=Pace(sleep=sleeps, **pace))
        stores.append(SealedStore(backend, keks))
        return stores[-1]

    yield opening
    for store in stores:
        await store.close()
