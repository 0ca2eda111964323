"""File descriptors: a connection is one, and a process may have so many and no more."""

import resource
from dataclasses import dataclass
from typing import Final

_OTHERS: Final = 128
"""For what is no connection of an Envoy: the key store, the side port, the log, workers' lines."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a process has room for."""

    connections: int
    handshakes: int
    wanted: int
    """Descriptors for all that was asked for."""
    allowed: int
    """Descriptors that the process may have: its hard limit, if that is less than `wanted`."""

    @property
    def is_enough(self) -> bool:
        """Whether there is room for all that was asked for."""
        return self.allowed >= self.wanted


def make_room(connections: int, handshakes: int) -> Room:
    """Raise the soft limit (RLIMIT_NOFILE) as far as these many need it, and the hard one allows.

    Where that is not far enough, handshakes have at most a quarter of what there is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + handshakes + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Room(connections, handshakes, wanted, wanted)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == wanted:
        return Room(connections, handshakes, wanted, wanted)
    left = max(allowed - _OTHERS, 2)
    handshakes = min(handshakes, max(left // 4, 1))
    return Room(min(connections, left - handshakes), handshakes, wanted, allowed)
