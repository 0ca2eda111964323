"""Whether a run was good: what Locust's statistics say, against what may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from locust.stats import RequestStats, StatsEntry

from loadtest.swarm.expect import UNSIGNED


@dataclass(frozen=True)
class Result:
    """Numbers of a run."""

    requests: int
    failed: int
    wrong: int
    either: int
    unsigned: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, stats: RequestStats) -> Result:
        """What the statistics say."""
        entries = list(stats.entries.values())
        mix = StatsEntry(stats, "", "")
        for entry in entries:
            if entry.method in {"HTTP", "CHECK", "WINDOW"}:
                mix.extend(entry)
        return cls(
            requests=mix.num_requests,
            failed=mix.num_failures,
            wrong=_requests(entries, "WRONG"),
            either=_requests(entries, "WINDOW"),
            unsigned=sum(
                error.occurrences
                for error in stats.errors.values()
                if str(error.error).startswith(UNSIGNED)
            ),
            p50_ms=mix.get_response_time_percentile(0.5) or 0,
            p99_ms=mix.get_response_time_percentile(0.99) or 0,
        )

    def broken(self, *, max_p99_ms: float, max_fail_ratio: float, unanswered: int) -> list[str]:
        """What is not as it should be.

        Args:
            max_p99_ms: of all legitimate requests.
            max_fail_ratio: failed ones of these.
            unanswered: how often, by Envoy's own count, nobody answered a sidecar that asked for a
                token. Only so many requests may have arrived without one.
        """
        found = []
        if self.wrong:
            found.append(f"wrong outcomes: {self.wrong}")
        if self.unsigned > unanswered:
            found.append(
                f"wrong outcomes: {self.unsigned} requests had no token, and only {unanswered} "
                "times did nobody answer the caller's sidecar"
            )
        if not self.requests:
            found.append("there were no requests")
        elif self.failed / self.requests > max_fail_ratio:
            found.append(
                f"failed requests: {self.failed} of {self.requests}, more than "
                f"--max-fail-ratio {max_fail_ratio:g}"
            )
        if self.p99_ms > max_p99_ms:
            found.append(f"p99: {self.p99_ms:g} ms, more than --max-p99-ms {max_p99_ms:g}")
        return found

    def __str__(self) -> str:
        return (
            f"{self.requests} legitimate requests, {self.wrong} wrong outcomes, "
            f"{self.failed} failed ({self.unsigned} of them unsigned), "
            f"{self.either} in a window of change, "
            f"p50 {self.p50_ms:g} ms, p99 {self.p99_ms:g} ms"
        )


def unanswered(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """How often nobody answered a sidecar that asked for a token, between two looks."""
    return int(after["unsigned"]) - int(before["unsigned"])


def _requests(entries: Iterable[StatsEntry], method: str) -> int:
    return sum(entry.num_requests for entry in entries if entry.method == method)
