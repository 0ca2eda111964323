"""What is signed: every row of `sign` and `public`, each denial beside a twin that passes."""

from dataclasses import replace
from typing import Any

import pytest

from authz.domain.facts import Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.names import PUBLIC
from authz.domain.policy import (
    Mode,
    NamespacePolicy,
    Role,
)
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction
from tests.decision.support import ask, claims, signed
from tests.small_mesh import (
    ACTIVATOR,
    EVENTING,
    GATEWAY,
    HELLO,
    IN_ISTIO,
    LOCAL_GATEWAY,
    POLICY,
    RULES,
    WEB,
    N,
    token,
)

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
