import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from authz.keystore import Keks, MemoryBackend, SealedStore
from authz.keystore.memory import Memory
from tests.keystore.support import KEKS, sqlite_store

Opener = Callable[..., SealedStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture(params=["memory", "sqlite"])
async def opened(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Opener]:
    """Opens a store, each time another object, always in the same place."""
    memory = Memory()
    stores: list[SealedStore] = []

    def open_another(keks: Keks = KEKS) -> SealedStore:
        if request.param == "memory":
            stores.append(SealedStore(MemoryBackend(memory, interval=0.01), keks))
        else:
            stores.append(sqlite_store(path, keks, interval=0.01))
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
