"""A comparison as JSON, and a view of it from which tables and plots are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any, Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from loadtest.client_run import histogram
from loadtest.compare.schedule import OPEN_CONNECTIONS, Comparison, Point, Sample
from loadtest.result import BUSY, PERCENTILES, Spread
from loadtest.stored import Result

KIND: Final = "compare"
_KEPT_UP: Final = 0.95
BUSY_BEFORE: Final = 0.5
"""Load for each CPU before anything is measured: from here on other work shows."""
PARTS: Final = {
    "client_envoy_us": "client's Envoy",
    "server_envoy_us": "server's Envoy",
    "authz_us": "service asked",
}
"""Whose CPU a request takes."""


def figures(sample: Sample) -> dict[str, float]:
    """A run in numbers: microseconds and per second."""
    latencies, right = histogram(sample.outcome.latencies), sample.outcome.right or 1
    each = {"client_envoy_us": sample.client_envoy, "server_envoy_us": sample.server_envoy}
    if sample.authz is not None:
        each["authz_us"] = sample.authz
    named = {
        "requests_per_second": sample.outcome.right / sample.outcome.seconds,
        **{
            f"{name}_us": float(latencies.get_value_at_percentile(at))
            for name, at in PERCENTILES.items()
        },
        **{name: seconds / right * 1e6 for name, seconds in each.items()},
        "client_busy": sample.client_busy,
    }
    if sample.point.rate:
        late = histogram(sample.outcome.lateness).get_value_at_percentile(99.0)
        named["client_late_p99_us"] = float(late)
    return named


def report(done: Comparison, machine: Mapping[str, Any], command: str) -> dict[str, Any]:
    """All of it; `machine` as it was before."""
    results = []
    for variant in done.variants:
        for point in done.schedule.points:
            samples = [s for s in done.samples if (s.variant, s.point) == (variant.name, point)]
            problems: Counter[str] = Counter()
            for sample in samples:
                problems.update(sample.outcome.problems)
            made = Result.of(name_of(variant.name, str(point)), [*map(figures, samples)])
            results.append(
                {
                    **asdict(made),
                    "requests": sum(sample.outcome.right for sample in samples),
                    "problems": dict(problems),
                    "latencies": [sample.outcome.latencies for sample in samples],
                }
            )
    return {
        "kind": KIND,
        "command": command,
        "machine": machine,
        "envoy": done.envoy,
        "schedule": asdict(done.schedule),
        "variants": [{"name": each.name, "note": each.note} for each in done.variants],
        "results": results,
    }


def name_of(variant: str, point: str) -> str:
    """How a result is called."""
    return f"{variant}, {point}"


@dataclass(frozen=True)
class View:
    """A report, read."""

    report: Mapping[str, Any]

    @cached_property
    def _results(self) -> dict[str, Mapping[str, Any]]:
        return {each["name"]: each for each in self.report["results"]}

    @cached_property
    def variants(self) -> list[str]:
        """By name."""
        return [each["name"] for each in self.report["variants"]]

    @cached_property
    def closed(self) -> list[Point]:
        """Closed loops, fewest connections first."""
        return [Point(each) for each in sorted(self.report["schedule"]["connections"])]

    @cached_property
    def open(self) -> list[Point]:
        """Open loops, slowest first."""
        return [Point(OPEN_CONNECTIONS, each) for each in sorted(self.report["schedule"]["rates"])]

    @cached_property
    def common(self) -> Point:
        """The fastest fixed rate that every variant kept up with, or else what is nearest to it."""
        kept = [
            point
            for point in self.open
            if all(
                self.spread(variant, point, "requests_per_second").median >= point.rate * _KEPT_UP
                for variant in self.variants
            )
        ]
        return (kept[-1:] or self.open[:1] or self.closed[:1])[0]

    def has(self, variant: str, point: Point, figure: str) -> bool:
        """Whether this was measured."""
        return figure in self._results[name_of(variant, str(point))]["figures"]

    def spread(self, variant: str, point: Point, figure: str) -> Spread:
        """A figure over the repeats."""
        return Spread.of(self._results[name_of(variant, str(point))]["figures"][figure])

    def percentiles(self, variant: str, point: Point, at: Sequence[float]) -> list[float]:
        """Latencies in microseconds: of each percentile the median of the repeats."""
        repeats = self._results[name_of(variant, str(point))]["latencies"]
        found: list[HdrHistogram] = [histogram(each) for each in repeats]
        return [median(float(it.get_value_at_percentile(each)) for it in found) for each in at]

    def problems(self) -> list[str]:
        """What went wrong."""
        return [
            f"{name}: {count} x {problem}"
            for name, each in self._results.items()
            for problem, count in each["problems"].items()
        ]

    def busiest_client(self) -> float:
        """How busy the client processes were in the worst run, from 0 to 1."""
        return max(float(max(each["figures"]["client_busy"])) for each in self._results.values())

    def warnings(self) -> list[str]:
        """Why the figures may be the machine's rather than the variants'."""
        here, found = self.report["machine"], []
        if here["load"] > here["cpus"] * BUSY_BEFORE:
            found.append(
                f"The machine was busy before the first run: a load of {here['load']:.1f} on "
                f"{here['cpus']} CPUs. Compare variants with each other, not figures with those of "
                "another day."
            )
        if self.busiest_client() > BUSY:
            found.append(
                f"The clients were the bottleneck at times, {self.busiest_client():.0%} busy: give "
                "more --processes."
            )
        return found

    def facts(self) -> Sequence[tuple[str, str]]:
        """Where and with what it was measured."""
        here, schedule = self.report["machine"], self.report["schedule"]
        packages = ", ".join(f"{name} {version}" for name, version in here["packages"].items())
        return [
            ("date", here["date"]),
            ("machine", f"{here['cpus']} x {here['cpu']}, Linux {here['kernel']}"),
            ("load before", f"{here['load']:.1f}"),
            ("versions", f"Envoy {self.report['envoy']}, Python {here['python']}, {packages}"),
            ("runs", f"{schedule['repeat']} of {schedule['seconds']:g} s each, interleaved"),
            (
                "clients",
                f"{schedule['processes']} process, at most {self.busiest_client():.0%} busy",
            ),
            ("command", self.report["command"]),
        ]
