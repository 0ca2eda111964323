"""Proven is what no request breaks, by `decide`; and what is not, is shown by one that does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.domain.identity import SpiffeId
from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import EVERYONE, Grant, NamespacePolicy, Policy, Role
from authz.domain.verdict import Allow
from authz.errors import BadSettings
from authz.reach.proof import Paths, Step
from authz.reach.ways import Oracle, Request, Way
from authz.testing import NOW
from tests.reach.policies import ACCOUNTS, NAMED, NAMESPACES, PORTS, gets_in, policies

N = Namespace
INSIDE = [
    *(
        Request(*it)
        for it in product((Way.PEER, Way.TOKEN, Way.TCP, Way.PLAINTEXT), ACCOUNTS, (*PORTS, 1))
    ),
    *(Request(Way.EVENT, account) for account in ACCOUNTS),
]


def edges(policy: Policy) -> set[tuple[Namespace, Namespace]]:
    """Who may reach whom by any request, asked one by one."""
    return {
        (source, to)
        for source, to in product(NAMESPACES, NAMESPACES)
        if source != to
        and (
            any(
                gets_in(policy, (source, to), request, domain, NOW)
                for domain in policy.trust_domains
                for request in INSIDE
            )
            or any(_exempt(policy, source, to))
        )
    }


def _exempt(policy: Policy, source: Namespace, to: Namespace) -> Iterator[bool]:
    oracle = Oracle(policy, NOW)
    for peer, exemptions in policy.exemptions.items():
        if peer.namespace == source:
            yield from (
                isinstance(oracle.straight(peer, to, it.port, it), Allow) for it in exemptions
            )


def path(policy: Policy, start: str, goal: str, *, through: bool = False) -> list[Step] | None:
    return Paths(policy, NOW, (start, goal)).shortest(through=through)


@settings(max_examples=60)
@given(policies(), st.sampled_from(NAMESPACES), st.sampled_from(NAMESPACES))
def test_it_proves_what_decide_says(policy: Policy, start: Namespace, goal: Namespace) -> None:
    if start == goal:
        return
    known = edges(policy)
    assert (path(policy, start, goal) is not None) == ((start, goal) in known)
    reached, more = {start}, {start}
    while more:
        more = {to for source, to in known if source in reached} - reached
        reached |= more
    found = path(policy, start, goal, through=True)
    assert (found is not None) == (goal in reached)
    steps = found or []
    assert all((step.source, step.to) in known for step in steps if step.source in NAMESPACES)
    assert all(one.to == other.source for one, other in pairwise(steps))


@settings(max_examples=60)
@given(policies(), st.sampled_from(NAMED))
def test_anybody_is_everybody_of_another_tenant(policy: Policy, name: Namespace) -> None:
    others = [(a, b) for a, b in edges(policy) if not policy.same_tenant(a, b)]
    assert (path(policy, "*", name) is not None) == any(to == name for _, to in others)
    assert (path(policy, name, "*") is not None) == any(source == name for source, _ in others)
    assert (path(policy, "*", "*") is not None) == bool(others)


POLICY = Policy(
    namespaces={
        N("web"): NamespacePolicy("acme"),
        N("db"): NamespacePolicy("acme", accepts_public=False),
    },
    grants=(Grant(N("web"), N("bank"), "till", 8080), Grant(N("library"), EVERYONE)),
)


@pytest.mark.parametrize(
    ("start", "goal", "direct", "through"),
    [
        ("bank", "web", 1, 1),
        ("bank/till", "web", 1, 1),
        ("bank/other", "web", 0, 0),
        ("bank", "db", 0, 2),
        ("bank", "tenant:acme", 1, 1),
        ("tenant:acme", "bank", 0, 0),
        ("nobody", "library", 1, 1),
        ("library", "nobody", 0, 0),
        ("tenant:acme", "*", 1, 1),
        ("*", "db", 0, 2),
    ],
)
def test_paths_by_name(start: str, goal: str, direct: int, through: int) -> None:
    assert len(path(POLICY, start, goal) or ()) == direct
    assert len(path(POLICY, start, goal, through=True) or ()) == through


def test_from_outside_comes_only_who_is_let_in() -> None:
    gateway = SpiffeId.parse("spiffe://cluster.local/ns/istio-system/sa/gateway")
    policy = Policy(namespaces=POLICY.namespaces, roles={gateway: frozenset({Role.GATEWAY})})
    found = path(policy, PUBLIC, "web")
    assert found is not None
    (step,) = found
    assert (step.source, step.to, step.line.ways) == (PUBLIC, "web", (Way.OUTSIDE,))
    assert path(policy, PUBLIC, "db") is None
    assert [it.to for it in path(policy, PUBLIC, "db", through=True) or ()] == ["web", "db"]


@pytest.mark.parametrize("text", ["", "A", "a/b/c", "a/", "/b", "@private", "tenant:", "tenant:x"])
def test_an_end_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(BadSettings, match="--no-path"):
        path(POLICY, text, "web")
    with pytest.raises(BadSettings, match="--no-path"):
        path(POLICY, "web", text)


def test_nothing_ends_outside() -> None:
    with pytest.raises(BadSettings, match="and not end there"):
        path(POLICY, "web", PUBLIC)
