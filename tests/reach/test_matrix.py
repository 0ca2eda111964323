"""The matrix says what `decide` says, for every pair, and takes no more time than it must."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.names import Namespace
from authz.domain.policy import Grant, NamespacePolicy, Policy
from authz.reach.matrix import Matrix
from authz.reach.ways import Request
from authz.testing import NOW
from tests.reach.policies import MOMENTS, NAMESPACES, as_asked, gets_in, policies, requests


@given(policies(), st.lists(requests(), min_size=3, max_size=3))
def test_it_says_what_decide_says(policy: Policy, asked: Sequence[tuple[Request, str]]) -> None:
    matrix = Matrix([policy], NOW)
    for (source, to), (request, domain) in product(product(NAMESPACES, NAMESPACES), asked):
        if domain not in policy.trust_domains or request.service == "web-00001":
            continue
        answers = matrix.look_up(source, to)
        opening = answers.open[0].get(as_asked(answers, request, domain, source))
        until = -1.0 if opening is None else opening.until
        for now in MOMENTS:
            assert (now < until) == gets_in(policy, (source, to), request, domain, now), request


@given(st.lists(policies(), min_size=1, max_size=2))
def test_groups_hide_no_pair(several: list[Policy]) -> None:
    """What is said of a group is so for each pair, under one policy and under two."""
    matrix = Matrix(several, NOW)
    for source, to in product(NAMESPACES, NAMESPACES):
        assert matrix.look_up(source, to) == matrix.pairs.answers(source, to), (source, to)


def test_what_is_alike_is_looked_at_once() -> None:
    """Tenants that nothing tells apart are one group, however many there are."""
    tenants = {
        Namespace(f"t{number}-{part}"): NamespacePolicy(f"t{number}")
        for number in range(100)
        for part in "ab"
    }
    linked = Grant(Namespace("t0-a"), Namespace("t1-a"))
    groups = Matrix([Policy(namespaces=tenants, grants=(linked,))], NOW).groups
    sizes = sorted(len(group.members) for group in groups if not group.unnamed)
    assert sizes == [1, 1, 1, 1, 7, 196]  # t0, t1, the platform's namespaces, all others


def test_two_of_a_tenant_to_be_are_not_alike_with_two_of_one_that_is() -> None:
    """Nor are as many namespaces without a tenant as many groups."""
    names = [Namespace(f"{tenant}{number}") for tenant in "ab" for number in range(100)]
    of = [{it: NamespacePolicy(it[0]) for it in names if it[0] in has} for has in ("a", "ab")]
    matrix = Matrix([Policy(namespaces=each) for each in of], NOW)
    assert sorted(len(it.members) for it in matrix.groups if not it.unnamed) == [7, 100, 100]
    for tenant, expected in (("a", [True, True]), ("b", [False, True])):
        answers = matrix.look_up(Namespace(f"{tenant}0"), Namespace(f"{tenant}1"))
        assert [bool(each) for each in answers.open] == expected
