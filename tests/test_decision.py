"""Every row of the decision tables, each denial beside a legitimate twin that passes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain import tokens
from authz.domain.decision import Rules, decide, decide_in_doubt
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import PUBLIC
from authz.domain.policy import (
    EVERYONE,
    ROLE_EXEMPTIONS,
    Exemption,
    Grant,
    Mode,
    NamespacePolicy,
    Role,
)
from authz.domain.reason import Outward, Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, SetToken
from authz.testing import NOW, root_key, workload
from tests.small_mesh import (
    ACTIVATOR,
    AUTOSCALER,
    DB,
    EVENTING,
    FOREIGN,
    GATEWAY,
    HELLO,
    IN_ISTIO,
    LOCAL_GATEWAY,
    OWN,
    PARTNER,
    POLICY,
    PROMETHEUS,
    RULES,
    SCALING,
    SCRAPE,
    WEB,
    N,
    token,
)


def ask(
    question: Question | None, caller: SpiffeId, rules: Rules = RULES, **facts: Any
) -> Allow | Deny:
    """Decide on facts of which only some are given."""
    return decide(question, Facts(caller=caller, **facts), rules, NOW)


def verify(
    destination: SpiffeId,
    peer: SpiffeId | str,
    *received: str,
    rules: Rules = RULES,
    **facts: Any,
) -> Ground | Reason:
    """Why `destination` lets a request in or not; any allow must strip the token."""
    verdict = ask(
        Question.VERIFY, destination, rules, principal=str(peer), tokens=received, **facts
    )
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.REMOVE
    return verdict.ground


def signed(verdict: Allow | Deny) -> tokens.Claims | None:
    """The claims of the token that was put on; `None` if what the client sent is removed."""
    assert isinstance(verdict, Allow)
    if isinstance(verdict.header, SetToken):
        assert verdict.ground is Ground.SIGNED
        received = tokens.parse(verdict.header.token)
        return tokens.verify(received, keyring=RULES.keyring, now=NOW, life=RULES.life).claims
    assert (verdict.header, verdict.ground) == (HeaderAction.REMOVE, Ground.LEFT_THE_MESH)
    return None


def claims(source: str, destination: str, account: str = "default") -> tokens.Claims:
    """The claims of a token that is minted now."""
    now = int(NOW)
    return tokens.Claims(N(source), account, N(destination), now, now + RULES.life.seconds)


# -- who asks what -----------------------------------------------------------------------------


def test_a_question_that_is_none_is_denied() -> None:
    verdict = ask(None, WEB, upstream=IN_ISTIO.format("acme-db"))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.QUESTION_UNKNOWN


@pytest.mark.parametrize("question", list(Question))
def test_a_caller_of_another_trust_domain_is_denied_whatever_it_asks(question: Question) -> None:
    for mode in Mode:
        rules = replace(RULES, policy=replace(POLICY, default_mode=mode))
        for role_holder in (WEB, ACTIVATOR, GATEWAY):
            stranger = replace(role_holder, trust_domain="other")
            verdict = ask(question, stranger, rules, principal=str(WEB), hop=Hop.GATEWAY)
            assert isinstance(verdict, Deny)
            assert verdict.reason is Reason.CALLER_UNTRUSTED


@pytest.mark.parametrize("caller", [WEB, EVENTING, replace(ACTIVATOR, service_account="default")])
def test_transit_needs_its_role(caller: SpiffeId) -> None:
    facts: dict[str, Any] = {
        "hop": Hop.GATEWAY,
        "upstream": IN_ISTIO.format("acme-db"),
        "principal": str(WEB),
        "tokens": (token("acme-web", "acme-db"),),
    }
    verdict = ask(Question.TRANSIT, caller, **facts)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.ROLE_REQUIRED

    assert isinstance(ask(Question.TRANSIT, ACTIVATOR, **facts), Allow)


@pytest.mark.parametrize("caller", [WEB, ACTIVATOR, EVENTING, workload("istio-system", "kiali")])
def test_public_needs_its_role(caller: SpiffeId) -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("acme-web"), "virtual_service": HELLO}
    verdict = ask(Question.PUBLIC, caller, **facts)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.ROLE_REQUIRED

    assert signed(ask(Question.PUBLIC, GATEWAY, **facts)) == claims(PUBLIC, "acme-web", "")


def test_roles_belong_to_a_service_account_in_a_trust_domain_not_to_a_namespace() -> None:
    good = token("acme-web", "acme-db")
    assert verify(DB, ACTIVATOR, good) is Ground.SAME_TENANT
    neighbour = workload("knative-serving", "controller")
    assert verify(DB, neighbour, good) is Reason.PRESENTED_BY_A_STRANGER
    federated = replace(ACTIVATOR, trust_domain="other")
    assert verify(DB, federated, good) is Reason.PRESENTED_BY_A_STRANGER


# -- sign --------------------------------------------------------------------------------------


def test_sign_makes_a_token_of_the_caller_for_where_envoy_sends_the_request() -> None:
    verdict = ask(Question.SIGN, WEB, upstream=IN_ISTIO.format("globex"), host="app.victim.svc")
    assert signed(verdict) == claims("acme-web", "globex")


@pytest.mark.parametrize(
    "upstream",
    [
        "PassthroughCluster",
        "",
        "-",
        "outbound|80||example.com",
        "inbound|80||",
        "outbound|443||1.2.3.4",
    ],
)
@pytest.mark.parametrize("host", ["app.acme-db.svc.cluster.local", "10.1.2.3", "app.dev"])
def test_sign_never_lets_a_token_leave_the_mesh(upstream: str, host: str) -> None:
    verdict = ask(Question.SIGN, WEB, upstream=upstream, host=host, tokens=("forged",))
    assert signed(verdict) is None


@pytest.mark.parametrize("suffix", [";", "_;", " ", "|x"])
def test_a_name_for_statistics_gets_no_token_and_is_seen(suffix: str) -> None:
    """What Envoy says with %UPSTREAM_CLUSTER% where istiod gives clusters an alt_stat_name."""
    for upstream in (IN_ISTIO.format("globex") + suffix, LOCAL_GATEWAY + suffix, "x" * 1000):
        facts: dict[str, Any] = {"upstream": upstream, "host": "app.globex.svc.cluster.local"}
        for question, caller in ((Question.SIGN, WEB), (Question.PUBLIC, GATEWAY)):
            verdict = ask(question, caller, tokens=("forged",), **facts)
            assert isinstance(verdict, Allow)
            assert verdict.ground is Ground.UPSTREAM_UNREADABLE
            assert verdict.header is HeaderAction.REMOVE
            assert verdict.parties.upstream == upstream[:128]
        denied = ask(Question.TRANSIT, GATEWAY, hop=Hop.GATEWAY, principal=str(WEB), **facts)
        assert isinstance(denied, Deny)
        assert denied.reason is Reason.UPSTREAM_UNREADABLE
        assert denied.parties.upstream == upstream[:128]


@pytest.mark.parametrize(
    ("host", "destination"),
    [
        ("app.globex.svc.cluster.local", "globex"),
        ("app.globex", "globex"),
        ("app", "acme-web"),
        ("example.com.org", None),
        ("10.1.2.3", None),
        ("", None),
    ],
)
def test_sign_looks_at_the_host_only_where_a_relay_does(host: str, destination: str | None) -> None:
    relayed = signed(ask(Question.SIGN, WEB, upstream=LOCAL_GATEWAY, host=host))
    assert relayed == (None if destination is None else claims("acme-web", destination))

    elsewhere = LOCAL_GATEWAY.replace("local-gateway.istio-system", "local-gateway.globex")
    assert signed(ask(Question.SIGN, WEB, upstream=elsewhere, host=host)) == claims(
        "acme-web", "globex"
    )


@pytest.mark.parametrize(
    ("host", "destination"),
    [
        ("app.globex.svc.cluster.local", "globex"),
        ("app.globex.svc", "globex"),
        ("api.internal", "acme-web"),
        ("API.internal.:443", "acme-web"),
        ("app.globex", None),
        ("app", None),
        ("app.dev", None),
        ("10.1.2.3", None),
    ],
)
def test_outside_istio_only_hosts_that_cannot_be_public_are_signed_for(
    host: str, destination: str | None
) -> None:
    verdict = ask(Question.SIGN, WEB, upstream=None, host=host)
    assert signed(verdict) == (None if destination is None else claims("acme-web", destination))


def test_a_transit_hop_passes_its_requests_token_on_untouched() -> None:
    for received in (("anything",), ("one", "two"), ("",)):
        verdict = ask(
            Question.SIGN, ACTIVATOR, upstream=IN_ISTIO.format("acme-db"), tokens=received
        )
        assert isinstance(verdict, Allow)
        assert (verdict.header, verdict.ground) == (HeaderAction.KEEP, Ground.PASSED_ON)


@pytest.mark.parametrize(
    ("upstream", "host"),
    [
        ("PassthroughCluster", "thief.example"),
        ("outbound|80||thief.example", "thief.example"),
        (None, "thief.example"),
    ],
)
def test_a_transit_hop_takes_its_requests_token_off_on_the_way_out_of_the_mesh(
    upstream: str | None, host: str
) -> None:
    """A broker's status names the address to which its ingress sends what it carries."""
    verdict = ask(Question.SIGN, ACTIVATOR, upstream=upstream, host=host, tokens=("anything",))
    assert isinstance(verdict, Allow)
    assert (verdict.header, verdict.ground) == (HeaderAction.REMOVE, Ground.LEFT_THE_MESH)


