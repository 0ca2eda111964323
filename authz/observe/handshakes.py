"""The log of TLS handshakes that failed: a client that is not let in can say so nowhere else."""

from collections.abc import Callable
from typing import Final

import structlog

EVERY_SECONDS: Final = 60
"""How often one reason is logged. What comes in between is counted."""
MAX_REASONS: Final = 256
"""Reasons that are remembered. They are OpenSSL's own words, of which a client can cause fewer."""


class HandshakeLog:
    """Writes one line for each reason and minute. `clock` is in seconds, monotonic."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, clock: Callable[[], float]
    ) -> None:
        self._log = log
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}
        """By reason: when it was logged last, and how often it came since then."""

    def refused(self, client: str, why: str) -> None:
        """Log that the handshake of the client at this address failed, and why."""
        now = self._clock()
        if (seen := self._seen.get(why)) is None:
            if len(self._seen) >= MAX_REASONS:
                return
        elif now < seen[0] + EVERY_SECONDS:
            self._seen[why] = seen[0], seen[1] + 1
            return
        self._log.warning(
            "TLS handshake failed",
            because=why,
            client=client,
            left_out=0 if seen is None else seen[1],
        )
        self._seen[why] = now, 0
