"""How long Checks take: from the bytes that were read to the answer that is written.

Many Checks come and go in one turn of a connection, and all of them wait for its end. So a turn is
measured, once, and counts for each of its Checks: that takes 0.21 us a turn, clocks included, and
0.01 us for each further Check in it (two shared cores, CPython 3.11).
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client.core import HistogramMetricFamily

BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    inf,
)
"""Upper ends of the buckets, in seconds."""
NAME: Final = "authz_check_duration_seconds"


class Latency:
    """Counts durations. What was counted in one process can be added to what was in another."""

    def __init__(self) -> None:
        self._counts = [0] * len(BOUNDS)
        self._sum = 0.0
        self._exported = [0] * len(BOUNDS), 0.0

    def took(self, seconds: float, checks: int) -> None:
        """So many Checks took so long, each."""
        self._counts[bisect_left(BOUNDS, seconds)] += checks
        self._sum += seconds * checks

    def changes(self) -> tuple[list[int], float]:
        """What was counted since the last time."""
        counts, total = self._exported
        self._exported = self._counts.copy(), self._sum
        pairs = zip(self._counts, counts, strict=True)
        return [now - before for now, before in pairs], self._sum - total

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add what another has given out."""
        self._counts = [own + more for own, more in zip(self._counts, counts, strict=True)]
        self._sum += total

    def family(self) -> HistogramMetricFamily:
        """What is exported. May be called from any thread."""
        names = ("+Inf" if bound == inf else str(bound) for bound in BOUNDS)
        return HistogramMetricFamily(
            NAME,
            "How long Checks took, from reading them to writing the answer, waiting for their turn "
            "included; the network and Envoy are not.",
            buckets=list(zip(names, accumulate(self._counts), strict=True)),
            sum_value=self._sum,
        )