def test_a_transit_hop_signs_its_own_requests_as_itself() -> None:
    verdict = ask(Question.SIGN, ACTIVATOR, upstream=IN_ISTIO.format("knative-serving"))
    assert signed(verdict) == claims("knative-serving", "knative-serving", "activator")


def test_nobody_else_passes_a_token_on() -> None:
    for caller in (WEB, EVENTING):
        verdict = ask(
            Question.SIGN, caller, upstream=IN_ISTIO.format("acme-db"), tokens=("forged",)
        )
        assert signed(verdict) is not None


def test_eventing_signs_for_the_namespace_that_an_event_comes_from() -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("globex")}
    verdict = ask(Question.SIGN, EVENTING, kn_namespace=("acme-web",), **facts)
    assert signed(verdict) == claims("acme-web", "globex", "")


@pytest.mark.parametrize("named", [(), ("",), ("a", "b"), ("a,b",), ("@public",), ("A",), ("a b",)])
def test_eventing_without_one_namespace_signs_as_itself(named: tuple[str, ...]) -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("globex")}
    verdict = ask(Question.SIGN, EVENTING, kn_namespace=named, **facts)
    assert signed(verdict) == claims("knative-eventing", "globex", "mt-broker-filter")


def test_a_hop_that_names_whom_it_sends_for_passes_no_token_on() -> None:
    both = frozenset({Role.ON_BEHALF_OF, Role.TRANSIT})
    rules = replace(RULES, policy=replace(POLICY, roles={**POLICY.roles, EVENTING: both}))
    facts = {"upstream": IN_ISTIO.format("acme-db"), "tokens": (token("acme-web", "acme-db"),)}
    named = ask(Question.SIGN, EVENTING, rules, kn_namespace=("globex",), **facts)
    assert signed(named) == claims("globex", "acme-db", "")
    unnamed = ask(Question.SIGN, EVENTING, rules, **facts)
    assert isinstance(unnamed, Allow)
    assert unnamed.ground is Ground.PASSED_ON


