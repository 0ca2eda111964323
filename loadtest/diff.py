"""Two stored results compared, and what of their difference is more than noise.

Noise is the spread of the repeats. A difference counts where the ranges of the repeats do not
overlap and the medians are further apart than the wider range; with fewer than three repeats on
either side nothing can be told. It is a rule of thumb: of pairs of three repeats of the very same
thing, about one in twenty looks different, of pairs of five one in six hundred. What changed on the
machine between the two results is not in the spread.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from loadtest.result import Spread
from loadtest.stored import results

LEAST_REPEATS: Final = 3
_NOT_COMPARED: Final = frozenset(
    {"client_busy", "client_late_p99_us", "max_us", "cpu_user_us"}  # of the clients, or chance
)


class Significance(enum.StrEnum):
    """What a difference is worth."""

    DIFFERENT = "different"
    NOISE = "no difference beyond noise"
    UNKNOWN = "too few repeats to tell"


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure in both results."""

    name: str
    figure: str
    before: Spread
    after: Spread
    verdict: Significance

    @property
    def change(self) -> float:
        """Of the median, as a share of what it was."""
        return self.after.median / self.before.median - 1 if self.before.median else 0.0


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """All figures that both reports have."""
    return [*_differences(before, after)]


def warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else is not the same in both."""
    was, now = before["machine"], after["machine"]
    told = [
        f"{name}: {was.get(name)} before, {now.get(name)} after"
        for name in ("cpu", "cpus", "kernel", "python")
        if was.get(name) != now.get(name)
    ]
    there, here = results(before).keys(), results(after).keys()
    told += [f"only before: {name}" for name in sorted(there - here)]
    told += [f"only after: {name}" for name in sorted(here - there)]
    return told


def judge(before: list[float], after: list[float]) -> Significance:
    """Whether two sets of repeats differ by more than noise."""
    if min(len(before), len(after)) < LEAST_REPEATS:
        return Significance.UNKNOWN
    apart = min(after) > max(before) or min(before) > max(after)
    noise = max(max(values) - min(values) for values in (before, after))
    far = abs(median(after) - median(before)) > noise
    return Significance.DIFFERENT if apart and far else Significance.NOISE


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    was, now = results(before), results(after)
    for name in was:
        if name not in now:
            continue
        for figure, values in was[name].figures.items():
            if figure in _NOT_COMPARED or figure not in now[name].figures:
                continue
            first, second = [*values], [*now[name].figures[figure]]
            yield Difference(
                name, figure, Spread.of(first), Spread.of(second), judge(first, second)
            )
