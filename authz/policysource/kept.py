"""The last good policy, kept in a file for a restart that finds only a bad one.

It is the text that an operator had in force, with the place that it is from, and nothing else is
ever written. The file's time of modification says when that place was last seen to hold it.
"""

import glob
import json
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from authz.errors import AuthzError, BadPolicy
from authz.policysource.file import MAX_BYTES

_TOUCH_SECONDS: Final = 60
"""So often, at most, the time of modification is brought up to date."""
_AHEAD: Final = 300
"""Seconds that a file may be from the future: clocks are set."""
_WRITTEN: Final = 600
"""Seconds after which a file beside it that is not finished will never be."""
_MOST: Final = 6 * MAX_BYTES + 4096
"""Bytes of the file: JSON may take six for one."""


class Kept(NamedTuple):
    """A policy's text, and when it was last seen in force, in seconds since the epoch."""

    text: str
    seen: float


class NotKept(AuthzError):
    """The policy in force is not in the file; with `older`, one that was replaced still is."""

    def __init__(self, file: Path, error: OSError, *, older: bool) -> None:
        told = f"policy_kept_file: {file}: {error.strerror}"
        if older:
            told += (
                ". An older policy is still in it, which a restart uses where it finds only a bad "
                "one: make the file writable or remove it; in a cluster, delete the pod"
            )
        super().__init__(told)
        self.older = older


class KeptPolicy:
    """The file, for the policy of one `origin`.

    `most_seconds` is the age above which it is not used; `clock` is in seconds since the epoch.
    """

    def __init__(
        self, file: Path, *, origin: str, most_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._file = file
        self._origin = origin
        self._most_seconds = most_seconds
        self._clock = clock
        self._touched: float | None = None
        """When it was last brought up to date; `None` while it may hold another policy."""

    def keep(self, text: str) -> None:
        """Keep this text, which is in force from now on.

        Raises:
            NotKept: it cannot be written. What was kept before is taken away, if that can be.
        """
        self._touched = None
        now = self._clock()
        content = json.dumps({"origin": self._origin, "policy": text}).encode()
        try:
            self._write(content, now)
        except OSError as error:
            with suppress(OSError):
                self._file.unlink()  # it is older than what is in force
            raise NotKept(self._file, error, older=self._holds_another(text)) from None
        self._touched = now

    def seen(self) -> None:
        """The origin holds, as of now, what is kept."""
        now = self._clock()
        if self._touched is not None and abs(now - self._touched) >= _TOUCH_SECONDS:
            self._touched = now
            with suppress(OSError):  # it is then older than it could be
                os.utime(self._file, (now, now))

    def last(self) -> Kept:
        """What was kept.

        Raises:
            BadPolicy: nothing was, it is too old, of another origin, or may be somebody else's.
        """
        try:
            content, status = self._read()
        except OSError as error:
            raise self._unusable(str(error.strerror)) from None
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise self._unusable("it is not a file of ours")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self._unusable("others may write it")
        age = self._clock() - status.st_mtime
        if not -_AHEAD <= age <= self._most_seconds:
            raise self._unusable(
                f"it was last in force {age:.0f} s ago, and policy_kept_seconds is "
                f"{self._most_seconds:.0f}"
            )
        try:
            kept = json.loads(content)
            origin, text = kept["origin"], kept["policy"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._unusable("it holds something else") from None
        if origin != self._origin or not isinstance(text, str):
            raise self._unusable("it is from another policy_file or policy_configmap")
        return Kept(text, status.st_mtime)

    def _holds_another(self, text: str) -> bool:
        try:
            return self.last().text != text
        except BadPolicy:
            return False

    def _write(self, content: bytes, now: float) -> None:
        prefix = f".{self._file.name}-"
        self._tidy(prefix)
        handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=prefix)  # mode 0600
        fresh = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.utime(fresh, (now, now))
                os.fsync(handle)
            fresh.replace(self._file)
            self._sync_folder()
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise

    def _tidy(self, prefix: str) -> None:
        """Remove what processes left that were killed as they wrote; others may be writing now."""
        for left in self._file.parent.glob(f"{glob.escape(prefix)}*"):
            with suppress(OSError):
                if abs(self._clock() - left.stat().st_mtime) > _WRITTEN:
                    left.unlink()

    def _sync_folder(self) -> None:
        """Else an older policy could be there again after the power was lost."""
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self) -> tuple[bytes, os.stat_result]:
        handle = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            return (file.read(_MOST) if stat.S_ISREG(status.st_mode) else b""), status

    def _unusable(self, why: str) -> BadPolicy:
        return BadPolicy([f"policy_kept_file: {self._file}: {why}"])