def test_eventing_sends_no_token_out_of_the_mesh() -> None:
    verdict = ask(
        Question.SIGN, EVENTING, kn_namespace=("acme-web",), upstream="PassthroughCluster"
    )
    assert signed(verdict) is None


@pytest.mark.parametrize("caller", [WEB, ACTIVATOR, GATEWAY])
def test_nobody_else_signs_for_another_namespace(caller: SpiffeId) -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("globex")}
    verdict = ask(Question.SIGN, caller, kn_namespace=("victim",), **facts)
    made = signed(verdict)
    assert made is not None
    assert made.source == caller.namespace


def test_sign_and_public_ignore_modes() -> None:
    for mode in Mode:
        rules = replace(RULES, policy=replace(POLICY, default_mode=mode))
        facts: dict[str, Any] = {"upstream": IN_ISTIO.format("globex")}
        assert signed(ask(Question.SIGN, WEB, rules, **facts)) == claims("acme-web", "globex")
        assert isinstance(ask(Question.PUBLIC, WEB, rules, **facts), Deny)


# -- public ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upstream", "virtual_service", "destination"),
    [
        (IN_ISTIO.format("acme-web"), HELLO, "acme-web"),
        (IN_ISTIO.format("acme-db"), HELLO, "acme-db"),  # the route's backend, not its owner
        (LOCAL_GATEWAY, HELLO, "acme-web"),  # a DomainMapping
        (LOCAL_GATEWAY, "", None),
        (LOCAL_GATEWAY, "/apis/x/namespaces/acme-web/virtual-service/hello", None),
        ("PassthroughCluster", HELLO, None),
        ("", HELLO, None),
    ],
)
def test_public_makes_a_token_for_where_the_gateway_sends_the_request(
    upstream: str, virtual_service: str, destination: str | None
) -> None:
    verdict = ask(
        Question.PUBLIC,
        GATEWAY,
        upstream=upstream,
        virtual_service=virtual_service,
        host="app.victim.svc.cluster.local",
        tokens=("forged",),
    )
    assert signed(verdict) == (None if destination is None else claims(PUBLIC, destination, ""))


def test_public_denies_what_a_route_may_not_open_and_says_whose_it_is() -> None:
    verdict = ask(
        Question.PUBLIC, GATEWAY, upstream=IN_ISTIO.format("globex"), virtual_service=HELLO
    )
    assert isinstance(verdict, Deny)
    assert (verdict.reason, verdict.parties.route_of) == (Reason.ROUTE_FOREIGN, N("acme-web"))
    assert (verdict.parties.source, verdict.parties.destination) == (PUBLIC, N("globex"))


def test_the_mode_rules_what_a_route_may_not_open_and_no_token_goes_there() -> None:
    for namespace, recorded in (("umbrella", Reason.ROUTE_FOREIGN), ("carefree", None)):
        upstream = IN_ISTIO.format(namespace)
        verdict = ask(Question.PUBLIC, GATEWAY, upstream=upstream, virtual_service=HELLO)
        assert isinstance(verdict, Allow)
        assert verdict.header is HeaderAction.REMOVE
        assert (verdict.ground, verdict.would_deny) == (Ground.NOT_ENFORCED, recorded)


@pytest.mark.parametrize(
    ("hop", "facts", "expected"),
    [
        (Hop.GATEWAY, {"upstream": "outbound|80||app.shop.svc.cluster.local"}, True),
        (Hop.GATEWAY, {"upstream": "outbound|80||app-00007.shop.svc.cluster.local"}, True),
        (Hop.GATEWAY, {"upstream": "outbound|80||db.shop.svc.cluster.local"}, False),
        (Hop.ACTIVATOR, {"host": "any.shop.svc.cluster.local"}, True),  # the gateway has looked
        (Hop.BROKER, {"path": "/shop/default"}, False),
    ],
)
def test_a_hop_lets_the_public_to_the_services_that_are_listed(
    hop: Hop, facts: dict[str, str], expected: bool
) -> None:
    """Behind a DomainMapping, the local gateway is the first that knows the Service."""
    shop = NamespacePolicy(accepts_public=frozenset({"app"}))
    rules = replace(RULES, policy=replace(POLICY, namespaces={N("shop"): shop}))
    meant_for = "istio-system" if hop is Hop.BROKER else "shop"
    verdict = ask(
        Question.TRANSIT,
        GATEWAY,
        rules,
        hop=hop,
        principal=str(GATEWAY),
        tokens=(token(PUBLIC, meant_for, ""),),
        **facts,
    )
    if expected:
        assert isinstance(verdict, Allow)
    else:
        assert isinstance(verdict, Deny)
        assert verdict.reason is Reason.NOT_PUBLIC


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


