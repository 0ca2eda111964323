"""The log of TLS handshakes that failed: a client that is not let in can say so nowhere else."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

EVERY_SECONDS: Final = 60
"""How often one reason is logged; what came in between is counted."""
MAX_REASONS: Final = 16
"""Different reasons in that time. They are OpenSSL's, and few; more are not logged."""


class HandshakeLog:
    """Writes one line for each reason and minute. `clock` is in seconds, monotonic."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, clock: Callable[[], float]
    ) -> None:
        self._log = log
        self._clock = clock
        self._minute = 0
        self._seen: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def refused(self, client: str, why: str) -> None:
        """Log that the handshake of the client at this address failed, and why."""
        minute = int(self._clock() // EVERY_SECONDS)
        if minute != self._minute:
            self._minute, self._before, self._seen = minute, self._seen, Counter()
        if why not in self._seen and len(self._seen) >= MAX_REASONS:
            return
        self._seen[why] += 1
        if self._seen[why] == 1:
            self._log.warning(
                "TLS handshake failed",
                because=why,
                client=client,
                in_the_minute_before=self._before[why],
            )
