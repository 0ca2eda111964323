"""Namespaces of which the policies say the same, in groups: thousands are looked at as a few.

A block is what belongs together: a tenant, or under several policies whatever any of them joins.
Blocks that no grant, role or exemption names are alike if their namespaces are, and their groups
go over all of them. What is so for one pair of groups is so for each that stands in the same
relation, see `Among`.
"""

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from authz.domain.names import Namespace
from authz.reach.pairs import Pairs
from authz.reach.profile import fresh

Pair: TypeAlias = tuple[Namespace, Namespace]


class Among(enum.StrEnum):
    """How the two namespaces of a pair stand to each other."""

    ITSELF = "itself"
    BLOCK = "same block"
    """Two of one block: mostly of one tenant."""
    APART = "apart"


@dataclass(frozen=True, eq=False)
class Group:
    """Namespaces that are alike."""

    blocks: Mapping[Namespace, tuple[Namespace, ...]]
    """By block, which is named by one of its namespaces."""
    unnamed: bool = False
    """Those that no policy names; two stand for all of them, each a tenant of its own."""

    @property
    def members(self) -> list[Namespace]:
        """All of them by name."""
        return sorted(name for names in self.blocks.values() for name in names)

    def pairs_with(self, to: "Group") -> Iterator[tuple[Among, Pair]]:
        """A pair for every relation in which the groups stand."""
        shared = next((block for block in to.blocks if block in self.blocks), None)
        if self is to and shared is not None:
            one = self.blocks[shared][0]
            yield Among.ITSELF, (one, one)
        for block in () if shared is None else (shared,):
            for one in self.blocks[block][:2]:
                other = next((it for it in to.blocks[block][:2] if it != one), None)
                if other is not None:
                    yield Among.BLOCK, (one, other)
                    break
        for block in list(self.blocks)[:2]:
            elsewhere = next((it for it in list(to.blocks)[:2] if it != block), None)
            if elsewhere is not None:
                yield Among.APART, (self.blocks[block][0], to.blocks[elsewhere][0])
                break


class Grouping:
    """All namespaces under the policies of `pairs`, in groups."""

    def __init__(self, pairs: Pairs, also: Iterable[Namespace] = ()) -> None:
        self._pairs = pairs
        names = sorted({*also, *(name for said in pairs.said for name in said.namespaces())})
        self._links: defaultdict[Namespace, set[object]] = defaultdict(set)
        self._sources: defaultdict[Namespace, set[Namespace]] = defaultdict(set)
        for number, said in enumerate(pairs.said):
            for source, to, shapes in said.links():
                self._links[source].add((number, "to", to, shapes))
                self._links[to].add((number, "from", source, shapes))
                self._sources[to].add(source)
        parts: defaultdict[object, dict[Namespace, tuple[Namespace, ...]]] = defaultdict(dict)
        self._block: dict[Namespace, Namespace] = {}
        for block, members in self._blocks(names).items():
            self._block.update(dict.fromkeys(members, block))
            for kind, alike in self._alike(block, members):
                parts[kind][block] = tuple(alike)
        one = Namespace(fresh(names, "any"))
        another = Namespace(fresh([*names, one], "any"))
        self.unnamed: Final = Group({one: (one,), another: (another,)}, unnamed=True)
        self.groups: Final = [*(Group(blocks) for blocks in parts.values()), self.unnamed]
        self._of = {
            name: group
            for group in self.groups[:-1]
            for members in group.blocks.values()
            for name in members
        }
        self._at: defaultdict[Namespace, list[Group]] = defaultdict(list)
        for group in self.groups:
            for block in group.blocks:
                self._at[block].append(group)
        self.special: Final = [it for it in self.groups if self._is_special(it.members[0])]
        """Those whose namespaces may do what others may not, wherever they go."""

    def of(self, namespace: Namespace) -> Group:
        """The group of any namespace."""
        return self._of.get(namespace, self.unnamed)

    def among(self, source: Namespace, to: Namespace) -> Among:
        """How two namespaces stand to each other."""
        if source == to:
            return Among.ITSELF
        block = self._block.get(source)
        return Among.BLOCK if block is not None and block == self._block.get(to) else Among.APART

    def related(self, to: Group) -> list[Group]:
        """The groups from which more may be open than from any namespace that is not named."""
        block = next(iter(to.blocks))
        one = to.blocks[block][0]
        linked = (self.of(source) for source in self._sources.get(one, ()))
        return list(dict.fromkeys([to, *self._at[block], *linked, *self.special]))

    def _blocks(self, names: Iterable[Namespace]) -> Mapping[Namespace, list[Namespace]]:
        head = {name: name for name in names}

        def top(name: Namespace) -> Namespace:
            while head[name] != name:
                head[name] = head[head[name]]
                name = head[name]
            return name

        for said in self._pairs.said:
            first: dict[str, Namespace] = {}
            for name in head:
                if (tenant := said.policy.of(name).tenant) is not None:
                    head[top(name)] = top(first.setdefault(tenant, name))
        blocks: defaultdict[Namespace, list[Namespace]] = defaultdict(list)
        for name in head:
            blocks[top(name)].append(name)
        return blocks

    def _alike(
        self, block: Namespace, members: list[Namespace]
    ) -> Iterator[tuple[object, list[Namespace]]]:
        """The parts of a block, each with what it has in common with others."""
        tenants = {name: self._tenants(name) for name in members}
        alone = len(set(tenants.values())) == 1 and not any(
            self._links.get(name) or self._is_special(name) for name in members
        )
        common = None
        if alone:
            # Under which policies any two of them are of one tenant, and what is said of each.
            joined = [it is not None for it in tenants[block]] if len(members) > 1 else ()
            common = tuple(joined), frozenset(Counter(map(self._pairs.profile, members)).items())
        parts: defaultdict[object, list[Namespace]] = defaultdict(list)
        for name in members:
            profile = self._pairs.profile(name)
            links = frozenset(self._links.get(name, ()))
            parts[(common, profile) if alone else (block, tenants[name], profile, links)].append(
                name
            )
        yield from parts.items()

    def _tenants(self, name: Namespace) -> tuple[str | None, ...]:
        """Its tenant under each policy; `None` where it is one of its own, as others may be."""
        return tuple(said.policy.of(name).tenant for said in self._pairs.said)

    def _is_special(self, name: Namespace) -> bool:
        return any(it.special or it.route_owner for it in self._pairs.profile(name))
