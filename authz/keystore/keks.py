"""Key-encryption keys: what a key store is sealed under. They are kept apart from the store."""

import base64
import binascii
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Self

from authz.errors import KeyStoreError
from authz.keystore.mark import sync_directory

KEK_BYTES: Final = 32

_ID_LABEL = b"tenant-authz KEK id v1\0"
_LONGEST_FILE = 1024
_MAKE_ONE = "make one with `openssl rand -base64 32`"


@dataclass(frozen=True, slots=True)
class Kek:
    """A 256-bit key-encryption key. Its repr shows only the id, 8 hexadecimal digits of a digest.

    Raises:
        ValueError: the secret is not 32 bytes long.
    """

    secret: bytes = field(repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEK_BYTES:
            raise ValueError(f"a KEK has {KEK_BYTES} bytes, not {len(self.secret)}")
        object.__setattr__(self, "id", sha256(_ID_LABEL + self.secret).hexdigest()[:8])

    @classmethod
    def generate(cls) -> Self:
        """Make a random one."""
        return cls(secrets.token_bytes(KEK_BYTES))


class Keks:
    """The KEKs that can be used here: a set, in which none comes first.

    A store stays sealed under the KEK that it is sealed under; only creating and resealing choose.

    Raises:
        KeyStoreError: there is none.
    """

    def __init__(self, *keks: Kek) -> None:
        if not keks:
            raise KeyStoreError(f"no KEK is configured: {_MAKE_ONE} and configure it")
        self._by_id = {kek.id: kek for kek in keks}

    def __repr__(self) -> str:
        return f"Keks({self})"

    def __str__(self) -> str:
        return ", ".join(sorted(self._by_id))

    def __contains__(self, kek: Kek) -> bool:
        return self._by_id.get(kek.id) == kek

    def find(self, kek_id: str) -> Kek | None:
        """The KEK with this id, or `None`."""
        return self._by_id.get(kek_id)

    def only(self) -> Kek:
        """The KEK, where there is just one.

        Raises:
            KeyStoreError: there are several.
        """
        if len(self._by_id) > 1:
            raise KeyStoreError(
                f"a new key store is sealed under one KEK, but {len(self._by_id)} are configured "
                f"({self}): name the one to use"
            )
        return next(iter(self._by_id.values()))


def parse_kek(text: str, *, source: str) -> Kek:
    """Read a KEK in base64; spaces and line ends around it do not count.

    Args:
        text: the KEK, as a file or an environment variable holds it.
        source: where it was found, for the error: such as "environment variable NAME".

    Raises:
        KeyStoreError: it is not 32 bytes in base64. The error does not quote it.
    """
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEK_BYTES:
        raise KeyStoreError(
            f"{source} does not hold a KEK, which is one line with {KEK_BYTES} bytes in base64: "
            f"{_MAKE_ONE}"
        )
    return Kek(secret)


def read_kek_file(path: Path) -> Kek:
    """Read a KEK from a file that others cannot read.

    As with PostgreSQL's private keys, the file may have mode 0600 or less, or, where it belongs
    to root, 0640 or less. Kubernetes mounts a Secret that way with `defaultMode: 0440` and an
    `fsGroup`.

    Raises:
        KeyStoreError: the file cannot be read, others can read it, or it does not hold a KEK.
    """
    try:
        # Nobody may ever write into a pipe, and opening one would wait for that.
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyStoreError(f"KEK file {path} is not a regular file: name one that is")
            content = file.read(_LONGEST_FILE + 1)
    except FileNotFoundError:
        raise KeyStoreError(f"KEK file {path} does not exist: {_MAKE_ONE}, mode 0600") from None
    except OSError as error:
        raise KeyStoreError(f"KEK file {path} cannot be read: {error.strerror}") from None
    mode, most = stat.S_IMODE(status.st_mode), 0o640 if status.st_uid == 0 else 0o600
    if mode & 0o777 & ~most:
        raise KeyStoreError(
            f"KEK file {path} has mode {mode:04o}, so that others can use it: set {most:04o} or "
            "less; where Kubernetes mounts it, set `defaultMode: 0440` and an `fsGroup`"
        )
    return parse_kek(content.decode("ascii", "replace"), source=f"KEK file {path}")


def generate_kek_file(path: Path, *, rehearse: bool = False) -> Kek:
    """Make a random KEK and write it to a new file with mode 0600.

    With `rehearse`, find out whether it could be written, and leave no file.

    Raises:
        KeyStoreError: the file exists already or cannot be written.
    """
    kek = Kek.generate()
    taken = f"{path} exists already and may hold a KEK in use: choose another path"
    if os.path.lexists(path):
        raise KeyStoreError(taken)
    try:
        if rehearse:
            tempfile.TemporaryFile(dir=path.parent).close()
            return kek
        with open(path, "xb", opener=_private) as file:
            _write_durably(file, base64.b64encode(kek.secret) + b"\n")
    except FileExistsError:
        raise KeyStoreError(taken) from None
    except OSError as error:
        raise KeyStoreError(f"KEK file {path} cannot be written: {error.strerror}") from None
    return kek


def _write_durably(file: BinaryIO, content: bytes) -> None:
    """Write a new file, or remove it: a part of it would be in the way of the next attempt."""
    try:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        # A store must not outlive its KEK, so the file's name has to be on the disk, too.
        sync_directory(Path(file.name).parent)
    except BaseException:
        Path(file.name).unlink()
        raise


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
