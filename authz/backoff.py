"""How long to wait before what failed is tried again."""

from collections.abc import Callable
from typing import Final

LEAST: Final = 0.1
MOST: Final = 15.0
WELL: Final = 10.0
"""Seconds. What went well for so long was well: what ended it is news."""


class Backoff:
    """Waits twice as long from one failure to the next.

    `uniform` draws a number between two: what broke many at once should not meet them all again.
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._next = LEAST

    def after(self, well: float) -> float:
        """Seconds to wait, after something that went well for this many."""
        if well >= WELL:
            self._next = LEAST
        wait, self._next = self._next, min(self._next * 2, MOST)
        return self._uniform(wait / 2, wait)
