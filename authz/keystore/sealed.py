"""The key store itself: seals, unseals, compares versions, watches.

What it is kept in, a `Backend`, moves one record of bytes and knows nothing of keys.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Protocol

from authz.domain.keys import Keyring
from authz.errors import Conflict, KeyStoreError
from authz.keystore.base import Report, Snapshot, ignore, retry
from authz.keystore.keks import Kek, Keks
from authz.keystore.sealing import Unsealed, seal, unseal


class Backend(Protocol):
    """Where one sealed record is kept. Its `str` names the place in errors."""

    async def read(self) -> bytes:
        """The record.

        Raises:
            KeyStoreError: there is none, or it cannot be read. The text names the place.
        """
        ...

    async def write(self, record: bytes, *, replaces: bytes | None) -> None:
        """Store `record` durably, if `replaces` is what is stored now; `None` means nothing is.

        Raises:
            Conflict: something else is stored.
            KeyStoreError: it cannot be written; what was stored is unharmed.
        """
        ...

    def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        """Look again and again; yield what is seen each time, and a change within a second.

        Where nothing changed, yield the same object again: comparing it is free. End on close.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; end all `looks`."""
        ...


class SealedStore:
    """A `KeyStore` in one sealed record."""

    def __init__(self, backend: Backend, keks: Keks) -> None:
        self._backend = backend
        self._keks = keks

    async def load(self) -> Snapshot:
        """See `KeyStore.load`."""
        stored = await self._unseal(await self._backend.read())
        return Snapshot(stored.keyring, stored.version)

    async def compare_and_swap(self, expected: int | None, keyring: Keyring) -> Snapshot:
        """See `KeyStore.compare_and_swap`. To create, just one KEK must be readable here."""
        if expected is None:
            return await self._write(keyring, 1, self._keks.only(), replaces=None)
        record = await self._backend.read()
        stored = await self._unseal(record)
        if stored.version != expected:
            raise Conflict(
                f"{self._backend} holds version {stored.version} of the keyring, not {expected}: "
                "somebody else changed it; load it again and repeat the change"
            )
        return await self._write(keyring, expected + 1, stored.kek, replaces=record)

    async def reseal(self, to: Kek) -> Snapshot:
        """See `KeyStore.reseal`."""
        if to not in self._keks:
            raise KeyStoreError(
                f"KEK {to.id} is not among those that are readable here ({self._keks}): "
                "configure it too, here and on every server, before sealing under it"
            )

        async def attempt() -> Snapshot:
            record = await self._backend.read()
            stored = await self._unseal(record)
            return await self._write(stored.keyring, stored.version + 1, to, replaces=record)

        return await retry(attempt)

    async def watch(self, report: Report = ignore) -> AsyncGenerator[Snapshot, None]:
        """See `KeyStore.watch`."""
        held: bytes | None = None
        version = 0
        async with aclosing(self._backend.looks()) as looks:
            async for look in looks:
                fresh, problem = None, None
                if isinstance(look, KeyStoreError):
                    problem = look
                elif look != held:
                    try:
                        fresh = await self._newer(look, than=version)
                    except KeyStoreError as error:
                        problem = error
                    else:
                        held, version = look, fresh.version
                report(problem)
                if fresh is not None:
                    yield fresh

    async def close(self) -> None:
        """See `KeyStore.close`."""
        await self._backend.close()

    async def _newer(self, record: bytes, *, than: int) -> Snapshot:
        stored = await self._unseal(record)
        if stored.version <= than:
            raise KeyStoreError(
                f"{self._backend} holds version {stored.version} of the keyring where version "
                f"{than} was seen before: an older copy took its place, and may lack a revocation. "
                "Put the newer one back, or restart the servers to use this one"
            )
        return Snapshot(stored.keyring, stored.version)

    async def _unseal(self, record: bytes) -> Unsealed:
        try:
            # A large keyring takes milliseconds, for which requests must not wait.
            return await asyncio.to_thread(unseal, record, self._keks)
        except KeyStoreError as error:
            raise KeyStoreError(f"{self._backend}: {error}") from None

    async def _write(
        self, keyring: Keyring, version: int, kek: Kek, *, replaces: bytes | None
    ) -> Snapshot:
        record = await asyncio.to_thread(seal, keyring, version, kek)
        await self._backend.write(record, replaces=replaces)
        return Snapshot(keyring, version)


async def poll(
    read: Callable[[], Awaitable[bytes]], *, every: float, until: asyncio.Event
) -> AsyncGenerator[bytes | KeyStoreError, None]:
    """Serve as `Backend.looks`: read every so many seconds, until the event is set."""
    while not until.is_set():
        look: bytes | KeyStoreError
        try:
            look = await read()
        except KeyStoreError as error:
            look = error
        yield look
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                await until.wait()
