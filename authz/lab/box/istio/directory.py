"""The box's directory: keys and sockets that must not outlive it, even if it is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "authz-mesh-"


@contextmanager
def own_directory() -> Iterator[Path]:
    """A directory that is there as long as the block lasts; what killed boxes left is removed."""
    folder = Path(tempfile.gettempdir())
    # Under this lock nobody can take a directory that has just been made for an abandoned one.
    with (folder / f"{_PREFIX}lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in folder.glob(f"{_PREFIX}*/"):
            _remove_if_abandoned(old)
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        held = os.open(made, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def _remove_if_abandoned(directory: Path) -> None:
    with contextlib.suppress(OSError):  # gone, another user's, or in use
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
        finally:
            os.close(descriptor)
