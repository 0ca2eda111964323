"""A key store that stays as it is: whether a change would be taken, and what comes of it."""

from collections.abc import AsyncGenerator

from authz.errors import Conflict, KeyStoreError, NoKeyring
from authz.keystore.sealed import Backend


class Rehearsal:
    """Reads from another backend, and writes nothing to it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __str__(self) -> str:
        return str(self._backend)

    async def read(self) -> bytes:
        """See `Backend.read`."""
        return await self._backend.read()

    def put_by(self) -> str | None:
        """See `Backend.put_by`."""
        return self._backend.put_by()

    def clock(self) -> float | None:
        """See `Backend.clock`."""
        return self._backend.clock()

    async def write(self, record: bytes, *, replaces: bytes | None) -> None:
        """Raise what `Backend.write` would, as far as reading tells, and write nothing."""
        del record
        try:
            stored = await self._backend.read()
        except NoKeyring:
            if replaces is None:
                return
            raise
        if replaces is None:
            raise Conflict(
                f"{self} holds a keyring already, and a new one would lock out every tenant: use "
                "it, or choose another place"
            )
        if stored != replaces:
            raise Conflict(f"{self} was changed by somebody else: repeat the change")

    def looks(self) -> AsyncGenerator[bytes | KeyStoreError, None]:
        """See `Backend.looks`."""
        return self._backend.looks()

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._backend.close()
