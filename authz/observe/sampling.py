"""Which allows are shown in the log: each with the same chance, whatever came before."""

from collections.abc import Callable
from math import log1p
from typing import Final

_MOST: Final = 1 << 40  # of allows that are passed over in a row


class Sampler:
    """Chooses the given share of what it is asked about, from above 0 to 1.

    Chance is asked once for each that is chosen, not for each: how many are passed over until then
    has a geometric distribution. `random` gives a number from 0 to below 1.
    """

    def __init__(self, share: float, random: Callable[[], float]) -> None:
        self._share = share
        self._random = random
        self._left = self._draw()

    def __call__(self) -> bool:
        """Whether this one is chosen."""
        if self._left:
            self._left -= 1
            return False
        self._left = self._draw()
        return True

    def _draw(self) -> int:
        if self._share >= 1:
            return 0
        passed_over = log1p(-self._random()) / log1p(-self._share)
        return int(min(passed_over, _MOST))
