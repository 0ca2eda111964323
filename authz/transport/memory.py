"""How much all connections hold together, and which of them go when that is too much.

A connection has limits of its own, so that it can ask and be answered. What all of them may hold
together is far less than so many times that: most hold nothing, for a Check is read and answered at
once. Whoever sends halves of requests, or takes no answers, holds something for long.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

_KEEP: Final = 7 / 8
"""Of the limit. To look for the largest takes a while, so it makes room for more than one."""


class Holder(Protocol):
    """A connection."""

    @property
    def tenant(self) -> Hashable:
        """Whose it is: of whoever holds most in all, the largest goes first."""
        ...

    def shed(self) -> None:
        """Hang up, and hold nothing from now on."""
        ...


H = TypeVar("H", bound=Holder)


class Memory(Generic[H]):
    """What connections hold, in bytes. `total` exceeds `limit` by what one read adds, at most."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._held: dict[H, int] = {}

    def note(self, holder: H, size: int) -> None:
        """A connection holds this much now; others may have to go for it, or it itself."""
        self.total += size - self._held.get(holder, 0)
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        if self.total > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        tenants: Counter[Hashable] = Counter()
        for holder, size in self._held.items():
            tenants[holder.tenant] += size
        sizes = {holder: (tenants[holder.tenant], size) for holder, size in self._held.items()}
        for holder in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if self.total <= self._limit * _KEEP:
                return
            self.total -= self._held.pop(holder)
            holder.shed()
