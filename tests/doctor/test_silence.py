"""Silent on whatever a real istiod sent where all is sound; where something is not, that alone."""

from __future__ import annotations

import json

import pytest

from authz.doctor import Expected, Finding, Rule, examine, read_dump
from authz.envoyfilters import Patches, shipped
from authz.lab.recordings import Recordings, Sent, Variant, versions
from tests.doctor.proxies import PLAINTEXT, as_dump
from tests.doctor.record import FILE

pytestmark = pytest.mark.timeout(600)  # a world is thirty proxies
EXPECTED = Expected(shipped(), plaintext=PLAINTEXT)
OURS = Patches.of(shipped())
LIKE_OTHERS = ("acme-db/", "acme-web/", "initech/", "umbrella/")
"""Tenants whose pods differ from globex's and mallory's in names alone."""

PERMISSIVE = {Rule.PLAINTEXT, Rule.COLD_START}
PLAIN_GATEWAY = {Rule.GATEWAY_PLAINTEXT, Rule.CLUSTER_PLAINTEXT}
UNMANAGED = {Rule.CLUSTER_OUTLIER, Rule.CLUSTER_TIMES, Rule.CLUSTER_PLAINTEXT}
HOLES = {
    "PERMISSIVE everywhere": PERMISSIVE,
    "PERMISSIVE everywhere, with filters": PERMISSIVE,
    "attacked PERMISSIVE": set(),  # in acme-db alone
    "examined, globex PERMISSIVE": PERMISSIVE,
    "standard, globex PERMISSIVE": PERMISSIVE,
    "attacked without AuthorizationPolicy": {Rule.NO_POLICY},
    "examined without AuthorizationPolicy": {Rule.NO_POLICY},
    "attacked without knative-local-gateway": PLAIN_GATEWAY,
    "attacked without knative-local-gateway, with filters": PLAIN_GATEWAY,
    "examined without Gateway": {Rule.GATEWAY_PLAINTEXT},
    "examined without DestinationRule": UNMANAGED,
    "examined, where globex does not see the service": {Rule.CLUSTER_MISSING},
    "bare": UNMANAGED | {Rule.NO_POLICY, Rule.GATEWAY_PLAINTEXT},
}
"""What is wrong in the worlds that lack something of ours."""

ELSEWHERE = [variant.name for variant in Recordings.read(FILE).variants]


def found_in(sent: Sent, pod: str) -> list[Finding]:
    kinds = {"listeners": sent.listeners, "clusters": sent.clusters, "routes": sent.routes}
    text = json.dumps(as_dump(sent.node, kinds, dynamic=True))
    return examine(read_dump(text, pod), EXPECTED)


@pytest.mark.parametrize("version", versions())
def test_the_recorded_worlds(version: str) -> None:
    """Many proxies are the same in several worlds: each is examined once."""
    seen: dict[str, list[Finding]] = {}
    for variant in Recordings.of(version).variants:
        rules = set()
        for pod in variant:
            key = f"{variant.filters} {variant._proxies[pod]}"
            if pod.startswith(LIKE_OTHERS):
                continue
            if key not in seen:
                sent = variant[pod] if variant.filters else variant[pod].patched(OURS)
                seen[key] = found_in(sent, pod)
            assert variant.name in HOLES or not seen[key], (variant.name, pod)
            rules |= {finding.rule for finding in seen[key]}
        assert rules == HOLES.get(variant.name, set()), variant.name


@pytest.mark.parametrize("name", ELSEWHERE)
def test_tproxy_ipv6_dual_stack_logs_and_what_users_have(name: str) -> None:
    variant = _named(Recordings.read(FILE), name)
    for pod in variant:
        assert found_in(variant[pod], pod) == [], pod


def test_the_other_worlds_are_what_they_say() -> None:
    tproxy = _named(Recordings.read(FILE), "as it comes, TPROXY")["globex/plain"]
    six = _named(Recordings.read(FILE), "as it comes, IPv6")["globex/plain"]
    both = _named(Recordings.read(FILE), "as it comes, dual stack")["globex/plain"]
    users = _named(Recordings.read(FILE), "logging, REDIRECT, users' objects")["globex/plain"]
    assert "OriginalSrc" in str(tproxy.listeners)
    assert "'address': '::'" in str(six.listeners)
    assert "additional_addresses" in str(both.listeners)
    for word in ("/dev/stdout", "policy[own]", "policy[never]"):
        assert word in str(users.listeners)
    assert "request_headers_to_remove" in str(users.routes)
    assert "api.example.com" in str(users.clusters)
    assert "inbound|7000||" in str(users.clusters)  # a Sidecar's ingress
    world = _named(Recordings.read(FILE), "as it comes, REDIRECT, users' objects")
    edge, egress = world["globex/edge"], world["istio-system/egress"]
    assert edge.node["id"].startswith("router~")
    assert "kubernetes://clients-cacert" in str(edge.listeners)
    assert "'require_client_certificate': True" in str(egress.listeners)


def _named(recordings: Recordings, name: str) -> Variant:
    [found] = [it for it in recordings.variants if it.name == name]
    return found
