"""Answers in few words: what is open, with accounts, ports and Services that are alike as one."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from authz.domain.policy import Exemption
from authz.reach.ways import Request, Way

V = TypeVar("V", bound=Hashable)
T = TypeVar("T", str, int)


@dataclass(frozen=True, slots=True)
class Some(Generic[T]):
    """Some values of a kind: those named, or all but those named."""

    named: tuple[T, ...] = ()
    all_but: bool = True

    @classmethod
    def of(cls, found: Collection[T | None], asked: Iterable[T | None]) -> "Some[T]":
        """What was found of what was asked about, `None` standing for all that has no name."""
        if None not in found:
            return cls(tuple(sorted(it for it in found if it is not None)), all_but=False)
        return cls(tuple(sorted(it for it in asked if it is not None and it not in found)))

    @property
    def is_all(self) -> bool:
        """Whether none is left out."""
        return self.all_but and not self.named

    def __str__(self) -> str:
        if self.is_all:
            return "any"
        names = ", ".join(map(str, self.named))
        return f"any but {names}" if self.all_but else names


@dataclass(frozen=True, slots=True)
class Line(Generic[V]):
    """Requests of which the same is so."""

    ways: tuple[Way, ...]
    accounts: Some[str]
    ports: Some[int]
    services: Some[str] | None
    """From outside only."""
    exemption: Exemption | None
    value: V


_Rest: TypeAlias = tuple[Some[int], Some[str] | None, Exemption | None, V]
_ORDER: Final = tuple(Way)


def lines(asked: Iterable[Request], found: Mapping[Request, V]) -> Iterator[Line[V]]:
    """Put requests that have a value into lines, each of them into one."""
    everything: defaultdict[tuple[Way, str | None, Exemption | None], list[Request]]
    everything = defaultdict(list)
    for request in asked:
        everything[request.way, request.account, request.exemption].append(request)
    accounts: defaultdict[Way, set[str | None]] = defaultdict(set)
    alike: defaultdict[tuple[Way, _Rest[V]], set[str | None]] = defaultdict(set)
    for (way, account, exemption), requests in everything.items():
        if way is not Way.EXEMPTION:
            accounts[way].add(account)
        by_value: defaultdict[V, list[Request]] = defaultdict(list)
        for request in requests:
            if (value := found.get(request)) is not None:
                by_value[value].append(request)
        for value, some in by_value.items():
            ports = Some.of({it.port for it in some}, {it.port for it in requests})
            services = None
            if way is Way.OUTSIDE:
                services = Some.of({it.service for it in some}, {it.service for it in requests})
            alike[way, (ports, services, exemption, value)].add(account)
    ways: defaultdict[tuple[Some[str], _Rest[V]], list[Way]] = defaultdict(list)
    for (way, rest), callers in alike.items():
        ways[Some.of(callers, accounts[way]), rest].append(way)
    for (callers_of, (ports, services, exemption, value)), by in ways.items():
        sort = tuple(sorted(by, key=_ORDER.index))
        yield Line(sort, callers_of, ports, services, exemption, value)
