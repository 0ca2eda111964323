"""What the tests of the key store share. Processes are real, and started from a clean one."""

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

from authz.domain.keys import Keyring, NamespaceKeys, RootKey
from authz.domain.names import Namespace
from authz.errors import KeyStoreError
from authz.keystore import Kek, Keks, KeyStore, SealedStore, Snapshot, SqliteBackend
from tests.support.waiting import PATIENCE, soon

T = TypeVar("T")

NOBODY = 65534

KEK = Kek(b"first key-encryption key".ljust(32, b"!"))
NEW_KEK = Kek(b"other key-encryption key".ljust(32, b"!"))
KEKS = Keks(KEK)
BOTH = Keks(NEW_KEK, KEK)

ROOT = RootKey("00000001", b"the secret of the first root".ljust(32, b"?"), sign_from=1_000)
RING = Keyring.of(ROOT, shop=NamespaceKeys(2, 1_000, 1_780))
COUNTED = Namespace("counted")

# Children are forked by a server that has no threads and has imported everything already.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def sqlite_store(
    path: Path, keks: Keks = KEKS, *, rehearse: bool = False, **options: float
) -> SealedStore:
    return SealedStore(SqliteBackend(path, **options), keks, rehearse=rehearse)


def counted_up(keyring: Keyring) -> Keyring:
    """A change of which it can be told afterwards how often it was made."""
    keys = NamespaceKeys(keyring.keys_of(COUNTED).generation + 1)
    return Keyring(keyring.roots, {**keyring.namespaces, COUNTED: keys})


async def outcome(work: Awaitable[Snapshot]) -> Snapshot | str:
    """The snapshot that comes of it, or the text of the error."""
    try:
        return await work
    except KeyStoreError as error:
        return str(error)


def count(snapshot: Snapshot) -> int:
    return snapshot.keyring.keys_of(COUNTED).generation


class Watcher:
    """Collects what a watch yields and what it reports."""

    def __init__(self) -> None:
        self.snapshots: asyncio.Queue[Snapshot] = asyncio.Queue()
        self.reports: asyncio.Queue[KeyStoreError | None] = asyncio.Queue()

    async def run(self, store: KeyStore) -> None:
        async for snapshot in store.watch(self.reports.put_nowait):
            self.snapshots.put_nowait(snapshot)

    async def version(self, version: int) -> Snapshot:
        """Wait until this version was yielded."""
        while (snapshot := await soon(self.snapshots.get())).version != version:
            assert snapshot.version < version
        return snapshot

    async def problem(self) -> str:
        """Wait for the next report of something wrong."""
        while (report := await soon(self.reports.get())) is None:
            pass
        return str(report)

    async def all_well(self) -> None:
        """Wait for the next report that nothing is wrong."""
        while await soon(self.reports.get()) is not None:
            pass


@contextlib.asynccontextmanager
async def watching(store: KeyStore) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    task = asyncio.create_task(watcher.run(store))
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Child:
    """Another process, which runs `main(connection, *args)`."""

    def __init__(self, main: Callable[..., None], *args: Any) -> None:
        self.connection, theirs = _processes.Pipe()
        self.process = _processes.Process(target=main, args=(theirs, *args), daemon=True)
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        """What it says next; EOFError when it has ended."""
        assert self.connection.poll(PATIENCE), "the other process says nothing"
        return self.connection.recv()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.join(PATIENCE)
        assert not self.process.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.connection.close()
        self.process.close()


def become_nobody() -> None:
    """Give up root's right to read and write everything."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def tell_outcome(connection: Connection, work: Callable[[], Awaitable[Snapshot]]) -> None:
    """Run `work` in this process and say which version came of it, or which error."""

    result = asyncio.run(outcome(work()))
    connection.send(result if isinstance(result, str) else result.version)
