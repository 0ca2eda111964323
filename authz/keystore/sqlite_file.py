"""One SQLite file with one sealed record: SQL, file modes, and what its errors mean."""

import errno
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from authz.errors import Conflict, KeyStoreError, NoKeyring
from authz.keystore.base import IF_EMPTY
from authz.keystore.mark import Mark

APPLICATION_ID: Final = 0x61757A6B
"""Says in the file's header whose file it is: "auzk"."""

SCHEMA: Final = 1
"""Kept in the file's header as `user_version`."""

_CREATE = f"""
CREATE TABLE keyring (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    record BLOB NOT NULL CHECK (typeof(record) = 'blob')
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
"""

_PERMISSION = (
    "give this user the permission to read and write the file and its directory, and see that the "
    "file system is not mounted read-only"
)
_DAMAGED = "is damaged: move it away and restore a backup"
_REMEDIES = {
    sqlite3.SQLITE_ERROR: _DAMAGED,  # the SQL is right, so the table is not
    sqlite3.SQLITE_NOTADB: "is not a key store: correct the path, or restore a backup",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: make room and try again",
    sqlite3.SQLITE_READONLY: f"cannot be written: {_PERMISSION}",
    sqlite3.SQLITE_CANTOPEN: f"cannot be opened: {_PERMISSION}",
    sqlite3.SQLITE_PERM: f"cannot be opened: {_PERMISSION}",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk, quotas and limits",
    sqlite3.SQLITE_BUSY: "is locked by another process: see which with `fuser`, and try again",
}


