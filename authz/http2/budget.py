"""How much a client may do that no request needs, before it is asked to calm down.

Resets, pings, settings, window updates, empty and unknown frames each cost something, requests
that are answered and time that passes give it back; requests that are refused do not. A client
that only costs is cut off.
"""

from typing import Final

from authz.http2.faults import ConnectionFault, ErrorCode

PER_SECOND: Final = 50
"""Credit that comes back by itself."""

PER_ANSWER: Final = 4
"""Credit for a request that was answered: some clients send a PING and WINDOW_UPDATEs for each."""


class Budget:
    """A token bucket. `now` is in seconds, on any clock that only goes forward."""

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = capacity
        self._credit = float(capacity)
        self._counted = now
        self._answered = 0

    def answered(self) -> None:
        """A request was answered."""
        self._answered += 1
        self._credit += PER_ANSWER

    def refused(self) -> None:
        """A request was answered with an error: that earns nothing, but may cross its reset."""
        self._answered += 1

    def spent(self, what: str, now: float) -> None:
        """The client did something that no request needs.

        Raises:
            ConnectionFault: too often.
        """
        passed, self._counted = now - self._counted, now
        self._credit = min(self._capacity, self._credit + passed * PER_SECOND) - 1
        if self._credit < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}", limit="credit")

    def reset_after_answer(self, now: float) -> None:
        """RST_STREAM on a stream that is closed: free, once for each answer that it may cross.

        Raises:
            ConnectionFault: too often.
        """
        if self._answered:
            self._answered -= 1
        else:
            self.spent("resets", now)
