"""A key store that is gone when the process ends: for tests and demos."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from authz.errors import Conflict, KeyStoreError, NoKeyring
from authz.keystore.sealed import poll


@dataclass(slots=True)
class Memory:
    """What several memory backends may share, as processes share a file."""

    record: bytes | None = None


class MemoryBackend:
    """Keeps one sealed record in memory.

    Args:
        memory: shared with other backends; `None` for one of its own.
        interval: seconds between two looks.
    """

    def __init__(self, memory: Memory | None = None, *, interval: float = 0.05) -> None:
        self._memory = Memory() if memory is None else memory
        self._interval = interval
        self._closed = asyncio.Event()

    def __str__(self) -> str:
        return "key store in memory"

    async def read(self) -> bytes:
        """See `Backend.read`."""
        if self._memory.record is None:
            raise NoKeyring(f"{self} holds no keyring yet")
        return self._memory.record

    async def write(self, record: bytes, *, replaces: bytes | None, rehearse: bool = False) -> None:
        """See `Backend.write`."""
        if self._memory.record != replaces:
            raise Conflict(
                f"{self} holds a keyring already"
                if replaces is None
                else f"{self} was changed by somebody else: repeat the change"
            )
        if not rehearse:
            self._memory.record = record

    def put_by(self) -> str | None:
        """See `Backend.put_by`."""
        return None

    def clock(self) -> float | None:
        """See `Backend.clock`."""
        return None

    def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        """See `Backend.looks`."""
        return poll(self.read, every=self._interval, until=self._closed)

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed.set()
