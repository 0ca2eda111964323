"""What comes of a run in a client process: counts, CPU and histograms, as one line of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, Self

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

READY: Final = "ready"
"""What a client process says when it is."""

_LONGEST: Final = 600_000_000  # microseconds
_DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What came of a run, in one process or in all."""

    right: int
    seconds: float
    cpu_seconds: float
    """Of the client."""
    latencies: str
    """Microseconds, as an HdrHistogram in its portable form."""
    lateness: str
    """The same for how late calls of an open loop were begun."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """What went wrong, and how often. What went wrong in the warm-up counts, too."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Undo `to_json`."""
        return cls(**json.loads(text))

    @classmethod
    def together(cls, *outcomes: ClientRun) -> Self:
        """Add up what several processes did at the same time."""
        problems: Counter[str] = Counter()
        for outcome in outcomes:
            problems.update(outcome.problems)
        return cls(
            sum(outcome.right for outcome in outcomes),
            max(outcome.seconds for outcome in outcomes),
            sum(outcome.cpu_seconds for outcome in outcomes),
            added([outcome.latencies for outcome in outcomes]),
            added([outcome.lateness for outcome in outcomes]),
            dict(problems),
        )


def histogram(encoded: str | None = None) -> HdrHistogram:
    """An empty histogram, or one in its portable form."""
    made = HdrHistogram(1, _LONGEST, _DIGITS)
    if encoded is not None:
        made.decode_and_add(encoded)
    return made


def added(parts: Iterable[str]) -> str:
    """The sum of portable histograms."""
    total = histogram()
    for one in parts:
        total.decode_and_add(one)
    return str(total.encode(), "ascii")


def encoded(counts: Mapping[int, int]) -> str:
    """A portable histogram of values, each with its count."""
    made = histogram()
    for microseconds, count in counts.items():
        made.record_value(min(max(microseconds, 1), _LONGEST), count)
    return str(made.encode(), "ascii")
