"""What is run, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.client_run import ClientRun
from loadtest.compare.variants import Variant
from loadtest.plan import MAX_SECONDS, BadPlan

OPEN_CONNECTIONS: Final = 64
"""Of an open loop: enough that a request hardly ever waits for one."""


@dataclass(frozen=True, slots=True)
class Point:
    """A load: a closed loop on so many connections or, with a rate, an open one."""

    connections: int
    rate: float = 0

    def __str__(self) -> str:
        plural = "" if self.connections == 1 else "s"
        return f"{self.rate:g}/s" if self.rate else f"{self.connections} connection{plural}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is run. Seconds are of each of its many runs."""

    connections: Sequence[int] = (1, 8, 32)
    rates: Sequence[float] = (200, 500, 1000)
    repeat: int = 3
    seconds: float = 0.5
    warmup: float = 0.1
    processes: int = 1

    def __post_init__(self) -> None:
        def check(name: str, values: Iterable[float], least: float, most: float) -> None:
            for value in values:
                if not least <= value <= most:
                    raise BadPlan(f"{name}: {value:g} is not between {least:g} and {most:g}")

        check("connections", self.connections, 1, 1000)
        check("rate", self.rates, 1, 1_000_000)
        check("repeat", [self.repeat], 1, 100)
        check("seconds", [self.seconds], 0.05, MAX_SECONDS)
        check("warmup", [self.warmup], 0.01, MAX_SECONDS)
        check("processes", [self.processes], 1, 16)
        if not self.points:
            raise BadPlan("connections, rate: give at least one")

    @property
    def points(self) -> list[Point]:
        """The loads."""
        closed = [Point(each) for each in self.connections]
        return [*closed, *(Point(OPEN_CONNECTIONS, rate) for rate in self.rates)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a variant at a load. CPU in seconds."""

    variant: str
    point: Point
    outcome: ClientRun
    client_envoy: float
    server_envoy: float
    authz: float | None
    """Of the service that was asked; `None` where there is none, or it is not known."""
    client_busy: float
    """How busy the client processes were, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs, and with what they were made."""

    schedule: Schedule
    variants: Sequence[Variant]
    envoy: str
    samples: list[Sample] = field(default_factory=list)
