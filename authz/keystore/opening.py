"""Opens a key store: by its URL, or as settings name it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from authz.domain.names import is_dns_name, parse_namespace
from authz.errors import InvalidName, KeyStoreError, to_install
from authz.keystore.base import KeyStore
from authz.keystore.keks import Kek, Keks, parse_kek, read_kek_file
from authz.keystore.memory import MemoryBackend
from authz.keystore.sealed import Backend, SealedStore
from authz.keystore.sqlite import SqliteBackend


class Configured(Protocol):
    """The settings of a key store, see `authz.config.KeySettings`."""

    @property
    def store(self) -> str:
        """Its URL."""
        ...

    @property
    def kek_files(self) -> Sequence[Path]:
        """Files with key-encryption keys."""
        ...

    @property
    def kek(self) -> SecretStr | None:
        """One such key itself."""
        ...


def configured_store(
    settings: Configured, *, rehearse: bool = False, kek: Kek | None = None
) -> KeyStore:
    """The key store that the settings name, with the KEKs that they name. Reads the KEK files.

    With `rehearse`, nothing is changed in it. `kek` is there in place of the files that are named.

    Raises:
        KeyStoreError: the URL is none, or a KEK cannot be read.
    """
    keks = [read_kek_file(path) for path in settings.kek_files] if kek is None else [kek]
    if settings.kek is not None:
        keks.append(parse_kek(settings.kek.get_secret_value(), source="AUTHZ_KEK"))
    if not keks:
        raise KeyStoreError(
            "kek_files: no key-encryption key is configured: name a file that holds one, or set "
            "AUTHZ_KEK; `authz keys init --generate-kek` makes one"
        )
    return open_store(settings.store, Keks(*keks), rehearse=rehearse)


def open_store(url: str, keks: Keks, *, rehearse: bool = False) -> SealedStore:
    """The store that `url` names. It touches no file yet, and the store may still be empty.

    Args:
        url: `sqlite:<path>`; `kubernetes:<namespace>/<name>` for a Secret, without the namespace
            for one in our own; or `memory:` for a store of this process alone.
        keks: the KEKs that are readable here.
        rehearse: whether changes are only tried, and nothing is written.

    Raises:
        KeyStoreError: the URL is not one of these.
    """
    return SealedStore(_backend(url), keks, rehearse=rehearse)


def _backend(url: str) -> Backend:
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest and not rest.startswith("//"):
        return SqliteBackend(Path(rest))
    if scheme == "kubernetes":
        return _secret(rest)
    if url == "memory:":
        return MemoryBackend()
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
            f"{to_install('kubernetes')}"
        ) from None
    return KubernetesBackend(name, namespace or None)
