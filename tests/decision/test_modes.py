"""Who may ask, modes and doubts, and what holds whatever the facts."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain import tokens
from authz.domain.decision import decide, decide_in_doubt
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.names import PUBLIC
from authz.domain.policy import (
    EVERYONE,
    Grant,
    Mode,
    NamespacePolicy,
)
from authz.domain.reason import Outward, Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, SetToken
from authz.testing import NOW, workload
from tests.decision.support import ask, claims, signed, transit, verify
from tests.small_mesh import (
    ACTIVATOR,
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
    WEB,
    N,
    token,
)

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