PROBE: dict[str, Any] = {"port": 8012, "path": "/healthz", "method": "GET", "queue_proxy": True}
PROBES: dict[SpiffeId, dict[str, Any]] = {
    ACTIVATOR: {**PROBE, "user_agent": "Knative-Activator-Probe", "network_probe": "queue"},
    GATEWAY: {**PROBE, "user_agent": "Knative-Ingress-Probe", "network_probe": "probe"},
}
"""Each as its prober sends it."""


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


# -- transit -----------------------------------------------------------------------------------


def transit(
    hop: Hop | None, *received: str, peer: SpiffeId | str = FOREIGN, **facts: Any
) -> Ground | Reason:
    """Why a hop passes a request on or not; any allow must keep the token."""
    verdict = ask(
        Question.TRANSIT, ACTIVATOR, hop=hop, principal=str(peer), tokens=received, **facts
    )
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.KEEP
    return verdict.ground


WHERE: list[tuple[Hop, dict[str, Any]]] = [
    (Hop.GATEWAY, {"upstream": IN_ISTIO.format("acme-db")}),
    (
        Hop.GATEWAY,
        {"upstream": LOCAL_GATEWAY, "virtual_service": HELLO.replace("acme-web", "acme-db")},
    ),
    (Hop.ACTIVATOR, {"serving_namespace": ("acme-db",), "serving_revision": ("r",)}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local"}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local", "serving_namespace": ("globex",)}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local", "serving_revision": ("r",)}),
    (Hop.CHANNEL, {"host": "c-kn-channel.acme-db.svc.cluster.local", "path": "/"}),
    (Hop.CHANNEL, {"host": "imc-dispatcher.knative-eventing.svc", "path": "/acme-db/c?x=/"}),
    (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/acme-db/c"}),
]


@pytest.mark.parametrize(("hop", "facts"), WHERE)
def test_transit_decides_as_verify_would_for_where_the_hop_will_send_it(
    hop: Hop, facts: dict[str, Any]
) -> None:
    assert transit(hop, token("acme-web", "acme-db"), peer=WEB, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("acme-web", "acme-db"), peer=GATEWAY, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("initech", "acme-db"), peer=PARTNER, **facts) is Ground.GRANTED
    assert transit(hop, token("globex", "acme-db"), **facts) is Reason.NO_GRANT
    assert transit(hop, token("globex", "globex"), **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE
    assert transit(hop, **facts) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(("hop", "facts"), [it for it in WHERE if it[0] is not Hop.CHANNEL])
def test_a_token_for_the_hop_itself_counts_where_eventing_carries_it_and_nowhere_else(
    hop: Hop, facts: dict[str, Any]
) -> None:
    own = token("acme-web", ACTIVATOR.namespace)
    assert transit(hop, own, peer=WEB, **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("acme-web", Ground.SAME_TENANT),
        ("initech", Ground.GRANTED),
        ("globex", Reason.NO_GRANT),  # who made a broker of its own point at this channel
    ],
)
def test_an_event_goes_on_to_the_channel_by_the_token_that_brought_it(
    source: str, expected: Ground | Reason
) -> None:
    hop, facts = WHERE[-1]
    carried = token(source, ACTIVATOR.namespace)
    kept = ask(Question.SIGN, ACTIVATOR, upstream=IN_ISTIO.format("x"), tokens=(carried,))
    assert isinstance(kept, Allow)
    assert kept.header is HeaderAction.KEEP
    assert transit(hop, carried, peer=ACTIVATOR, **facts) is expected
    assert transit(hop, carried, peer=PROMETHEUS, **facts) is Reason.PRESENTED_BY_A_STRANGER


@pytest.mark.parametrize(
    ("hop", "path"),
    [
        (Hop.BROKER, "/acme-db/default"),
        (Hop.BROKER, "/acme-db?x"),
        (Hop.TRIGGER, "/triggers/acme-db/trigger/uid"),
        (Hop.TRIGGER, "/triggers/acme-db?x"),
        (Hop.JOB_SINK, "/acme-db/sink"),
        (Hop.JOB_SINK, "/acme-db/sink/"),
        (Hop.JOB_SINK, "/acme-db/sink?x"),
        (Hop.JOB_SINK, "/namespaces/acme-db/name/sink/sources/s%2Ft/ids/1"),
        (Hop.REQUEST_REPLY, "/acme-db/asked"),
        (Hop.REQUEST_REPLY, "/acme-db/asked/reply"),
    ],
)
def test_a_hop_that_goes_by_the_path_is_where_its_tokens_are_made_for(hop: Hop, path: str) -> None:
    """Signing does not look at paths, so each token on the way to Eventing is one for Eventing."""
    own = str(ACTIVATOR.namespace)
    facts = {"path": path}
    assert transit(hop, token("acme-web", own), peer=WEB, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("initech", own), peer=PARTNER, **facts) is Ground.GRANTED
    assert transit(hop, token("globex", own), **facts) is Reason.NO_GRANT
    stolen = token("acme-web", own)
    assert transit(hop, stolen, **facts) is Reason.PRESENTED_BY_A_STRANGER
    meant_for_db = token("acme-web", "acme-db")
    assert transit(hop, meant_for_db, peer=WEB, **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE


@pytest.mark.parametrize("hop", [Hop.BROKER, Hop.CHANNEL, Hop.JOB_SINK, Hop.REQUEST_REPLY])
def test_a_grant_for_a_port_opens_no_hop_that_goes_by_the_path(hop: Hop) -> None:
    """No pod asks again: what is taken there, Eventing sends on in the destination's name."""
    rules = replace(RULES, policy=replace(POLICY, grants=(Grant(N("acme-db"), N("initech")),)))
    narrow = replace(
        RULES, policy=replace(POLICY, grants=(Grant(N("acme-db"), N("initech"), port=8012),))
    )
    own = token("initech", ACTIVATOR.namespace)
    for granted, expected in ((rules, Ground.GRANTED), (narrow, Reason.NO_GRANT)):
        facts: dict[str, Any] = {"path": "/acme-db/x", "port": 8012, "rules": granted}
        assert transit(hop, own, peer=PARTNER, **facts) is expected


@pytest.mark.parametrize(
    ("hop", "facts"),
    [
        (None, {"upstream": IN_ISTIO.format("globex")}),
        (Hop.GATEWAY, {"upstream": "PassthroughCluster", "host": "app.globex.svc"}),
        (Hop.GATEWAY, {"upstream": LOCAL_GATEWAY, "host": "app.globex.svc"}),
        # Forms of a name that the activator itself does not know.
        (Hop.ACTIVATOR, {"host": "r.globex"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc"}),
        (Hop.ACTIVATOR, {"host": "r"}),
        (Hop.ACTIVATOR, {"host": "globex.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "x.r.globex.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc.cluster.local.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc.other.domain"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svcx.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "10.1.2.3:8012"}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex", "acme-db"), "serving_revision": ("r",)}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex,acme-db",), "serving_revision": ("r",)}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex",), "serving_revision": ("r", "s")}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex",), "serving_revision": ("r,s",)}),
        (Hop.ACTIVATOR, {"serving_namespace": (" globex",), "serving_revision": ("r",)}),
        (
            Hop.ACTIVATOR,
            {
                "serving_namespace": ("", "acme-db"),
                "serving_revision": ("r",),
                "host": "r.globex.svc.cluster.local",
            },
        ),
        (Hop.BROKER, {"path": "globex/default"}),
        (Hop.BROKER, {"path": "//globex/default"}),
        (Hop.BROKER, {"path": "/%67lobex/default"}),
        (Hop.BROKER, {"path": "/"}),
        (Hop.BROKER, {"path": ""}),
        (Hop.BROKER, {"path": "/../globex/default"}),
        (Hop.TRIGGER, {"path": "/globex/default"}),
        (Hop.TRIGGER, {"path": "//triggers/globex/t"}),
        (Hop.TRIGGER, {"path": "/triggers//globex"}),
        (Hop.TRIGGER, {"path": "/%74riggers/globex/t"}),
        (Hop.TRIGGER, {"path": "/triggers/glob%65x/t"}),
        (Hop.TRIGGER, {"path": "/triggers"}),
        *(
            (Hop.JOB_SINK, {"path": path})
            for path in (
                "/globex",
                "/",
                "",
                "globex/sink",
                "//globex/sink",
                "/glob%65x/sink",
                "/globex?x/sink",
                "/globex/sink/more",
                "/globex/sink?x=/more",
                # It believes the second segment of nine, whatever the first one says.
                "/globex/acme-db/name/sink/sources/s/ids/1",
                "/globex/acme-db/3/4/5/6/7/8",
                "/namespaces/globex/name/sink/sources/s/ids",
                "/namespaces/glob%65x/name/sink/sources/s/ids/1",
                "/namespaces/globex/name/sink/sources/s/ids/1/more",
                "http://job-sink/globex",
            )
        ),
        (Hop.REQUEST_REPLY, {"path": "/"}),
        (Hop.REQUEST_REPLY, {"path": "//globex/asked"}),
        (Hop.REQUEST_REPLY, {"path": "/glob%65x/asked"}),
        (Hop.REQUEST_REPLY, {"path": "globex/asked"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex", "path": "/"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "//"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "//globex/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/acme%2ddb/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/globex%2f..%2facme-db/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "*"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": ""}),
    ],
)
def test_transit_denies_where_it_cannot_tell_the_destination(
    hop: Hop | None, facts: dict[str, Any]
) -> None:
    """Even with a token that would count, and under a mode that enforces nothing."""
    good = token("globex", "globex")
    assert transit(hop, good, **facts) is Reason.DESTINATION_UNKNOWN
    for mode in Mode:
        rules = replace(RULES, policy=replace(POLICY, default_mode=mode))
        verdict = ask(Question.TRANSIT, ACTIVATOR, rules, hop=hop, **facts)
        assert isinstance(verdict, Deny)


def test_a_forged_header_pair_does_not_open_the_activator() -> None:
    """The caller picks the victim by header and its own namespace by Host."""
    facts: dict[str, Any] = {
        "host": "x-00001.globex.svc.cluster.local",
        "serving_namespace": ("acme-db",),
        "serving_revision": ("hello-00001",),
    }
    assert transit(Hop.ACTIVATOR, token("globex", "globex"), **facts) is (
        Reason.MEANT_FOR_ANOTHER_NAMESPACE
    )
    assert transit(Hop.ACTIVATOR, **facts) is Reason.TOKEN_MISSING


def test_at_a_gateway_a_grant_for_a_port_counts_since_the_port_is_not_known_yet() -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("acme-web"), "port": 8012}
    narrow = token("narrow", "acme-web", "reader")
    assert transit(Hop.GATEWAY, narrow, peer=GATEWAY, **facts) is Ground.GRANTED


@pytest.mark.parametrize("peer", [workload("narrow", "reader"), GATEWAY])
def test_the_activator_wakes_no_pod_whose_port_the_grant_does_not_name(peer: SpiffeId) -> None:
    """It asks where it was called, which is the port on which it calls the pod."""
    narrow = token("narrow", "acme-web", "reader")
    facts: dict[str, Any] = {
        "peer": peer,
        "serving_namespace": ("acme-web",),
        "serving_revision": ("idle-00001",),
        "rules": RULES,
    }
    for port in (8012, 8013, 8112):
        assert transit(Hop.ACTIVATOR, narrow, port=port, **facts) is Reason.NO_GRANT
        granted = (Grant(N("acme-web"), N("narrow"), port=port),)
        facts["rules"] = replace(RULES, policy=replace(POLICY, grants=granted))
        assert transit(Hop.ACTIVATOR, narrow, port=port, **facts) is Ground.GRANTED
        facts["rules"] = RULES


def test_on_a_hop_an_allowed_peer_cannot_bring_somebody_elses_token() -> None:
    """The pod would see the hop's identity and the stolen token, and believe both."""
    facts = {"upstream": IN_ISTIO.format("acme-db"), "port": 9091, "path": "/metrics"}
    stolen = token("acme-web", "acme-db")
    for peer in (PARTNER, DB, PROMETHEUS):
        marks = {**facts, "user_agent": "Prometheus/3"}
        assert transit(Hop.GATEWAY, stolen, peer=peer, **marks) is Reason.PRESENTED_BY_A_STRANGER
    assert transit(Hop.GATEWAY, stolen, peer=WEB, **facts) is Ground.SAME_TENANT


def test_on_a_hop_a_peer_without_a_token_wakes_no_pod_that_would_refuse_it() -> None:
    for peer in (WEB, DB, PARTNER):
        assert transit(Hop.GATEWAY, peer=peer, upstream=IN_ISTIO.format("acme-db")) is (
            Reason.TOKEN_MISSING
        )


def test_on_a_hop_no_probe_may_wake_a_pod() -> None:
    where: dict[str, Any] = {"host": "r.acme-db.svc.cluster.local", "queue_proxy": False}
    facts = {**PROBES[ACTIVATOR], **where}
    assert transit(Hop.ACTIVATOR, peer=ACTIVATOR, **facts) is Reason.TOKEN_MISSING
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **facts) is Reason.TOKEN_MISSING
    # The activator answers this one itself.
    facts = {**PROBES[GATEWAY], **where}
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **facts) is Ground.EXEMPT
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **{**facts, "path": "/"}) is Reason.TOKEN_MISSING


