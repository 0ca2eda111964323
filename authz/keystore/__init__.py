"""Where the keyring is kept: sealed, versioned, shared, watched."""

from pathlib import Path

from authz.errors import KeyStoreError
from authz.keystore.base import KeyStore, Report, Snapshot, update
from authz.keystore.keks import Kek, Keks, generate_kek_file, parse_kek, read_kek_file
from authz.keystore.memory import MemoryBackend
from authz.keystore.sealed import Backend, SealedStore
from authz.keystore.sqlite import SqliteBackend

__all__ = [
    "Backend",
    "Kek",
    "Keks",
    "KeyStore",
    "MemoryBackend",
    "Report",
    "SealedStore",
    "Snapshot",
    "SqliteBackend",
    "generate_kek_file",
    "open_store",
    "parse_kek",
    "read_kek_file",
    "update",
]


def open_store(url: str, keks: Keks) -> SealedStore:
    """The store that `url` names. It touches no file yet, and the store may still be empty.

    Args:
        url: `sqlite:<path>`, or `memory:` for a store of this process alone.
        keks: the KEKs that are readable here.

    Raises:
        KeyStoreError: the URL is not one of these.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest and not rest.startswith("//"):
        return SealedStore(SqliteBackend(Path(rest)), keks)
    if url == "memory:":
        return SealedStore(MemoryBackend(), keks)
    raise KeyStoreError(f"{url!r} is not a key store: write sqlite:/path/to/keys.db or memory:")
