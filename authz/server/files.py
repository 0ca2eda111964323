"""Waits for files to change, be they rewritten, renamed over, or swapped by Kubernetes.

A mounted ConfigMap or Secret changes by moving a link. Looking at what a path leads to sees every
kind of change on every file system, and needs none of the kernel's watches, which run out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

_INTERVAL: Final = 0.2  # seconds between two looks


class Files:
    """Files, and the state that they were last known to be in. Make it before reading them."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._known = self._look()

    async def changes(self, unchanged: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        """Yield whenever one of them has changed and then kept still for a moment.

        Whenever they are seen as they were, `unchanged` is called. Keeping still spares whoever
        reads them then a file, or one of several, half written.
        """
        before = self._known
        while True:
            await asyncio.sleep(_INTERVAL)
            now = self._look()
            if now != self._known and now == before:
                self._known = now
                yield
            elif now == self._known:
                unchanged()
            before = now

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_state(path) for path in self._paths]


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