@pytest.mark.parametrize("port", [8012, 8013])
def test_the_autoscaler_may_ask_whether_the_activator_is_in_the_way(port: int) -> None:
    """It scales nothing to zero before the activator has answered that itself."""
    facts = {**SCALING, "port": port}
    assert transit(Hop.ACTIVATOR, peer=AUTOSCALER, **facts) is Ground.EXEMPT
    own = token("knative-serving", "acme-db", "controller")
    assert transit(Hop.ACTIVATOR, own, peer=AUTOSCALER, **facts) is Ground.EXEMPT


@pytest.mark.parametrize(
    "change",
    [
        {"method": "POST"},
        {"method": ""},
        {"network_probe": ""},
        {"network_probe": "queue"},
        {"network_probe": "Activator"},
        {"network_probe": "activator,activator"},
        {"network_probe": ",activator"},  # the activator would take the first, which is empty
        {"user_agent": "Go-http-client/1.1"},
        {"user_agent": ""},
        {"path": "/"},
        {"path": "/healthz/"},
        {"path": "/v2/"},  # what the same account asks of a registry that a tenant names
        {"port": 8080},
        {"peer": replace(AUTOSCALER, service_account="autoscaler")},
        {"peer": replace(AUTOSCALER, trust_domain="other")},
        {"peer": FOREIGN},
        {"peer": DB},
        {"peer": ACTIVATOR},
        {"peer": GATEWAY},
        {"peer": ""},
    ],
)
def test_nobody_else_and_nothing_else_passes_the_activator_like_that(
    change: dict[str, Any],
) -> None:
    facts = {"peer": AUTOSCALER, **SCALING, **change}
    assert transit(Hop.ACTIVATOR, **facts) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    ("hop", "facts"),
    [
        (Hop.GATEWAY, {"upstream": IN_ISTIO.format("acme-db")}),
        (Hop.BROKER, {"path": "/acme-db/default"}),
        (Hop.CHANNEL, {"path": "/acme-db/c"}),
        (Hop.JOB_SINK, {"path": "/acme-db/sink"}),
        (Hop.REQUEST_REPLY, {"path": "/acme-db/asked"}),
    ],
)
def test_no_other_hop_takes_that_probe_whatever_the_policy_says(
    hop: Hop, facts: dict[str, Any]
) -> None:
    """None of them answers it: it would be passed on."""
    sloppy = replace(POLICY, exemptions={AUTOSCALER: (Exemption(8012, network_probe="activator"),)})
    asked = {**SCALING, **facts, "rules": replace(RULES, policy=sloppy), "peer": AUTOSCALER}
    assert transit(hop, **asked) is Reason.TOKEN_MISSING
    assert transit(Hop.ACTIVATOR, **{**asked, "host": SCALING["host"]}) is Ground.EXEMPT


