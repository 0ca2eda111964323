"""Standard streams that fail: full disks, readers that have gone, closed ones, old locales."""

import errno
import io
import os
import sys
from typing import Any, Final

_STREAMS: Final = ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY))


class Unwritable(Exception):
    """Standard output does not take what is written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.reader_left = error.errno == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise Unwritable(error) from None


class _Errors(io.FileIO):
    """Where errors cannot be told, the exit code still says that there was one."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def guard() -> None:
    """Make of the process's own streams ones that raise nothing but `Unwritable`.

    What the locale cannot write is written as an escape.
    """
    _hold_places()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout, buffered=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr, buffered=False)


def let_go() -> None:
    """Write what is held back, now, while somebody can be told that it does not work.

    Raises:
        Unwritable: it does not. What is written from now on is gone.
    """
    try:
        sys.stdout.flush()
    except Unwritable:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise


def _text(raw: io.FileIO, before: Any, *, buffered: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    at_once = not buffered or raw.isatty() or getattr(before, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=at_once,
        write_through=at_once,
    )


def _hold_places() -> None:
    """Open what is closed: else the next file, such as a key store, would be standard output."""
    for number, flags in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free
