"""What is open from one namespace to another: everything there is to ask about a pair.

The answers depend on what the policy says of the two ends and of nothing else, so pairs of which it
says the same are asked about once. What it says is taken from the policy as it stands; what follows
from that, only `decide` knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.domain.policy import Grant, Policy
from authz.domain.verdict import Allow, Verdict
from authz.reach.profile import Profile, Said, fresh, shape
from authz.reach.ways import LATEST, Oracle, Request, Way, because

T = TypeVar("T")

_ON_PORTS: Final = (Way.PEER, Way.TOKEN, Way.TCP, Way.PLAINTEXT)


@dataclass(frozen=True, slots=True)
class Opening:
    """What lets a request in."""

    until: float
    """When it is first denied, in seconds since the epoch; infinity: never, see `ways.LATEST`."""
    because: str


Openings: TypeAlias = Mapping[Request, Opening]
"""The requests of a pair that get in."""


class Answers(NamedTuple):
    """All about a pair, and about every pair that is like it."""

    asked: tuple[Request, ...]
    """The same for all policies."""
    open: tuple[Openings, ...]
    """For each policy."""


class Pairs:
    """Pairs of namespaces under one policy or several, at `now`, in seconds since the epoch.

    All policies are asked the same about a pair, so that the answers can be compared.
    """

    def __init__(self, policies: Sequence[Policy], now: float) -> None:
        self.said = tuple(map(Said, policies))
        self.now = now
        self._special = {
            peer for said in self.said for peers in said.special.values() for peer in peers
        }
        self._oracles: dict[tuple[int, float], Oracle] = {}
        self._profiles: dict[Namespace, tuple[Profile, ...]] = {}
        self._answers: dict[Any, Answers] = {}
        domains = {domain for policy in policies for domain in policy.trust_domains}
        self._domain = domains.pop() if len(domains) == 1 else None
        self._account = fresh({name for said in self.said for name in said.accounts()})
        self._service = fresh({name for said in self.said for name in said.services()})

    def profile(self, namespace: Namespace) -> tuple[Profile, ...]:
        """What each policy says of a namespace."""
        known = self._profiles.get(namespace)
        if known is None:
            known = tuple(said.profile(namespace) for said in self.said)
            self._profiles[namespace] = known
        return known

    def answers(self, source: Namespace, to: Namespace) -> Answers:
        """What each policy says of requests from one namespace to another, or to itself."""
        grants = [said.grants(source, to) for said in self.said]
        alike = (
            source == to,
            tuple(said.policy.same_tenant(source, to) for said in self.said),
            tuple(tuple(map(shape, each)) for each in grants),
            self.profile(source),
            self.profile(to),
        )
        known = self._answers.get(alike)
        if known is None:
            asked = tuple(self._requests(source, to, [it for each in grants for it in each]))
            known = self._answers[alike] = Answers(
                asked,
                tuple(
                    dict(self._open(number, source, to, asked, each))
                    for number, each in enumerate(grants)
                ),
            )
        return known

    def verdict(  # noqa: PLR0917
        self,
        number: int,
        source: Namespace,
        to: Namespace,
        request: Request,
        moment: float,
        host: str = "",
    ) -> Verdict | None:
        """What a policy decides on a request; `None`: it knows no such way, or caller.

        `host` is for a request from outside.
        """
        oracle = self._oracle(number, moment)
        caller = self._caller(number, source, request.account)
        if caller is None or not oracle.has(request.way):
            return None
        port = request.port or 0  # which no rule can name
        match request.way:
            case Way.TOKEN:
                return oracle.by_token(caller, to, port, self._service)
            case Way.EVENT:
                return oracle.by_event(caller, to)
            case Way.TCP:
                return oracle.raw(caller, to, port)
            case Way.PLAINTEXT:
                return oracle.in_plaintext(caller, to, port)
            case Way.OUTSIDE:
                service = request.service or self._service
                return oracle.from_outside(to, port, service, route_of=source, host=host)
            case _:
                return oracle.straight(caller, to, port, request.exemption)

    def _requests(self, source: Namespace, to: Namespace, grants: list[Grant]) -> Iterator[Request]:
        # Whoever has a role is trusted with all that passes, and is no caller here.
        exempt = dict.fromkeys(
            (peer, exemption)
            for said in self.said
            for peer in said.special.get(source, ())
            for exemption in said.policy.exemptions.get(peer, ())
        )
        ports = {it.port for it in grants} | {exemption.port for _, exemption in exempt}
        callers = {it.service_account for it in grants} | {self._label(peer) for peer, _ in exempt}
        for account in _none_first(callers):
            for port in _none_first(ports):
                yield from (Request(way, account, port) for way in _ON_PORTS)
            yield Request(Way.EVENT, account)
        for peer, exemption in exempt:
            yield Request(Way.EXEMPTION, self._label(peer), exemption.port, exemption=exemption)
        listed = {name for profile in self.profile(to) for name in profile.services}
        yield from (Request(Way.OUTSIDE, service=it) for it in _none_first(listed))

    def _open(
        self,
        number: int,
        source: Namespace,
        to: Namespace,
        requests: Iterable[Request],
        grants: Iterable[Grant],
    ) -> Iterator[tuple[Request, Opening]]:
        ends = {grant.until for grant in grants if grant.until and self.now < grant.until < LATEST}
        for request in requests:
            verdict = self.verdict(number, source, to, request, self.now)
            if isinstance(verdict, Allow):
                closed = (
                    end
                    for end in sorted(ends)
                    if not isinstance(self.verdict(number, source, to, request, end), Allow)
                )
                mode = self.said[number].policy.mode_of(to)
                yield request, Opening(next(closed, inf), because(verdict, mode))

    def _label(self, special: SpiffeId) -> str:
        """An account that has a role or exemption, which it has in one trust domain."""
        return special.service_account if self._domain else str(special)

    def _caller(self, number: int, source: Namespace, account: str | None) -> SpiffeId | None:
        """Who calls by an account; `None`: nobody in particular."""
        if account is not None and "/" in account:
            return SpiffeId.parse(account)
        for domain in sorted(self.said[number].policy.trust_domains):
            peer = SpiffeId(domain, source, account or self._account)
            if self._domain or peer not in self._special:
                return peer
        return None

    def _oracle(self, number: int, moment: float) -> Oracle:
        known = self._oracles.get((number, moment))
        if known is None:
            known = self._oracles[number, moment] = Oracle(self.said[number].policy, moment)
        return known


def _none_first(values: Iterable[T | None]) -> list[T | None]:
    some = sorted((value for value in values if value is not None), key=str)
    return [None, *some]