def test_no_exemption_of_the_policy_counts_at_the_activator_but_for_what_it_answers_itself() -> (
    None
):
    for sloppy in (Exemption(8012), Exemption(8012, "/healthz", "Knative-", "queue")):
        rules = replace(RULES, policy=replace(POLICY, exemptions={AUTOSCALER: (sloppy,)}))
        facts = {**SCALING, "network_probe": sloppy.network_probe or "", "rules": rules}
        assert transit(Hop.ACTIVATOR, peer=AUTOSCALER, **facts) is Reason.TOKEN_MISSING


# -- tcp ---------------------------------------------------------------------------------------


def tcp(destination: SpiffeId, peer: SpiffeId | str, port: int = 5432) -> Ground | Reason:
    """Why a raw connection is let in or not."""
    verdict = ask(Question.TCP, destination, principal=str(peer), port=port)
    if isinstance(verdict, Deny):
        return verdict.reason
    assert verdict.header is HeaderAction.KEEP
    return verdict.ground


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


# -- modes -------------------------------------------------------------------------------------

DENIED: list[tuple[Question, dict[str, Any]]] = [
    (Question.VERIFY, {}),
    (Question.VERIFY, {"tokens": ("garbage",)}),
    (Question.VERIFY, {"tokens": ("a", "b")}),
    (Question.TCP, {}),
]