class SqliteFile:
    """A file that is opened when it is first needed. All calls must come from one thread.

    Every failure closes the connection, which takes back what was not committed; the next call
    opens the file anew.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self._path = path
        self._patience = patience
        self.was_replaced = False
        """Whether the record that was read last is known not to be what was written last."""
        self._mark = Mark(path)
        self._connection: sqlite3.Connection | None = None
        self._state: tuple[int, int, int] | None = None
        self._data_version: int | None = None
        self._record = b""

    def __str__(self) -> str:
        return f"key store {self._path}"

    def read(self) -> bytes:
        """The record; the same object as before if nothing has changed."""
        with self._explained():
            connection = self._open()
            # Asked for first: a change that comes between is then seen next time.
            data_version = _ask(connection, "PRAGMA data_version")
            if data_version != self._data_version:
                connection.execute("BEGIN")  # nobody commits between the two
                self._record = self._select(connection)
                self.was_replaced = self._mark.fits(self._record) is False
                connection.execute("COMMIT")
                self._data_version = data_version
            return self._record

    def write(self, record: bytes, replaces: bytes | None) -> None:
        """Put `record` in the place of `replaces`; `None` creates the store."""
        with self._explained():
            made = replaces is None and self._make_file()
            connection = self._open()
            self._data_version = None  # it does not tell of our own changes
            self._change(connection, record, replaces, made=made)
            if replaces is not None:
                # If we are killed on the way, either of the two is ours.
                self._mark.put_down(replaces, record)
            connection.execute("COMMIT")
            with suppress(OSError, sqlite3.Error):  # the change is made
                self._put_down(connection, record)

    def rehearse(self, record: bytes, replaces: bytes | None) -> None:
        """Do what `write` does as far as it leaves no trace, and take it back."""
        with self._explained():
            if replaces is not None or os.path.lexists(self._path):
                connection = self._open()
                self._change(connection, record, replaces, made=False)
                connection.execute("ROLLBACK")
            # As for a new store and for the mark; a file without a name leaves no trace.
            with tempfile.TemporaryFile(dir=Path(os.path.realpath(self._path)).parent) as file:
                file.write(record)

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _change(
        self, connection: sqlite3.Connection, record: bytes, replaces: bytes | None, *, made: bool
    ) -> None:
        """The change itself, in a transaction that stays open."""
        connection.execute("BEGIN IMMEDIATE")
        if replaces is None:
            self._create(connection, made=made)
            connection.execute("INSERT INTO keyring VALUES (1, ?)", (record,))
        elif self._select(connection) == replaces:
            connection.execute("UPDATE keyring SET record = ?", (record,))
        else:
            raise Conflict(f"{self} was changed by somebody else: repeat the change")

    def _open(self) -> sqlite3.Connection:
        status = self._path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise KeyStoreError(f"{self} is not a file: correct the path")
        # A copy that was written over the file, and changed as often since, has its data_version.
        state = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if self._connection is not None and state != self._state:
            self.close()  # perhaps another file is in its place
        if self._connection is None:
            self._state, self._data_version = state, None
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=rw",
                uri=True,
                timeout=self._patience,
                isolation_level=None,
            )
            # EXTRA: the end of the journal is on the disk, too, when a change is reported done.
            self._connection.execute("PRAGMA synchronous = EXTRA")
            # What was sealed under an older KEK must not lie about in the file.
            self._connection.execute("PRAGMA secure_delete = ON")
        return self._connection

    def _put_down(self, connection: sqlite3.Connection, record: bytes) -> None:
        """Mark `record` as the only one that is ours, unless another took its place already."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._select(connection) == record:
                self._mark.put_down(record)
        finally:
            connection.execute("ROLLBACK")

    def _select(self, connection: sqlite3.Connection) -> bytes:
        if self._is_empty(connection):
            raise self._empty("holds no keyring")
        row = connection.execute("SELECT record FROM keyring").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise KeyStoreError(f"{self} {_DAMAGED}")
        return row[0]

    def _is_empty(self, connection: sqlite3.Connection) -> bool:
        """Whether nothing was created yet. Raises KeyStoreError where it is not ours to use."""
        # Counted first: a store that is created between the questions is then ours, not foreign.
        tables = _ask(connection, "SELECT count(*) FROM sqlite_master")
        application_id = _ask(connection, "PRAGMA application_id")
        schema = _ask(connection, "PRAGMA user_version")
        if application_id == 0 and tables == 0:
            return True
        if application_id != APPLICATION_ID:
            raise KeyStoreError(f"{self} is the database of another program: correct the path")
        if schema > SCHEMA:
            raise KeyStoreError(
                f"{self} has schema {schema} and this program knows schema {SCHEMA}: "
                "a newer version wrote it, so upgrade this one"
            )
        return False

    def _make_file(self) -> bool:
        """Make the file private before there is anything in it. SQLite copies its mode."""
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:  # perhaps left by a process that was killed right here
            return False
        return True

    def _empty(self, how: str) -> NoKeyring:
        remedy = IF_EMPTY
        if self._mark.exists:
            how, remedy = f"{how}, though one was written into it", "put its newest copy back"
        return NoKeyring(f"{self} {how}: {remedy}")

    def _create(self, connection: sqlite3.Connection, *, made: bool) -> None:
        if not self._is_empty(connection):
            raise Conflict(
                f"{self} holds a keyring already, and a new one would lock out every tenant: "
                "use it, or choose another path"
            )
        if self._mark.exists and not made:
            raise Conflict(
                f"{self} is empty, though a keyring was written into it, and a new one would lock "
                "out every tenant: put its newest copy back, or remove the file to do without"
            )
        for statement in _CREATE.split(";"):  # executescript would commit
            connection.execute(statement)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise KeyStoreError(f"{self} {_remedy(error)}") from None
            if isinstance(error, FileNotFoundError) and self._path.parent.is_dir():
                raise self._empty("does not exist") from None
            if isinstance(error, OSError):
                raise KeyStoreError(f"{self} {self._os_remedy(error)}") from None
            if isinstance(error, UnicodeError):  # SQLite quotes garbage in its message
                raise KeyStoreError(f"{self} {_DAMAGED}") from None
            raise

    def _os_remedy(self, error: OSError) -> str:
        match error:
            case FileNotFoundError():
                return f"cannot be made: there is no directory {self._path.parent}"
            case PermissionError():
                return f"cannot be opened: {_PERMISSION}"
            case OSError(errno=errno.ENOSPC | errno.EDQUOT):
                return _REMEDIES[sqlite3.SQLITE_FULL]
            case _:
                return f"cannot be opened: {error.strerror}"


def _ask(connection: sqlite3.Connection, question: str) -> int:
    answer: int = connection.execute(question).fetchone()[0]
    return answer


def _remedy(error: sqlite3.Error) -> str:
    # The low byte is the kind of the error, the rest its details.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{_REMEDIES.get(code & 0xFF, 'cannot be used')} ({name})"
