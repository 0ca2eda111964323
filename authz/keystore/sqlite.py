"""A key store in one SQLite file, which the processes of one host may share.

It uses a rollback journal rather than a write-ahead log. Between two changes the file is then the
whole store: copying it is a backup and replacing it restores one (which `mark` notices), while a
log beside it would be mixed up with its successor. And whoever only reads needs no permission to
write. What a log is good at, reading while somebody writes, is worth nothing for one record that
people change by hand.

Sources: sqlite.org/howtocorrupt.html sections 1.2 and 1.4, sqlite.org/pragma.html (data_version,
synchronous, secure_delete).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from authz.errors import KeyStoreError
from authz.keystore.sealed import poll
from authz.keystore.sqlite_file import SqliteFile

P = ParamSpec("P")
T = TypeVar("T")


class SqliteBackend:
    """Keeps one sealed record in an SQLite file.

    Args:
        path: the file. It is made, with mode 0600, when a keyring is created.
        interval: seconds between two looks for changes that other processes made.
        patience: seconds to wait for another process that has the file locked.
    """

    def __init__(self, path: Path, *, interval: float = 0.25, patience: float = 5.0) -> None:
        self._file = SqliteFile(path, patience=patience)
        self._interval = interval
        self._closed = asyncio.Event()
        # A connection belongs to one thread, and no disk may hold up the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="key-store")

    def __str__(self) -> str:
        return str(self._file)

    async def read(self) -> bytes:
        """See `Backend.read`."""
        return await self._run(self._file.read)

    async def write(self, record: bytes, *, replaces: bytes | None, rehearse: bool = False) -> None:
        """See `Backend.write`. A rehearsal is a transaction that is rolled back."""
        write = self._file.rehearse if rehearse else self._file.write
        await self._run(write, record, replaces)

    def put_by(self) -> str | None:
        """See `Backend.put_by`."""
        replaced = self._file.was_replaced
        return "took the place of what `authz keys` wrote last" if replaced else None

    def clock(self) -> float | None:
        """See `Backend.clock`. Servers on this file run on this machine."""
        return None

    def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        """See `Backend.looks`."""
        return poll(self.read, every=self._interval, until=self._closed)

    async def close(self) -> None:
        """See `Backend.close`."""
        if not self._closed.is_set():
            self._closed.set()
            await self._run(self._file.close)
            self._thread.shutdown(wait=False)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))
