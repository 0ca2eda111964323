"""A matrix as rows to read: sources and destinations of which the same is so stand in one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias

from authz.domain.names import Namespace
from authz.reach.groups import Among, Group
from authz.reach.lines import Line, V, lines
from authz.reach.matrix import Cell, Matrix
from authz.reach.pairs import Answers
from authz.reach.ways import Request

Groups: TypeAlias = tuple[Group, ...]
Find: TypeAlias = Callable[[Answers], Mapping[Request, V]]


@dataclass(frozen=True, eq=False)
class Row(Generic[V]):
    """Pairs of which the same is so: every source with every destination."""

    among: Among
    sources: Groups | None
    """`None`: every namespace of another block. The same groups as in `to`: within each block."""
    but: Groups
    """Where all are sources, those that are not."""
    to: Groups
    line: Line[V]

    @property
    def within(self) -> bool:
        """Whether it is about any two of one block."""
        return self.among is Among.BLOCK and self.sources == self.to


def rows(matrix: Matrix, find: Find[V]) -> Iterator[Row[V]]:
    """Put into rows what `find` finds in the answers about each pair."""
    known: dict[int, tuple[Line[V], ...]] = {}

    def of(answers: Answers) -> tuple[Line[V], ...]:
        if id(answers) not in known:
            known[id(answers)] = tuple(lines(answers.asked, find(answers)))
        return known[id(answers)]

    cells = defaultdict[Among, list[Cell]](list)
    for cell in matrix.cells.values():
        cells[cell.among].append(cell)
    yield from _within_blocks(cells[Among.BLOCK], of)
    yield from _apart(matrix, cells[Among.APART], of)
    itself = defaultdict[Line[V], list[Group]](list)
    for cell in cells[Among.ITSELF]:
        for line in of(cell.answers):
            itself[line].append(cell.to)
    for line, to in itself.items():
        yield Row(Among.ITSELF, tuple(to), (), tuple(to), line)


_Of: TypeAlias = Callable[[Answers], tuple[Line[V], ...]]


def _within_blocks(cells: Iterable[Cell], of: _Of[V]) -> Iterator[Row[V]]:
    all_pairs = defaultdict[Namespace, list[tuple[Group, Group]]](list)
    pairs = defaultdict[tuple[Namespace, Line[V]], list[tuple[Group, Group]]](list)
    for cell in cells:
        # Groups that share blocks have them in one order.
        block: Namespace = next(iter(cell.to.blocks))
        pair = cell.source, cell.to
        all_pairs[block].append(pair)
        for line in of(cell.answers):
            pairs[block, line].append(pair)
    whole = defaultdict[Line[V], dict[Group, None]](dict)
    some = defaultdict[tuple[Group, Line[V]], list[Group]](list)
    for (block, line), found in pairs.items():
        if len(found) == len(all_pairs[block]):
            whole[line].update(dict.fromkeys(to for _, to in found))
        else:
            for source, to in found:
                some[source, line].append(to)
    for line, groups in whole.items():
        yield Row(Among.BLOCK, tuple(groups), (), tuple(groups), line)
    for (sources, line), destinations in _merged(some).items():
        yield Row(Among.BLOCK, sources, (), destinations, line)


def _apart(matrix: Matrix, cells: Iterable[Cell], of: _Of[V]) -> Iterator[Row[V]]:
    by_destination = defaultdict[Group, list[Cell]](list)
    for cell in cells:
        by_destination[cell.to].append(cell)
    anybody = defaultdict[tuple[Groups, Line[V]], list[Group]](list)
    named = defaultdict[tuple[Group, Line[V]], list[Group]](list)
    for to in matrix.groups:
        rest = of(matrix.rest[to])
        for line in rest:
            but = [it.source for it in by_destination[to] if line not in of(it.answers)]
            anybody[tuple(but), line].append(to)
        for cell in by_destination[to]:
            for line in of(cell.answers):
                if line not in rest:
                    named[cell.source, line].append(to)
    for (but_these, line), to_these in anybody.items():
        yield Row(Among.APART, None, but_these, tuple(to_these), line)
    for (sources, line), destinations in _merged(named).items():
        yield Row(Among.APART, sources, (), destinations, line)


def _merged(
    found: Mapping[tuple[Group, Line[V]], list[Group]],
) -> dict[tuple[Groups, Line[V]], Groups]:
    """Sources that have the same destinations, together."""
    alike = defaultdict[tuple[Groups, Line[V]], list[Group]](list)
    for (source, line), to in found.items():
        alike[tuple(to), line].append(source)
    return {(tuple(sources), line): to for (to, line), sources in alike.items()}
