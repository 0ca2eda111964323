"""Who may reach whom, under one policy or several: every pair, by groups of namespaces."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from authz.domain.names import Namespace
from authz.domain.policy import Policy
from authz.reach.groups import Among, Group, Grouping, Pair
from authz.reach.pairs import Answers, Pairs


class Cell(NamedTuple):
    """All pairs of two groups that stand in one relation."""

    source: Group
    to: Group
    among: Among
    answers: Answers


class Matrix:
    """Every pair of namespaces at `now`, in seconds since the epoch; `also` are looked at by name.

    There are as many cells as the policies say things about pairs, and not the square of groups:
    from all that has none, a namespace is reached as from any that no policy names, see `rest`.
    """

    def __init__(
        self, policies: Sequence[Policy], now: float, also: Collection[Namespace] = ()
    ) -> None:
        self.pairs: Final = Pairs(policies, now)
        self._grouping = Grouping(self.pairs, also)
        self.groups: Final = self._grouping.groups
        stranger = next(iter(self._grouping.unnamed.blocks))
        self.rest: Final[dict[Group, Answers]] = {
            to: self.pairs.answers(*_pair(stranger, to)) for to in self.groups
        }
        """How a group is reached by namespaces from which it has no cell."""
        self.cells: Final[dict[tuple[Group, Group, Among], Cell]] = {
            (source, to, among): Cell(source, to, among, self.pairs.answers(*pair))
            for to in self.groups
            for source in self._grouping.related(to)
            for among, pair in source.pairs_with(to)
        }

    def of(self, namespace: Namespace) -> Group:
        """The group of any namespace."""
        return self._grouping.of(namespace)

    def cell(self, source: Group, to: Group, among: Among) -> Cell:
        """A cell, be it that of the rest."""
        known = self.cells.get((source, to, among))
        return Cell(source, to, among, self.rest[to]) if known is None else known

    def all_cells(self) -> Iterator[Cell]:
        """All that is said of any pair: the cells, and one for the rest of each destination."""
        yield from self.cells.values()
        for to, answers in self.rest.items():
            yield Cell(self._grouping.unnamed, to, Among.APART, answers)

    def look_up(self, source: Namespace, to: Namespace) -> Answers:
        """The answers for one pair."""
        among = self._grouping.among(source, to)
        return self.cell(self.of(source), self.of(to), among).answers


def _pair(stranger: Namespace, to: Group) -> Pair:
    """Somebody not named, and one of the group that is somebody else."""
    one = next(each[0] for block, each in to.blocks.items() if block != stranger)
    return stranger, one