@pytest.mark.parametrize(("question", "facts"), DENIED)
def test_shadow_lets_in_and_records_what_would_have_been_denied(
    question: Question, facts: dict[str, Any]
) -> None:
    enforced = ask(question, DB, principal=str(FOREIGN), **facts)
    shadowed = ask(question, workload("umbrella"), principal=str(FOREIGN), **facts)
    off = ask(question, workload("carefree"), principal=str(FOREIGN), **facts)

    assert isinstance(enforced, Deny)
    assert isinstance(shadowed, Allow)
    assert (shadowed.ground, shadowed.would_deny) == (Ground.NOT_ENFORCED, enforced.reason)
    assert isinstance(off, Allow)
    assert (off.ground, off.would_deny) == (Ground.NOT_ENFORCED, None)
    stripped = HeaderAction.REMOVE if question is Question.VERIFY else HeaderAction.KEEP
    assert shadowed.header is off.header is stripped


def test_shadow_records_nothing_where_it_would_have_allowed() -> None:
    verdict = ask(Question.VERIFY, workload("umbrella"), principal=str(workload("umbrella")))
    assert isinstance(verdict, Allow)
    assert (verdict.ground, verdict.would_deny) == (Ground.PROVEN_PEER, None)


def test_on_a_hop_the_destinations_mode_counts_not_the_hops() -> None:
    assert transit(Hop.GATEWAY, upstream=IN_ISTIO.format("umbrella")) is Ground.NOT_ENFORCED
    hop_in_shadow = replace(
        POLICY, namespaces={N("knative-serving"): NamespacePolicy(mode=Mode.SHADOW)}
    )
    verdict = ask(
        Question.TRANSIT,
        ACTIVATOR,
        replace(RULES, policy=hop_in_shadow),
        hop=Hop.GATEWAY,
        upstream=IN_ISTIO.format("acme-db"),
        principal=str(FOREIGN),
    )
    assert isinstance(verdict, Deny)


def test_a_namespaces_mode_wins_over_the_default() -> None:
    relaxed = replace(
        POLICY,
        default_mode=Mode.SHADOW,
        namespaces={N("acme-db"): NamespacePolicy(mode=Mode.ENFORCE)},
    )
    rules = replace(RULES, policy=relaxed)
    assert verify(DB, FOREIGN, rules=rules) is Reason.TOKEN_MISSING
    assert verify(WEB, FOREIGN, rules=rules) is Ground.NOT_ENFORCED


# -- in doubt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [*Question, None])
def test_in_doubt_only_a_destination_that_enforces_nothing_lets_in(
    question: Question | None,
) -> None:
    stranger = replace(workload("umbrella"), trust_domain="x")
    for caller in (DB, ACTIVATOR, GATEWAY, None, stranger):
        verdict = decide_in_doubt(Reason.INTERNAL_ERROR, question, caller, POLICY)
        assert isinstance(verdict, Deny)
        trusted = caller in {DB, ACTIVATOR, GATEWAY}
        expected = Reason.INTERNAL_ERROR if trusted else Reason.CALLER_UNTRUSTED
        assert verdict.reason is expected
    verdict = decide_in_doubt(Reason.INTERNAL_ERROR, question, workload("umbrella"), POLICY)
    if question in {Question.VERIFY, Question.TCP}:
        assert isinstance(verdict, Allow)
        assert verdict.would_deny is Reason.INTERNAL_ERROR
    else:
        assert isinstance(verdict, Deny)


# -- reasons -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_reads_aloud_and_tells_outsiders_one_of_three_words(reason: Reason) -> None:
    assert reason.sentence[0].islower() or reason.sentence.startswith("x-")
    assert not reason.sentence.endswith(".")
    assert reason.outward in Outward
    assert reason.slug == reason.name.lower().replace("_", "-")


def test_sentences_are_told_apart() -> None:
    sentences = [reason.sentence for reason in Reason] + [ground.value for ground in Ground]
    assert len(set(sentences)) == len(list(Reason)) + len(list(Ground))


# -- whatever happens --------------------------------------------------------------------------

