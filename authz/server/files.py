"""Waits for files to change, be they rewritten, renamed over, or swapped by Kubernetes.

A mounted ConfigMap or Secret changes by moving a link in its directory. So directories are
watched, and whoever is told reads again and compares.
"""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from watchfiles import awatch


async def changes(files: Iterable[Path]) -> AsyncIterator[None]:
    """Yield whenever one of the files may have changed."""
    directories = {file.absolute().parent for file in files}
    async for _ in awatch(*directories, recursive=False, debounce=200, step=50):
        yield
