"""A difference names what opens and what closes, and nothing else, by what `decide` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.hosts import HostTemplate
from authz.domain.names import Namespace, Service
from authz.domain.policy import EVERYONE, Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.reach.difference import Change, Difference, Turn, changes
from authz.reach.ways import Request, Way
from authz.testing import NOW, workload
from tests.reach.policies import MOMENTS, NAMESPACES, SOON, as_asked, gets_in, policies, requests

N = Namespace


@given(
    policies(),
    policies(),
    st.lists(
        st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(NAMESPACES), requests()),
        min_size=20,
        max_size=20,
    ),
)
def test_it_says_what_decide_says(
    old: Policy, new: Policy, asked: Sequence[tuple[Namespace, Namespace, tuple[Request, str]]]
) -> None:
    new = replace(new, trust_domains=old.trust_domains)
    found = Difference(old, new, NOW)
    for source, to, (request, domain) in asked:
        if domain not in old.trust_domains or request.service == "web-00001":
            continue
        answers = found.matrix.look_up(source, to)
        change = changes(answers).get(as_asked(answers, request, domain, source))
        before, after = (
            [gets_in(policy, (source, to), request, domain, now) for now in MOMENTS]
            for policy in (old, new)
        )
        turn = Turn.OPENS if sum(after) > sum(before) else Turn.CLOSES
        assert (change and change.turn) == (turn if before != after else None), request


@given(policies())
def test_what_says_the_same_differs_in_nothing(policy: Policy) -> None:
    again = replace(policy, grants=tuple(reversed(policy.grants)))
    found = Difference(policy, again, NOW)
    assert (found.rows, found.besides, found.turns()) == ([], [], set())


@given(policies(), policies())
def test_every_row_is_of_pairs_that_change(old: Policy, new: Policy) -> None:
    """And every pair that changes is in a row."""
    found = Difference(old, replace(new, trust_domains=old.trust_domains), NOW)
    groups = found.matrix.groups
    told = {
        (source, row.among, to)
        for row in found.rows
        for to in row.to
        for source in (row.sources if row.sources is not None else set(groups) - set(row.but))
        if not row.within or set(source.blocks) & set(to.blocks)
    }
    for source in groups:
        for to in groups:
            for among, (one, other) in source.pairs_with(to):
                changed = bool(changes(found.matrix.look_up(one, other)))
                if among.value == "itself":
                    assert not changed or (to, among, to) in told
                else:
                    assert changed == ((source, among, to) in told), (one, other)


GATEWAY = {workload("istio-system", "gateway"): frozenset({Role.GATEWAY})}
BASE = Policy(
    namespaces={N("web"): NamespacePolicy("acme"), N("db"): NamespacePolicy("acme")},
    grants=(Grant(N("db"), N("bank"), None, 8080),),
)


def told(old: Policy, new: Policy) -> list[tuple[list[str], list[str], str, Change]]:
    """Rows of named sources, in words."""
    return [
        (
            [str(member) for group in row.sources or () for member in group.members],
            [str(it) for group in row.to for it in group.members],
            str(row.line.ports),
            row.line.value,
        )
        for row in Difference(old, new, NOW).rows
    ]


def test_a_wider_grant_opens_the_other_ports() -> None:
    wider = replace(BASE, grants=(Grant(N("db"), N("bank")),))
    expected = Change(Turn.OPENS, None, inf, "grant")
    assert (["bank"], ["db"], "any but 8080", expected) in told(BASE, wider)
    assert (
        ["bank"],
        ["db"],
        "any but 8080",
        replace(expected, turn=Turn.CLOSES, before=inf, after=None),
    ) in told(wider, BASE)


def test_a_later_end_opens() -> None:
    first, later = (
        replace(BASE, grants=(Grant(N("db"), N("bank"), None, None, until),))
        for until in (SOON, SOON + 60)
    )
    assert (["bank"], ["db"], "any", Change(Turn.OPENS, SOON, SOON + 60, "grant")) in told(
        first, later
    )
    assert {it[-1].turn for it in told(later, first)} == {Turn.CLOSES}


def test_who_leaves_shadow_mode_is_closed_to_all() -> None:
    shadow = replace(BASE, namespaces={N("old"): NamespacePolicy(mode=Mode.SHADOW)}, grants=())
    rows = Difference(shadow, replace(shadow, namespaces={}), NOW).rows
    assert {row.line.value.because for row in rows} == {"mode shadow"}
    own = [row.line.ways for row in rows if row.sources is not None]
    assert own == [(Way.PLAINTEXT,)]  # which it let in from itself, too


def test_a_grant_to_everyone_is_one_row_and_no_role_is_overlooked() -> None:
    open_to_all = replace(BASE, grants=(*BASE.grants, Grant(N("library"), EVERYONE)))
    (row,) = Difference(BASE, open_to_all, NOW).rows
    assert (row.sources, row.line.ways) == (None, (Way.PEER, Way.TCP))
    trusting = replace(BASE, roles={workload("x"): frozenset({Role.ON_BEHALF_OF})})
    found = Difference(BASE, trusting, NOW)
    assert (found.besides, found.turns()) == (["roles"], set(Turn))


def test_an_end_beyond_all_tokens_is_none() -> None:
    """People write 9999-12-31 for "no end"; and what ends then hides no grant that does not."""
    forever, endless = Grant(N("db"), N("bank")), Grant(N("db"), N("bank"), until=253_402_300_800)
    (one,) = {
        until
        for grants in ((forever,), (endless,), (endless, forever), (forever, endless))
        for _, _, _, change in told(replace(BASE, grants=()), replace(BASE, grants=grants))
        for until in [change.after]
    }
    assert one == inf


CHANGED: dict[str, Any] = {
    "cluster_domains": ("corp.example",),
    "trust_domains": frozenset({"cluster.local", "two"}),
    "relays": frozenset({Service("gateway", N("web"))}),
    "default_mode": Mode.OFF,
    "default_public": False,
    "namespaces": {**BASE.namespaces, N("db"): NamespacePolicy("acme", plaintext_peers=True)},
    "grants": (),
    "roles": {**GATEWAY, workload("web"): frozenset({Role.TRANSIT})},
    "exemptions": {workload("web"): (Exemption(9091),)},
    "hosts": {"a.example": N("web")},
    "host_templates": (HostTemplate.parse("{{.Name}}.{{.Namespace}}.a.example"),),
    "claims": {"a.example": N("web")},
    "route_owners": frozenset({N("web")}),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Policy) if field.init])
def test_a_change_of_any_field_is_told(name: str) -> None:
    base = replace(BASE, roles=GATEWAY)
    assert Difference(base, replace(base, **{name: CHANGED[name]}), NOW).turns()
    assert not Difference(base, replace(base), NOW).turns()