workloads = st.sampled_from(
    [WEB, DB, FOREIGN, PARTNER, ACTIVATOR, GATEWAY, EVENTING, PROMETHEUS, workload("umbrella")]
)
some_tokens = st.one_of(
    st.text(max_size=40),
    st.builds(
        token,
        st.sampled_from(["acme-web", "acme-db", "globex", "initech", PUBLIC]),
        st.sampled_from(["acme-web", "acme-db", "globex"]),
        now=st.sampled_from([NOW, NOW - 10_000, NOW + 10_000]),
    ),
)
facts_strategy = st.builds(
    Facts,
    caller=workloads,
    hop=st.sampled_from([*Hop, None]),
    upstream=st.sampled_from(
        [None, "", "PassthroughCluster", LOCAL_GATEWAY, IN_ISTIO.format("globex")]
    ),
    virtual_service=st.sampled_from(["", HELLO]),
    principal=st.one_of(st.text(max_size=20), workloads.map(str)),
    port=st.sampled_from([0, 8012, 8080, 9091]),
    host=st.text(max_size=30) | st.just("app.globex.svc"),
    path=st.text(max_size=30) | st.just("/globex/x"),
    tokens=st.lists(some_tokens, max_size=2).map(tuple),
    user_agent=st.sampled_from(["", "Knative-Activator-Probe", "Prometheus/1"]),
    network_probe=st.sampled_from(["", "probe", "queue"]),
    kn_namespace=st.lists(st.sampled_from(["acme-web", "", "x,y"]), max_size=2).map(tuple),
    serving_namespace=st.lists(st.sampled_from(["globex", "", "x,y"]), max_size=2).map(tuple),
    serving_revision=st.lists(st.sampled_from(["r", ""]), max_size=2).map(tuple),
    forwarded=st.sampled_from([False, False, False, True]),
    queue_proxy=st.booleans(),
    method=st.sampled_from(["", "GET", "POST"]),
)


@given(st.sampled_from([*Question, None]), facts_strategy)
def test_whatever_the_facts_a_verdict_comes_and_a_token_is_only_ever_the_callers(
    question: Question | None, facts: Facts
) -> None:
    verdict = decide(question, facts, RULES, NOW)

    if isinstance(verdict, Allow) and isinstance(verdict.header, SetToken):
        made = tokens.parse(verdict.header.token).claims
        if question is Question.PUBLIC:
            assert (made.source, facts.caller) == (PUBLIC, GATEWAY)
        elif made.source != facts.caller.namespace:
            assert facts.caller == EVENTING
            assert facts.kn_namespace == (made.source,)


@given(facts_strategy)
def test_nobody_foreign_gets_into_a_namespace_that_grants_nothing(facts: Facts) -> None:
    """An oracle of its own: `globex` grants nothing and belongs to nobody else."""
    verdict = decide(Question.VERIFY, facts._replace(caller=FOREIGN), RULES, NOW)

    if isinstance(verdict, Allow) and verdict.ground is not Ground.EXEMPT:
        from_itself = facts.principal == str(FOREIGN)
        brought = any(facts.principal == str(p) for p in (ACTIVATOR, GATEWAY, EVENTING))
        sources = {tokens.parse(t).claims.source for t in facts.tokens} if brought else set()
        assert from_itself or sources in ({N("globex")}, {PUBLIC})


# The service itself ----------------------------------------------------------------------------

TO_US = IN_ISTIO.format(OWN)
OURS = "/apis/networking.istio.io/v1/namespaces/authz-system/virtual-service/authz"


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("question", "facts"),
    [
        (Question.SIGN, {"caller": ACTIVATOR, "upstream": TO_US, "tokens": ("x",)}),
        (Question.SIGN, {"caller": EVENTING, "upstream": TO_US, "kn_namespace": ("acme-web",)}),
        (Question.PUBLIC, {"caller": GATEWAY, "upstream": TO_US, "virtual_service": OURS}),
        (Question.TRANSIT, {"caller": GATEWAY, "hop": Hop.GATEWAY, "upstream": TO_US}),
        (
            Question.TRANSIT,
            {
                "caller": ACTIVATOR,
                "hop": Hop.ACTIVATOR,
                "serving_namespace": (OWN,),
                "serving_revision": ("x",),
                "tokens": (token(OWN, OWN),),
                "principal": str(GATEWAY),
            },
        ),
        (Question.TRANSIT, {"caller": ACTIVATOR, "hop": Hop.BROKER, "path": f"/{OWN}/default"}),
    ],
)
def test_nobody_who_passes_on_reaches_us_whatever_the_mode(
    mode: Mode, question: Question, facts: dict[str, Any]
) -> None:
    open_to_all = replace(
        POLICY,
        default_mode=mode,
        grants=(Grant(OWN, EVERYONE), Grant(OWN, N("acme-web"))),
        namespaces={OWN: NamespacePolicy(accepts_public=True)},
        route_owners=frozenset({OWN}),
    )
    rules = replace(RULES, policy=open_to_all)
    verdict = ask(question, rules=rules, **facts)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.FOR_OURSELVES


def test_whoever_calls_us_itself_brings_no_token() -> None:
    verdict = ask(Question.SIGN, WEB, upstream=TO_US, tokens=("forged",))
    assert isinstance(verdict, Allow)
    assert (verdict.ground, verdict.header) == (Ground.FOR_OURSELVES, HeaderAction.REMOVE)
