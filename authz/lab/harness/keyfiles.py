"""A key store in a directory, as one server or several use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from authz.domain import rotation
from authz.domain.keys import Keyring
from authz.keystore import Keks, SealedStore, generate_kek_file, open_store, read_kek_file, update


class KeyFiles:
    """An SQLite file, and the file with the key-encryption key that seals it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = f"sqlite:{directory / 'keys.db'}"
        self.kek_file = directory / "kek"

    @property
    def key_settings(self) -> dict[str, str]:
        """The settings of a server that uses them."""
        return {"store": self.store, "kek_files": str(self.kek_file)}

    def opened(self) -> SealedStore:
        """The store; close it."""
        return open_store(self.store, Keks(read_kek_file(self.kek_file)))

    async def make_keys(self, now: float | None = None) -> Keyring:
        """Make the store, and the key-encryption key unless its file is there.

        Args:
            now: when the keys are made, in seconds since the epoch; by default now.
        """
        if not self.kek_file.exists():
            generate_kek_file(self.kek_file)
        keyring = rotation.create(time.time() if now is None else now)  # noqa: TID251
        store = self.opened()
        try:
            await store.compare_and_swap(None, keyring)
        finally:
            await store.close()
        return keyring

    async def keyring(self) -> Keyring:
        """What the store holds now."""
        store = self.opened()
        try:
            return (await store.load()).keyring
        finally:
            await store.close()

    async def change_keys(self, change: Callable[[Keyring], Keyring]) -> None:
        """Change it under running servers, as an operator would."""
        store = self.opened()
        try:
            await update(store, change)
        finally:
            await store.close()
