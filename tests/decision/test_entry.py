"""What gets into a pod: every row of `verify` and `tcp`, each denial beside a twin that passes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from authz.domain.decision import decide
from authz.domain.facts import Facts, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import PUBLIC
from authz.domain.policy import (
    ROLE_EXEMPTIONS,
    Exemption,
    Grant,
    NamespacePolicy,
    Role,
)
from authz.domain.reason import Reason
from authz.domain.verdict import Deny, Ground
from authz.testing import NOW, root_key, workload
from tests.decision.support import PROBES, ask, tcp, verify
from tests.small_mesh import (
    ACTIVATOR,
    DB,
    EVENTING,
    FOREIGN,
    GATEWAY,
    PARTNER,
    POLICY,
    PROMETHEUS,
    RULES,
    SCRAPE,
    WEB,
    N,
    token,
)

# -- verify: what mTLS proves by itself --------------------------------------------------------


def test_a_peer_of_the_same_tenant_needs_no_token() -> None:
    assert verify(DB, WEB) is Ground.PROVEN_PEER
    assert verify(DB, DB) is Ground.PROVEN_PEER
    assert verify(DB, FOREIGN) is Reason.TOKEN_MISSING


def test_a_peer_that_is_granted_needs_no_token() -> None:
    assert verify(DB, PARTNER) is Ground.PROVEN_PEER
    assert verify(WEB, PARTNER) is Reason.TOKEN_MISSING


def test_a_bad_token_from_an_allowed_peer_does_no_harm() -> None:
    for bad in (("garbage",), ("a", "b"), (token("globex", "acme-db"),)):
        assert verify(DB, WEB, *bad) is Ground.PROVEN_PEER


def test_a_namespace_named_like_a_tenant_does_not_belong_to_it() -> None:
    assert verify(DB, workload("acme")) is Reason.TOKEN_MISSING


def test_unlisted_namespaces_do_not_belong_together() -> None:
    assert verify(workload("x"), workload("y")) is Reason.TOKEN_MISSING
    assert verify(workload("x"), workload("x")) is Ground.PROVEN_PEER


def test_a_peer_with_a_role_proves_nothing_by_its_own_namespace() -> None:
    own = workload("knative-serving", "autoscaler")
    assert verify(own, ACTIVATOR) is Reason.TOKEN_MISSING
    assert verify(own, workload("knative-serving", "controller")) is Ground.PROVEN_PEER
    granted = replace(POLICY, grants=(Grant(N("acme-db"), N("knative-eventing")),))
    assert verify(DB, EVENTING, rules=replace(RULES, policy=granted)) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "principal",
    ["", "cluster.local/ns/acme-web/sa/default", "spiffe://other/ns/acme-web/sa/default", "CN=x"],
)
def test_a_peer_that_is_not_proven_is_nobody(principal: str) -> None:
    assert verify(DB, principal) is Reason.TOKEN_MISSING
    good = token("acme-web", "acme-db")
    assert verify(DB, principal, good) is Reason.PRESENTED_BY_A_STRANGER


# -- verify: tokens ----------------------------------------------------------------------------


def test_a_token_of_the_same_tenant_lets_in_through_a_hop() -> None:
    assert verify(DB, ACTIVATOR, token("acme-web", "acme-db")) is Ground.SAME_TENANT
    assert verify(DB, ACTIVATOR, token("acme-db", "acme-db")) is Ground.SAME_TENANT
    assert verify(DB, ACTIVATOR, token("globex", "acme-db")) is Reason.NO_GRANT


def test_a_granted_token_lets_in_through_a_hop() -> None:
    assert verify(DB, ACTIVATOR, token("initech", "acme-db")) is Ground.GRANTED
    assert verify(WEB, ACTIVATOR, token("initech", "acme-web")) is Reason.NO_GRANT


def test_a_relayed_request_without_a_token_is_denied() -> None:
    assert verify(DB, ACTIVATOR) is Reason.TOKEN_MISSING
    assert verify(DB, ACTIVATOR, token("acme-web", "acme-db")) is Ground.SAME_TENANT


def test_more_than_one_token_is_denied_even_if_all_are_good() -> None:
    good = token("acme-web", "acme-db")
    assert verify(DB, ACTIVATOR, good, good) is Reason.TOKEN_REPEATED
    assert verify(DB, ACTIVATOR, f"{good},{good}") is Reason.TOKEN_MALFORMED
    assert verify(DB, ACTIVATOR, good) is Ground.SAME_TENANT


def test_a_token_for_another_namespace_is_denied_even_within_the_tenant() -> None:
    elsewhere = token("acme-web", "acme-web")
    assert verify(DB, ACTIVATOR, elsewhere) is Reason.MEANT_FOR_ANOTHER_NAMESPACE
    assert verify(WEB, ACTIVATOR, elsewhere) is Ground.SAME_TENANT


def test_a_stolen_token_is_worth_nothing_to_a_tenant() -> None:
    stolen = token("acme-web", "acme-db")
    assert verify(DB, FOREIGN, stolen) is Reason.PRESENTED_BY_A_STRANGER
    assert verify(DB, ACTIVATOR, stolen) is Ground.SAME_TENANT


def test_a_token_may_be_presented_by_its_source_and_by_the_platform() -> None:
    """Of a source that is itself not let in, so that the presenter rule alone is seen."""
    own = token("globex", "acme-db")
    assert verify(DB, FOREIGN, own) is Reason.NO_GRANT
    assert verify(DB, GATEWAY, own) is Reason.NO_GRANT
    assert verify(DB, EVENTING, own) is Reason.NO_GRANT
    assert verify(DB, workload("mallory"), own) is Reason.PRESENTED_BY_A_STRANGER


def test_events_reach_the_namespace_that_the_trigger_belongs_to() -> None:
    assert verify(DB, EVENTING, token("acme-web", "acme-db", "")) is Ground.SAME_TENANT
    assert verify(DB, EVENTING, token("globex", "acme-db", "")) is Reason.NO_GRANT
    assert verify(DB, EVENTING) is Reason.TOKEN_MISSING


def test_a_public_token_is_believed_only_from_gateway_and_hops() -> None:
    public = token(PUBLIC, "acme-web", "")
    assert verify(WEB, GATEWAY, public) is Ground.FROM_OUTSIDE
    assert verify(WEB, ACTIVATOR, public) is Ground.FROM_OUTSIDE
    for thief in (FOREIGN, EVENTING, workload("istio-system", "kiali")):
        assert verify(WEB, thief, public) is Reason.PRESENTED_BY_A_STRANGER


def test_a_namespace_may_refuse_the_public() -> None:
    assert verify(DB, GATEWAY, token(PUBLIC, "acme-db", "")) is Reason.NOT_PUBLIC
    assert verify(WEB, GATEWAY, token(PUBLIC, "acme-web", "")) is Ground.FROM_OUTSIDE


def test_a_grant_to_everyone_is_not_a_grant_to_the_public() -> None:
    library = workload("library")
    assert verify(library, ACTIVATOR, token("globex", "library")) is Ground.GRANTED
    closed = replace(POLICY, namespaces={N("library"): NamespacePolicy(accepts_public=False)})
    public = token(PUBLIC, "library", "")
    rules = replace(RULES, policy=closed)
    assert verify(library, GATEWAY, public, rules=rules) is Reason.NOT_PUBLIC


def test_plaintext_counts_only_where_the_policy_lists_the_destination() -> None:
    legacy = workload("legacy")
    assert verify(legacy, "", token("legacy", "legacy")) is Ground.SAME_TENANT
    assert verify(DB, "", token("acme-web", "acme-db")) is Reason.PRESENTED_BY_A_STRANGER
    # And there for tokens only, and only on plaintext.
    assert verify(legacy, "") is Reason.TOKEN_MISSING
    federated = replace(FOREIGN, trust_domain="other")
    own = token("legacy", "legacy")
    assert verify(legacy, federated, own) is Reason.PRESENTED_BY_A_STRANGER


@pytest.mark.parametrize(
    ("account", "port", "now", "expected"),
    [
        ("reader", 8080, NOW, Ground.GRANTED),
        ("reader", 8080, NOW + 59, Ground.GRANTED),
        ("writer", 8080, NOW, Reason.NO_GRANT),
        ("reader", 8081, NOW, Reason.NO_GRANT),
        ("reader", 8080, NOW + 60, Reason.NO_GRANT),
        ("", 8080, NOW, Reason.NO_GRANT),
    ],
)
def test_a_narrow_grant_is_narrow(
    account: str, port: int, now: float, expected: Ground | Reason
) -> None:
    facts = Facts(
        caller=WEB,
        principal=str(ACTIVATOR),
        port=port,
        tokens=(token("narrow", "acme-web", account),),
    )
    verdict = decide(Question.VERIFY, facts, RULES, now)
    assert expected is (verdict.reason if isinstance(verdict, Deny) else verdict.ground)


def test_a_narrow_grant_is_narrow_for_proven_peers_too() -> None:
    assert verify(WEB, workload("narrow", "reader"), port=8080) is Ground.PROVEN_PEER
    assert verify(WEB, workload("narrow", "writer"), port=8080) is Reason.TOKEN_MISSING
    assert verify(WEB, workload("narrow", "reader"), port=80) is Reason.TOKEN_MISSING


def test_a_grant_to_a_long_account_name_is_found_by_its_hash() -> None:
    long = "a" * 100
    granted = replace(POLICY, grants=(Grant(N("acme-db"), N("globex"), long),))
    rules = replace(RULES, policy=granted)
    assert verify(DB, ACTIVATOR, token("globex", "acme-db", long), rules=rules) is Ground.GRANTED
    assert verify(DB, workload("globex", long), rules=rules) is Ground.PROVEN_PEER
    other = token("globex", "acme-db", "a" * 101)
    assert verify(DB, ACTIVATOR, other, rules=rules) is Reason.NO_GRANT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t[:-1], Reason.TOKEN_MALFORMED),
        (lambda t: "", Reason.TOKEN_MALFORMED),
        (lambda t: t.replace("00000001", "00000009"), Reason.KEY_UNKNOWN),
        (lambda t: t[:-2] + ("AA" if t[-2:] != "AA" else "BA"), Reason.SIGNATURE_WRONG),
    ],
)
def test_a_token_that_must_not_be_believed_is_denied(
    change: Callable[[str], str], reason: Reason
) -> None:
    good = token("acme-web", "acme-db")
    assert verify(DB, ACTIVATOR, change(good)) is reason
    assert verify(DB, ACTIVATOR, good) is Ground.SAME_TENANT


def test_expired_early_and_revoked_tokens_are_denied() -> None:
    assert (
        verify(DB, ACTIVATOR, token("acme-web", "acme-db", now=NOW - 720)) is Reason.TOKEN_EXPIRED
    )
    future = token("acme-web", "acme-db", now=NOW + 60)
    assert verify(DB, ACTIVATOR, future) is Reason.TOKEN_FROM_THE_FUTURE
    revoked = Keyring((root_key(1),), {N("acme-web"): NamespaceKeys(generation=1)})
    good = token("acme-web", "acme-db")
    rules = replace(RULES, keyring=revoked)
    assert verify(DB, ACTIVATOR, good, rules=rules) is Reason.KEY_REVOKED
    assert verify(DB, ACTIVATOR, good) is Ground.SAME_TENANT


def test_the_log_names_the_presenter_and_blames_no_source_that_is_not_proven() -> None:
    stolen, forged = token("acme-web", "acme-db"), token("acme-web", "acme-db")[:-3] + "AAA"
    mallory = workload("mallory")
    for received, source, claimed in (
        (stolen, "acme-web", None),
        (forged, "mallory", "acme-web"),
        ("garbage", "mallory", None),
    ):
        verdict = ask(Question.VERIFY, DB, principal=str(mallory), tokens=(received,))
        assert isinstance(verdict, Deny)
        parties = verdict.parties
        assert (parties.peer, parties.source, parties.claimed_source) == (mallory, source, claimed)


# -- verify: exemptions ------------------------------------------------------------------------


def test_an_exempt_peer_is_let_in_without_a_token() -> None:
    assert verify(DB, PROMETHEUS, **SCRAPE) is Ground.EXEMPT
    assert verify(DB, PROMETHEUS, **{**SCRAPE, "path": "/metrics?x=1"}) is Ground.EXEMPT


@pytest.mark.parametrize(
    "change",
    [
        {"port": 9090},
        {"path": "/metrics/"},
        {"path": "//metrics"},
        {"path": "/x/../metrics"},
        {"path": "/metrics%2f"},
        {"path": "/metrics#"},
        {"path": ""},
        {"user_agent": "prometheus/3.1"},
        {"user_agent": "x,Prometheus/3.1"},
        {"user_agent": ""},
    ],
)
def test_every_field_of_an_exemption_must_match(change: dict[str, Any]) -> None:
    assert verify(DB, PROMETHEUS, **{**SCRAPE, **change}) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "peer",
    [
        "",
        FOREIGN,
        replace(PROMETHEUS, service_account="x"),
        replace(PROMETHEUS, trust_domain="other"),
    ],
)
def test_no_header_exempts_another_peer(peer: SpiffeId | str) -> None:
    assert verify(DB, peer, **SCRAPE) is Reason.TOKEN_MISSING


@pytest.mark.parametrize("port", [8012, 8013])
@pytest.mark.parametrize("peer", PROBES)
def test_probes_that_queue_proxy_answers_itself_are_exempt(peer: SpiffeId, port: int) -> None:
    facts = {**PROBES[peer], "port": port}
    assert verify(DB, peer, **facts) is Ground.EXEMPT
    assert verify(DB, FOREIGN, **facts) is Reason.TOKEN_MISSING
    other = ACTIVATOR if peer is GATEWAY else EVENTING
    assert verify(DB, other, **facts) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "change",
    [
        {"queue_proxy": False},
        {"method": ""},
        {"method": "POST"},
        {"method": "HEAD"},
        {"method": "get"},
        {"path": "/"},
        {"path": "/healthz/"},
        {"path": "/x/healthz"},
        {"path": "/healthz/../admin"},
        {"path": ""},
        {"port": 8080},
        {"port": 9091},
        {"user_agent": ""},
        {"user_agent": "kube-probe/1.30"},
        {"user_agent": "x Knative-Activator-Probe"},
        {"user_agent": "x Knative-Ingress-Probe"},
        {"network_probe": ""},
        {"network_probe": "activator"},
        {"network_probe": "probe,queue"},
        {"network_probe": "Probe"},
        {"network_probe": "probe "},
    ],
)
@pytest.mark.parametrize("peer", PROBES)
def test_a_probe_that_differs_in_anything_exempts_nobody_who_passes_on(
    peer: SpiffeId, change: dict[str, Any]
) -> None:
    assert verify(DB, peer, **{**PROBES[peer], **change}) is Reason.TOKEN_MISSING


@pytest.mark.parametrize("peer", [ACTIVATOR, GATEWAY, EVENTING])
def test_a_policy_cannot_exempt_a_peer_with_a_role(peer: SpiffeId) -> None:
    """Any of them brings what a tenant had it send."""
    sloppy = replace(POLICY, exemptions={peer: (Exemption(8012),)})
    rules = replace(RULES, policy=sloppy)
    assert verify(DB, peer, rules=rules, port=8012, queue_proxy=True) is Reason.TOKEN_MISSING


def test_the_built_in_exemptions_are_a_closed_list() -> None:
    assert {
        (role, e.port, e.path, e.user_agent, e.network_probe)
        for role, exemptions in ROLE_EXEMPTIONS.items()
        for e in exemptions
    } == {
        (Role.TRANSIT, 8012, "/healthz", "Knative-Activator-Probe", "queue"),
        (Role.TRANSIT, 8013, "/healthz", "Knative-Activator-Probe", "queue"),
        (Role.GATEWAY, 8012, "/healthz", "Knative-Ingress-Probe", "probe"),
        (Role.GATEWAY, 8013, "/healthz", "Knative-Ingress-Probe", "probe"),
    }


# -- tcp ---------------------------------------------------------------------------------------


def test_raw_tcp_is_open_to_proven_and_exempt_peers_alone() -> None:
    assert tcp(DB, WEB) is Ground.PROVEN_PEER
    assert tcp(DB, PARTNER) is Ground.PROVEN_PEER
    assert tcp(DB, PROMETHEUS) is Ground.EXEMPT
    assert tcp(DB, PROMETHEUS, port=5433) is Reason.PEER_UNPROVEN
    assert tcp(DB, PROMETHEUS, port=9091) is Reason.PEER_UNPROVEN  # that one is for a path
    for peer in (FOREIGN, ACTIVATOR, GATEWAY, EVENTING, ""):
        assert tcp(DB, peer) is Reason.PEER_UNPROVEN


def test_no_token_opens_raw_tcp() -> None:
    verdict = ask(
        Question.TCP, DB, principal=str(ACTIVATOR), tokens=(token("acme-web", "acme-db"),)
    )
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.PEER_UNPROVEN
