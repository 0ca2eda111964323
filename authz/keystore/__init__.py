"""Where the keyring is kept: sealed, versioned, shared, watched."""

from pathlib import Path

from authz.domain.names import is_dns_name, parse_namespace
from authz.errors import InvalidName, KeyStoreError
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
        url: `sqlite:<path>`; `kubernetes:<namespace>/<name>` for a Secret, without the namespace
            for one in our own; or `memory:` for a store of this process alone.
        keks: the KEKs that are readable here.

    Raises:
        KeyStoreError: the URL is not one of these.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest and not rest.startswith("//"):
        return SealedStore(SqliteBackend(Path(rest)), keks)
    if scheme == "kubernetes":
        return SealedStore(_secret(rest), keks)
    if url == "memory:":
        return SealedStore(MemoryBackend(), keks)
    raise KeyStoreError(
        f"{url!r} is not a key store: write sqlite:/path/to/keys.db, kubernetes:NAMESPACE/NAME or "
        "memory:"
    )


def _secret(place: str) -> Backend:
    namespace, slash, name = place.rpartition("/")
    wrong = f"'kubernetes:{place}' is not a key store, write kubernetes:NAMESPACE/NAME"
    if not is_dns_name(name):
        raise KeyStoreError(f"{wrong}: {name!r} is not the name of a Secret")
    try:
        if slash:
            parse_namespace(namespace)
    except InvalidName as error:
        raise KeyStoreError(f"{wrong}: {error}") from None
    try:
        from authz.keystore.kubernetes import KubernetesBackend  # noqa: PLC0415 - 0.1 s, 6 MiB
    except ImportError as error:
        raise KeyStoreError(
            f"the key store kubernetes:{place} needs more packages, {error.name} is missing: "
            "pip install 'tenant-authz[kubernetes]'"
        ) from None
    return KubernetesBackend(name, namespace or None)
