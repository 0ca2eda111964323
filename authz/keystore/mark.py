"""Remembers beside a file which record was written into it last.

A file cannot tell that an older copy took its place; what stays beside it can. It holds no secret
and is not part of the store: without it, nothing is known.
"""

import os
import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

_digests = re.compile(rb"([0-9a-f]{64}\n){1,2}")
_LONGEST = 1024


class Mark:
    """Keeps digests of records in `<path>.mark`, next to the file that `path` leads to."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{os.path.realpath(path)}.mark")

    @property
    def exists(self) -> bool:
        """Whether a record was ever written."""
        return self._path.is_file()

    def fits(self, record: bytes) -> bool | None:
        """Whether `record` is one of those that were put down; `None` if that cannot be told."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_LONGEST)
        except OSError:
            return None
        return _digest(record) in content if _digests.fullmatch(content) else None

    def put_down(self, *records: bytes) -> None:
        """From now on, one of these records is what was written last. Reaches the disk.

        Raises:
            OSError: it cannot be written; what was put down before still is.
        """
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with open(fresh, "wb", opener=_private) as file:
                file.writelines(map(_digest, records))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise
        sync_directory(self._path.parent)


def sync_directory(path: Path) -> None:
    """See that names that were made or changed in a directory are on the disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _digest(record: bytes) -> bytes:
    return f"{sha256(record).hexdigest()}\n".encode()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
