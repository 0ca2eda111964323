"""Where the keyring is kept: sealed, versioned, shared, watched."""

from authz.keystore.base import KeyStore, Report, Snapshot, update
from authz.keystore.history import Change, History, Note, checked_reason
from authz.keystore.keks import Kek, Keks, generate_kek_file, parse_kek, read_kek_file
from authz.keystore.memory import MemoryBackend
from authz.keystore.opening import configured_store, open_store
from authz.keystore.sealed import Backend, SealedStore
from authz.keystore.sqlite import SqliteBackend

__all__ = [
    "Backend",
    "Change",
    "History",
    "Kek",
    "Keks",
    "KeyStore",
    "MemoryBackend",
    "Note",
    "Report",
    "SealedStore",
    "Snapshot",
    "SqliteBackend",
    "checked_reason",
    "configured_store",
    "generate_kek_file",
    "open_store",
    "parse_kek",
    "read_kek_file",
    "update",
]
