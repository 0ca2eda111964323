"""Proof that there is no way from one namespace to another, or a way.

A path is a request that gets in. With `through`, it is a chain of them: whatever runs in a
namespace may call on for whoever reached it, by any account that it has there.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from authz.domain.identity import is_service_account
from authz.domain.names import PUBLIC, Namespace, is_label
from authz.domain.policy import Policy
from authz.errors import BadSettings
from authz.reach.groups import Among, Group
from authz.reach.lines import Line, lines
from authz.reach.matrix import Cell, Matrix
from authz.reach.pairs import Answers, Opening
from authz.reach.ways import Request, Way

ANYBODY: Final = "*"
_TENANT: Final = "tenant:"


@dataclass(frozen=True)
class End:
    """One end of a path: whose namespaces."""

    text: str
    names: frozenset[Namespace] | None
    """`None`: those of every other tenant than the other end's."""
    account: str | None = None

    @classmethod
    def parse(cls, text: str, policy: Policy) -> Self:
        """Read NAMESPACE, NAMESPACE/SERVICE-ACCOUNT, tenant:NAME, `*` or @public.

        Raises:
            BadSettings: it is nothing of these, or no tenant has that name.
        """
        if text == ANYBODY:
            return cls(text, None)
        if text == PUBLIC:
            return cls(text, frozenset({PUBLIC}))
        if text.startswith(_TENANT):
            tenant = text.removeprefix(_TENANT)
            named = (name for name, said in policy.namespaces.items() if said.tenant == tenant)
            if not (names := frozenset(named)):
                raise BadSettings([f"--no-path: the policy has no tenant {tenant!r}"])
            return cls(text, names)
        name, slash, account = text.partition("/")
        if not is_label(name) or (slash and not is_service_account(account)):
            problem = (
                f"--no-path: {text!r} is no end of a path: write NAMESPACE, "
                "NAMESPACE/SERVICE-ACCOUNT, tenant:NAME, '*' or @public"
            )
            raise BadSettings([problem])
        return cls(text, frozenset({Namespace(name)}), account or None)

    @property
    def namespaces(self) -> frozenset[Namespace]:
        """Those that it names."""
        return (self.names or frozenset()) - {PUBLIC}

    def among(self, names: Iterable[Namespace]) -> list[Namespace]:
        """Those that it means."""
        return [it for it in names if self.names is None or it in self.names]


class Step(NamedTuple):
    """One request of a path."""

    source: Namespace
    to: Namespace
    line: Line[Opening]


class _Place(NamedTuple):
    """Namespaces of a group in one block: whoever reaches one of them may reach all."""

    group: Group
    block: Namespace

    @property
    def names(self) -> tuple[Namespace, ...]:
        return self.group.blocks[self.block]


class Paths:
    """Looks for paths from one end to another at `now`, by some ways only.

    Raises:
        BadSettings: an end is none.
    """

    def __init__(
        self, policy: Policy, now: float, ends: tuple[str, str], ways: Iterable[Way] = Way
    ) -> None:
        start, goal = (End.parse(text, policy) for text in ends)
        if PUBLIC in (goal.names or ()):
            raise BadSettings([f"--no-path: a path may begin at {PUBLIC}, and not end there"])
        self._matrix = matrix = Matrix([policy], now, start.namespaces | goal.namespaces)
        self._start, self._goal = start, goal
        self._ways = frozenset(ways)
        self._from: defaultdict[Group, list[Cell]] = defaultdict(list)
        for cell in matrix.cells.values():
            self._from[cell.source].append(cell)
        self._open_to_all = [to for to, answers in matrix.rest.items() if self._lines(answers)]
        places = [_Place(group, block) for group in matrix.groups for block in group.blocks]
        self._blocks_of_start = _blocks(start, places)
        blocks_of_goal = _blocks(goal, places)
        self._starts = [
            it
            for it in places
            if start.among(it.names) and not (start.names is None and it.block in blocks_of_goal)
        ]

    def shortest(self, *, through: bool) -> list[Step] | None:
        """A path, of one request or `through` others; `None`: there is none."""
        came: dict[_Place | None, list[Step]] = {}
        waiting: deque[tuple[_Place | None, list[Step]]] = deque()
        if PUBLIC in (self._start.names or ()):
            waiting.append((None, []))
        waiting.extend((place, []) for place in self._starts)
        while waiting:
            place, path = waiting.popleft()
            for after, line in self._onward(place, first=not path):
                source = self._source(place, path)
                if (found := self._reached(place, after, source)) is not None:
                    return [*path, Step(source, found, line)]
                if through and after not in came:
                    by = next((name for name in after.names if name != source), after.names[0])
                    came[after] = [*path, Step(source, by, line)]
                    waiting.append((after, came[after]))
        return None

    def _source(self, place: _Place | None, path: list[Step]) -> Namespace:
        if place is None:
            return PUBLIC
        return path[-1].to if path else self._start.among(place.names)[0]

    def _reached(self, place: _Place | None, after: _Place, source: Namespace) -> Namespace | None:
        if self._goal.names is None:
            taken = self._blocks_of_start if self._start.names else {place and place.block}
            if after.block in taken:
                return None
        return next((it for it in self._goal.among(after.names) if it != source), None)

    def _onward(
        self, place: _Place | None, *, first: bool
    ) -> Iterator[tuple[_Place, Line[Opening]]]:
        """Where one request leads."""
        account = self._start.account if first else None
        if place is None:
            for cell in self._matrix.all_cells():
                for line in self._lines(cell.answers, outside=True)[:1]:
                    yield from ((_Place(cell.to, block), line) for block in cell.to.blocks)
            return
        seen = set()
        for cell in self._from[place.group]:
            seen.add((cell.to, cell.among))
            yield from self._led(place, cell, account)
        for to in self._open_to_all:
            if (to, Among.APART) not in seen:
                yield from self._led(
                    place, self._matrix.cell(place.group, to, Among.APART), account
                )

    def _led(
        self, place: _Place, cell: Cell, account: str | None
    ) -> Iterator[tuple[_Place, Line[Opening]]]:
        if cell.among is Among.ITSELF:
            return
        for line in self._lines(cell.answers, account)[:1]:
            if cell.among is Among.BLOCK:
                yield _Place(cell.to, place.block), line
            else:
                others = (block for block in cell.to.blocks if block != place.block)
                yield from ((_Place(cell.to, block), line) for block in others)

    def _lines(
        self, answers: Answers, account: str | None = None, *, outside: bool = False
    ) -> list[Line[Opening]]:
        named = {request.account for request in answers.asked}
        wanted = account if account in named else None

        def counts(request: Request) -> bool:
            if outside or request.way is Way.OUTSIDE:
                return outside and request.way is Way.OUTSIDE
            return request.way in self._ways and (account is None or request.account == wanted)

        found = {it: value for it, value in answers.open[0].items() if counts(it)}
        return list(lines(filter(counts, answers.asked), found))


def _blocks(end: End, places: Iterable[_Place]) -> set[Namespace]:
    """The tenants of an end that names some."""
    return set() if end.names is None else {it.block for it in places if end.among(it.names)}
