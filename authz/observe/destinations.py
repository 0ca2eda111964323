"""Which destinations get a series of their own: as many as a server can bear, and only real ones.

Who asks for its own pods has proven its name. At a hop the name is what a request says, and a
tenant may make up as many as it likes: those have a room of their own, so that they crowd out
nobody.
"""

from typing import Final

MAX_PROVEN: Final = 500
"""Namespaces whose own pods asked."""
MAX_CLAIMED: Final = 100
"""Others, to which somebody wanted to go."""
OTHER: Final = "_other"
"""In place of what has no room. No namespace can have such a name."""
NOWHERE: Final = "_unknown"
"""Where the destination is not known."""


class Destinations:
    """Gives labels."""

    def __init__(self) -> None:
        self._proven: set[str] = set()
        self._claimed: set[str] = set()

    def label(self, destination: str | None, *, proven: bool) -> str:
        """What a destination is called."""
        if destination is None:
            return NOWHERE
        if destination in self._proven or destination in self._claimed:
            return destination
        room, most = (self._proven, MAX_PROVEN) if proven else (self._claimed, MAX_CLAIMED)
        if len(room) >= most:
            return OTHER
        room.add(destination)
        return destination

    def take(self, label: str) -> str:
        """The same for a label that another process has given."""
        return label if label in {OTHER, NOWHERE} else self.label(label, proven=True)
