"""Whether a run was good. It knows nothing of Locust, whose import changes a whole process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """Numbers of a run."""

    requests: int
    """Those with a wrong outcome are not among them."""
    failed: int
    wrong: int
    either: int
    """They came in a window of change."""
    unsigned: int
    """They had no token; they are among the failed ones."""
    p50_ms: float
    p99_ms: float

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
