"""What others use, beside ours: what is played, and how it is counted."""

from __future__ import annotations

import pytest

from authz.testing import Outcome
from loadtest.incumbent import TENANTS, WAYS, Played, chosen, counts, gets_in, policies


def test_every_namespace_has_a_policy_of_its_own_and_every_hop_one_of_each_tenant() -> None:
    made = [(policy["metadata"]["namespace"], policy["metadata"]["name"]) for policy in policies()]
    assert len(set(made)) == len(made)
    assert {it for several in TENANTS.values() for it in several} <= {it for it, _ in made}
    for tenant in TENANTS:
        assert ("knative-serving", f"{tenant}-to-activator") in made
        assert ("knative-eventing", f"{tenant}-to-broker-ingress") in made


def test_nothing_that_authorizes_is_left_of_what_ships() -> None:
    documents = ({"kind": "EnvoyFilter"}, {"kind": "AuthorizationPolicy"}, {"kind": "Gateway"})
    assert list(WAYS["mutual TLS alone"](documents)) == [{"kind": "Gateway"}]


def test_who_may_get_in_is_what_the_tables_say() -> None:
    may = {case.name: may for case, may in chosen()}
    assert may["activator-sibling"]
    assert may["activator-granted"]
    assert may["public-outside"]
    assert not may["activator-foreign"]
    assert not may["mapping-not-public-outside"]
    assert not may["event-broker-foreign"]
    assert not may["steered-activator"]
    assert not any(name.startswith("probe-") for name in may)


@pytest.mark.parametrize(
    ("came", "inside"),
    [
        ("200 acme-db/hello; sign", True),
        ("delivered", True),
        ("16 bytes", True),
        ("403 not-allowed, BUT THE APP SAW IT; verify", True),
        ("403 rbac", False),
        ("not delivered; sign", False),
        ("0 bytes", False),
        ("no answer", False),
    ],
)
def test_what_counts_as_in(came: str, inside: bool) -> None:
    assert gets_in(Outcome(came)) is inside


def test_ways_are_counted_by_what_may() -> None:
    nobody, everybody = dict.fromkeys(WAYS, False), dict.fromkeys(WAYS, True)
    found = [Played("a", "", True, everybody), Played("b", "", False, nobody)]
    assert {count["may get in, and does"] for count in counts(found)} == {"1 of 1"}
    assert {it["may not, and does"] for it in counts(found)} == {"0 of 1"}
