"""The key store itself: seals, unseals, compares versions, watches.

What it is kept in, a `Backend`, moves one record of bytes and knows nothing of keys.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import NamedTuple, Protocol

from authz.domain.keys import Keyring
from authz.domain.succession import missing_roots, undone
from authz.errors import Conflict, KeyringRefused, KeyringReplaced, KeyStoreError, NoKeyring
from authz.keystore.base import Report, Snapshot, ignore, retry
from authz.keystore.history import History, Note, noted
from authz.keystore.keks import Kek, Keks
from authz.keystore.sealing import Unsealed, seal, unseal

_SHOWN = 3  # of the things that a keyring takes back


class Backend(Protocol):
    """Where one sealed record is kept. Its `str` names the place in errors."""

    async def read(self) -> bytes:
        """The record.

        Raises:
            NoKeyring: there is none.
            KeyStoreError: it cannot be read. The text names the place.
        """
        ...

    def put_by(self) -> str | None:
        """How what was seen last got here, where it is known that `write` did not put it here."""
        ...

    def clock(self) -> float | None:
        """When it was seen, in seconds since the epoch, by a clock that is not this machine's."""
        ...

    async def write(self, record: bytes, *, replaces: bytes | None, rehearse: bool = False) -> None:
        """Store `record` durably, if `replaces` is what is stored now; `None` means nothing is.

        With `rehearse`, find out as far as the place lets us whether it would be taken, and leave
        everything as it is.

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


class _History(NamedTuple):
    """What was, and what is to be noted now."""

    until: History
    note: Note | None


class SealedStore:
    """A `KeyStore` in one sealed record. With `rehearse`, changes are only tried: see `Backend`."""

    def __init__(self, backend: Backend, keks: Keks, *, rehearse: bool = False) -> None:
        self._backend = backend
        self._keks = keks
        self._rehearse = rehearse

    async def load(self) -> Snapshot:
        """See `KeyStore.load`."""
        record = await self._backend.read()
        put_by, clock = self._backend.put_by(), self._backend.clock()
        stored = await self._unseal(record)
        return Snapshot(stored.keyring, stored.version, put_by, clock, stored.history)

    async def compare_and_swap(
        self,
        expected: int | None,
        keyring: Keyring,
        *,
        adopt: bool = False,
        note: Note | None = None,
    ) -> Snapshot:
        """See `KeyStore.compare_and_swap`. To create, just one KEK must be readable here."""
        if expected is None:
            made = _History((), note)
            return await self._write(keyring, 1, self._keks.only(), made, replaces=None)
        record = await self._backend.read()
        if not adopt:
            self._check_ours()
        stored = await self._unseal(record)
        if stored.version != expected:
            raise Conflict(
                f"{self._backend} holds version {stored.version} of the keyring, not {expected}: "
                "somebody else changed it; load it again and repeat the change"
            )
        history = _History(stored.history, note)
        return await self._write(keyring, expected + 1, stored.kek, history, replaces=record)

    async def reseal(self, to: Kek, *, note: Note | None = None) -> Snapshot:
        """See `KeyStore.reseal`."""
        if to not in self._keks:
            raise KeyStoreError(
                f"KEK {to.id} is not among those that are readable here ({self._keks}): "
                "configure it too, here and on every server, before sealing under it"
            )

        async def attempt() -> Snapshot:
            record = await self._backend.read()
            self._check_ours()
            stored = await self._unseal(record)
            history = _History(stored.history, note)
            version = stored.version + 1
            return await self._write(stored.keyring, version, to, history, replaces=record)

        return await retry(attempt)

    async def watch(self, report: Report = ignore) -> AsyncGenerator[Snapshot, None]:
        """See `KeyStore.watch`."""
        seen: bytes | None = None
        used: Snapshot | None = None
        verdict: KeyStoreError | None = None
        async with aclosing(self._backend.looks()) as looks:
            async for look in looks:
                fresh = None
                if isinstance(look, KeyStoreError):
                    report(look if used is None else self._lost(look))
                    continue
                if look != seen:
                    seen = look
                    try:
                        fresh, verdict = await self._successor(look, used), None
                    except KeyStoreError as error:
                        verdict = error
                report(verdict)
                if fresh is not None and fresh != used:
                    used = fresh
                    yield fresh

    async def close(self) -> None:
        """See `KeyStore.close`."""
        await self._backend.close()

    async def _successor(self, record: bytes, used: Snapshot | None) -> Snapshot:
        put_by = self._backend.put_by()
        stored = await self._unseal(record)
        if used is not None and used.keyring != stored.keyring:
            problems = await asyncio.to_thread(undone, used.keyring, stored.keyring)
            if problems:
                raise KeyringRefused(self._refusal(used, stored, problems))
        return Snapshot(stored.keyring, stored.version, put_by, history=stored.history)

    def _refusal(self, used: Snapshot, stored: Unsealed, problems: list[str]) -> str:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        lost = ",".join(missing_roots(used.keyring, stored.keyring))
        recover = f"authz keys recover --lost {lost}" if lost else "authz keys recover"
        return (
            f"{self._backend} holds version {stored.version} of the keyring, which takes back what "
            f"version {used.version}, in use here, has settled: {'; '.join(problems[:_SHOWN])}"
            f"{more}. Was an older copy put in its place? Put the newest one back, or run "
            f"`{recover}`"
        )

    def _lost(self, problem: KeyStoreError) -> KeyStoreError:
        """For who looks at an empty store for the first time, the advice is another one."""
        if not isinstance(problem, NoKeyring):
            return problem
        return NoKeyring(
            f"{self._backend} no longer holds the keyring that is in use here: put its newest copy "
            "back. `authz keys init` would make another, which servers that run do not take"
        )

    def _check_ours(self) -> None:
        how = self._backend.put_by()
        if how is not None:
            raise KeyringReplaced(
                f"{self._backend} holds a copy of the keyring that {how}. It may lack a "
                "revocation, and servers that know of one refuse it. Nothing was changed. Run "
                "`authz keys recover`, which revokes every key that there was; or, if no key was "
                "changed after the copy was made, `authz keys recover --newest`"
            )

    async def _unseal(self, record: bytes) -> Unsealed:
        try:
            # A large keyring takes milliseconds, for which requests must not wait.
            return await asyncio.to_thread(unseal, record, self._keks)
        except KeyStoreError as error:
            raise KeyStoreError(f"{self._backend}: {error}") from None

    async def _write(
        self,
        keyring: Keyring,
        version: int,
        kek: Kek,
        past: "_History",
        *,
        replaces: bytes | None,
    ) -> Snapshot:
        history = past.until if past.note is None else noted(past.until, version, past.note)
        record = await asyncio.to_thread(seal, keyring, version, kek, history)
        await self._backend.write(record, replaces=replaces, rehearse=self._rehearse)
        return Snapshot(keyring, version, history=history)


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
