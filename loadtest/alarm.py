"""A timer to the microsecond, for loops whose own timers count milliseconds: timerfd_create(2).

Without it an open loop would have to spin, and take the CPU of what it measures.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from time import CLOCK_MONOTONIC
from typing import Final

_SECOND: Final = 1_000_000_000
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    """`struct itimerspec`: an interval, then a first time; each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Alarm:
    """Calls back once after each `set`, until it is closed."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._descriptor: int = _libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        asyncio.get_running_loop().add_reader(self._descriptor, self._rang)

    def set(self, nanoseconds: int) -> None:
        """Call back after so long."""
        seconds, rest = divmod(max(nanoseconds, 1), _SECOND)
        if _libc.timerfd_settime(
            self._descriptor, 0, ctypes.byref(_Times(0, 0, seconds, rest)), None
        ):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Call back no more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _rang(self) -> None:
        os.read(self._descriptor, 8)
        self._callback()
