"""Figures of runs: medians and spread of repeats, for people and as JSON."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtest.bench import Measured
from loadtest.client_run import histogram

BUSY: Final = 0.9
"""Clients that are busier than that may be what was measured."""
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

_MIB: Final = 1 << 20
_PACKAGES: Final = ("tenant-authz", "grpcio", "protobuf", "uvloop", "cryptography")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.least == self.most:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.most)})"


def figures(run: Measured) -> dict[str, float]:
    """A run in numbers: microseconds, MiB, per second."""
    latencies = histogram(run.outcome.latencies)
    ticks = run.cpu.user + run.cpu.system
    named = {
        "checks_per_second": run.rate,
        "cpu_us": run.cpu_us,
        "cpu_user_us": run.cpu_us * (run.cpu.user / ticks if ticks else 1.0),
        **{
            f"{name}_us": float(latencies.get_value_at_percentile(at))
            for name, at in PERCENTILES.items()
        },
        "rss_mib": run.resident_after / _MIB,
        "client_busy": run.client_busy,
    }
    if run.plan.rate:
        late = histogram(run.outcome.lateness).get_value_at_percentile(99.0)
        named["client_late_p99_us"] = float(late)
    return named


def spreads(runs: Sequence[Measured]) -> dict[str, Spread]:
    """Repeats of a run in numbers."""
    each = [figures(run) for run in runs]
    return {name: Spread.of([one[name] for one in each]) for name in each[0]}


def stored(run: Measured) -> dict[str, Any]:
    """A run as JSON, with its histograms, so that it can be compared later."""
    return {
        "transport": run.transport,
        "workers": run.workers,
        "plan": asdict(run.plan),
        "checks": run.checks,
        "seconds": run.outcome.seconds,
        "problems": dict(run.problems),
        "figures": figures(run),
        "rss_mib": {
            "before": run.resident_before / _MIB,
            "warm": run.resident_warm / _MIB,
            "after": run.resident_after / _MIB,
        },
        "latencies": run.outcome.latencies,
    }


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),  # noqa: TID251 - for people
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
