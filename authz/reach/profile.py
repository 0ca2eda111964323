"""What a policy says of one namespace and of its grants, as it stands there.

Two namespaces of which it says the same have the same answers: no rule knows a namespace by name.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.domain.policy import EVERYONE, Grant, Policy

Shape = tuple[bool, str | None, int | None, int | None]
"""A grant without the namespaces that it names: whether it is to everyone, account, port, until."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a policy says of a namespace, but for its tenant and the grants that name another."""

    mode: str
    public: bool | frozenset[str]
    plaintext_peers: bool
    route_owner: bool
    special: tuple[SpiffeId, ...]
    """Its workloads that have a role or an exemption."""
    to_everyone: tuple[Shape, ...]
    """Its grants to every namespace."""

    @property
    def services(self) -> frozenset[str]:
        """The Services that it lists as public."""
        return self.public if isinstance(self.public, frozenset) else frozenset()


class Said:
    """One policy, by namespace and by pair."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.special: dict[Namespace, tuple[SpiffeId, ...]] = {}
        for peer in sorted({*policy.roles, *policy.exemptions}, key=str):
            self.special[peer.namespace] = (*self.special.get(peer.namespace, ()), peer)
        self._grants: dict[tuple[Namespace, Namespace], list[Grant]] = {}
        for grant in policy.grants:
            self._grants.setdefault((grant.source, grant.destination), []).append(grant)

    def grants(self, source: Namespace, to: Namespace) -> list[Grant]:
        """Those that may let a source in."""
        everyone = self._grants.get((EVERYONE, to), ())
        return [*self._grants.get((source, to), ()), *everyone]

    def profile(self, namespace: Namespace) -> Profile:
        """What it says of a namespace."""
        return Profile(
            self.policy.mode_of(namespace).value,
            self.policy.accepts_public(namespace),
            self.policy.of(namespace).plaintext_peers,
            namespace in self.policy.route_owners,
            self.special.get(namespace, ()),
            tuple(map(shape, self._grants.get((EVERYONE, namespace), ()))),
        )

    def namespaces(self) -> Iterator[Namespace]:
        """All that it names, some of them more than once."""
        policy = self.policy
        yield from policy.namespaces
        yield from policy.platform
        yield from policy.route_owners
        yield from policy.hosts.values()
        yield from self.special
        for source, destination in self._grants:
            yield destination
            if source != EVERYONE:
                yield source

    def links(self) -> Iterator[tuple[Namespace, Namespace, tuple[Shape, ...]]]:
        """The grants that name their source: from, to, and what they say."""
        for (source, to), grants in self._grants.items():
            if source != EVERYONE:
                yield source, to, tuple(map(shape, grants))

    def accounts(self) -> Iterator[str]:
        """Service accounts that it names."""
        yield from (it.service_account for it in self.policy.grants if it.service_account)
        yield from (peer.service_account for peers in self.special.values() for peer in peers)

    def services(self) -> Iterator[str]:
        """Services that it names."""
        yield from (relay.name for relay in self.policy.relays)
        for namespace in self.policy.namespaces.values():
            if isinstance(namespace.accepts_public, frozenset):
                yield from namespace.accepts_public


def shape(grant: Grant) -> Shape:
    """See `Shape`."""
    return grant.source == EVERYONE, grant.service_account, grant.port, grant.until


def fresh(taken: Collection[str], stem: str = "other") -> str:
    """A name that is not among those taken."""
    names = (stem, *(f"{stem}-{number}" for number in range(len(taken) + 1)))
    return next(name for name in names if name not in taken)
