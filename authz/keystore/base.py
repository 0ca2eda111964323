"""What every key store offers, whatever it is kept in.

A store holds one keyring. Whoever changes it names the version that the change was made from, so
two who change it at once cannot undo one another: the second is told to look again.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from authz.domain.keys import Keyring
from authz.errors import Conflict, KeyStoreError
from authz.keystore.history import History, Note
from authz.keystore.keks import Kek

IF_EMPTY: Final = (
    "put its newest copy back, or correct the path; if there never was a keyring, run `authz keys "
    "init`. Another keyring would lock out every tenant"
)
"""What to do about a store without a keyring."""

_ATTEMPTS = 20
_LONGEST_PAUSE = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A keyring as it was stored. `version` starts at 1 and grows by one with every change.

    `put_by` says how it got into the store, where it is known that no `KeyStore` put it there: it
    may be an older copy. `clock` is the store's own time when it was read, in seconds since the
    epoch, where the store has a clock that is not this machine's. `history` has the last changes.
    """

    keyring: Keyring
    version: int
    put_by: str | None = field(default=None, compare=False)
    clock: float | None = field(default=None, compare=False)
    history: History = field(default=(), compare=False)


Report = Callable[[KeyStoreError | None], None]
"""Told after each look at a store what was wrong, or `None`: all is well."""


def ignore(_: KeyStoreError | None) -> None:
    """Report nothing to nobody."""


class KeyStore(Protocol):
    """Keeps one keyring. All methods may be called from one event loop, also at the same time."""

    async def load(self) -> Snapshot:
        """Read what is stored now.

        Raises:
            KeyStoreError: there is no keyring yet, or it cannot be read or unsealed.
        """
        ...

    async def compare_and_swap(
        self,
        expected: int | None,
        keyring: Keyring,
        *,
        adopt: bool = False,
        note: Note | None = None,
    ) -> Snapshot:
        """Store `keyring` if version `expected` is stored now; `None` means nothing is.

        When this returns, the change has reached the disk. A call that is cancelled may still
        take effect. `update` is more convenient wherever a change depends on what is stored.
        With `adopt`, what is stored may have been put there by something else. `note` goes into
        the history.

        Raises:
            Conflict: another version is stored; nothing was changed.
            KeyringReplaced: what is stored is a copy that was put there; nothing was changed.
            KeyStoreError: the store cannot be read or written; nothing was changed.
        """
        ...

    async def reseal(self, to: Kek, *, note: Note | None = None) -> Snapshot:
        """Seal the stored keyring under another KEK; the keys in it stay as they are.

        Raises:
            KeyStoreError: as in `compare_and_swap`, or `to` is not readable here.
        """
        ...

    def watch(self, report: Report = ignore) -> AsyncGenerator[Snapshot, None]:
        """Yield what is stored now, then every newer version that is seen; some may be skipped.

        It goes on through every `KeyStoreError`, also where there is no keyring yet, and ends
        when the store is closed. After each look at the store it calls `report` with `None`, which
        means that the newest version was or is about to be yielded, or with what is wrong.

        A keyring that takes back what the last one had settled is something wrong, whatever its
        version (`KeyringRefused`): an older copy, or one that was made of it. See
        `succession.undone`.
        """
        ...

    async def close(self) -> None:
        """Let go of the store and end its watches. Closing it again is harmless."""
        ...


async def update(
    store: KeyStore,
    change: Callable[[Keyring], Keyring],
    *,
    adopt: bool = False,
    note: Callable[[Keyring], Note] | None = None,
) -> Snapshot:
    """Change what is stored; where somebody else was faster, change what they stored.

    Args:
        store: the store to change.
        change: makes the new keyring of the present one. It may be called several times, and what
            it raises is passed on.
        adopt: see `KeyStore.compare_and_swap`.
        note: what is to be noted of the change, given the new keyring.

    Raises:
        Conflict: somebody else was faster 20 times.
        KeyStoreError: the store cannot be read or written; nothing was changed.
    """

    async def attempt() -> Snapshot:
        snapshot = await store.load()
        changed = change(snapshot.keyring)
        return await store.compare_and_swap(
            snapshot.version, changed, adopt=adopt, note=None if note is None else note(changed)
        )

    return await retry(attempt)


async def retry(attempt: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
    """Repeat `attempt` while it ends in a Conflict, at most 20 times."""
    for number in range(1, _ATTEMPTS):
        try:
            return await attempt()
        except Conflict:
            # Random pauses keep many writers from meeting again and again.
            longest = min(0.001 * 2**number, _LONGEST_PAUSE)
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - not a secret
    return await attempt()
