"""The answer cache gives what deciding anew would give: each thing that matters is changed once."""

import random
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain import tokens
from authz.domain.decision import Rules, decide
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.domain.rotation import revoke_namespace, revoke_root, rotate_namespace, rotate_root
from authz.domain.verdict import Allow, Deny, Ground, Parties
from authz.extauthz import AuthorizationService, answer_cache, service
from authz.observe import DecisionEvent, Metrics
from authz.testing import NOW, ManualClock, check_request, root_key, rules, workload
from tests.witness import envoy_reads

HEADER = "x-tenant-token"
SHOP, BANK = workload("shop"), workload("bank")
ACTIVATOR, GATEWAY = workload("knative-serving", "activator"), workload("istio-system", "gateway")
ROLES = {ACTIVATOR: frozenset({Role.TRANSIT}), GATEWAY: frozenset({Role.GATEWAY})}
VIRTUAL_SERVICE = "/apis/networking.istio.io/v1/namespaces/bank/virtual-service/x"
TO_BANK = "outbound|80||vault.bank.svc.cluster.local"
TOGETHER = Policy(
    roles=ROLES,
    namespaces={
        Namespace("shop"): NamespacePolicy(tenant="acme"),
        Namespace("bank"): NamespacePolicy(tenant="acme"),
    },
)


class Here:
    """A service with a clock that can be set, and a count of how often it decided."""

    def __init__(self, by: Rules) -> None:
        self.clock = ManualClock()
        self.events: list[DecisionEvent] = []
        self.again: list[tuple[Question | None, Ground, SpiffeId]] = []
        self.decisions = 0
        self.service = AuthorizationService(token_header=HEADER, clock=self.clock, recorders=[self])
        self.service.rules = by

    def decided(self, event: DecisionEvent) -> None:
        """Remember what was recorded."""
        self.events.append(event)

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        """Remember that, too."""
        self.again.append((question, ground, caller))

    def sampled(self, event: DecisionEvent) -> None:
        del event

    def failed(self, error: Exception) -> None:
        """Nothing is to fail here."""
        raise error

    def ask(self, question: str, caller: SpiffeId, request: bytes = b"", **more: str) -> bytes:
        """Ask, counting decisions."""

        def counted(*args: object) -> Allow | Deny:
            self.decisions += 1
            return decide(*args)  # type: ignore[arg-type]

        metadata = [("x-authz-question", question)]
        metadata += [(f"x-authz-{name}", value) for name, value in more.items()]
        with patch.object(service, "decide", counted):
            answer = self.service.check(request, self.service.asked(caller, metadata))
        assert answer is not None
        return answer

    def sign(self, caller: SpiffeId = SHOP, upstream: str = TO_BANK) -> str:
        """The token that is put on a request."""
        changes = envoy_reads(self.ask("sign", caller, upstream=upstream)).ok_response
        assert changes is not None
        (option,) = changes.headers
        assert option.header is not None
        return str(option.header.value)

    def lets_in(self, token: str, peer: SpiffeId = ACTIVATOR, caller: SpiffeId = BANK) -> bool:
        """Whether verify allows a request with this token."""
        request = check_request(principal=str(peer), port=8012, headers=((HEADER, token),))
        said = envoy_reads(self.ask("verify", caller, request))
        assert said.status is not None
        return said.status.code == 0


@pytest.fixture
def here() -> Here:
    return Here(rules(TOGETHER))


def test_the_same_question_is_decided_once_and_recorded_each_time(here: Here) -> None:
    token = here.sign()
    assert here.sign() == token
    assert here.lets_in(token)
    assert here.lets_in(token)

    assert here.decisions == 2
    assert [(event.question, event.caller) for event in here.events] == [
        (Question.SIGN, SHOP),
        (Question.VERIFY, BANK),
    ]
    assert here.again == [
        (Question.SIGN, Ground.SIGNED, SHOP),
        (Question.VERIFY, Ground.SAME_TENANT, BANK),
    ]


def test_an_answer_that_cannot_be_recorded_is_not_given_again(here: Here) -> None:
    assert here.sign()
    metadata = [("x-authz-question", "sign"), ("x-authz-upstream", TO_BANK)]
    failed: list[Exception] = []
    with (
        patch.object(here, "given_again", side_effect=RuntimeError("no room")),
        patch.object(here, "failed", failed.append),
    ):
        assert here.service.check(b"", here.service.asked(SHOP, metadata)) is None
    assert len(failed) == 1


def test_metrics_count_an_answer_that_is_given_again_as_the_first_time(here: Here) -> None:
    often, anew = Metrics(here.clock), Metrics(here.clock)
    requests = [
        ("sign", SHOP, b"", {"upstream": TO_BANK}),
        ("verify", BANK, check_request(principal=str(SHOP)), {}),
        ("transit", ACTIVATOR, check_request(headers=((HEADER, here.sign()),)), {}),
        ("tcp", BANK, check_request(principal=str(SHOP)), {}),
    ]
    for metrics, repeats in ((often, True), (anew, False)):
        by = AuthorizationService(token_header=HEADER, clock=here.clock, recorders=[metrics])
        for _ in range(3):
            if not repeats:
                by = AuthorizationService(
                    token_header=HEADER, clock=here.clock, recorders=[metrics]
                )
            by.rules = here.service.rules
            for question, caller, request, more in requests:
                metadata = [("x-authz-question", question)]
                metadata += [(f"x-authz-{name}", value) for name, value in more.items()]
                by.check(request, by.asked(caller, metadata))
    texts = [
        [line for line in it.text().splitlines() if not line.startswith(b"process_")]
        for it in (often, anew)
    ]
    assert texts[0] == texts[1]


def test_the_path_and_the_request_id_make_no_difference_where_no_rule_reads_them(
    here: Here,
) -> None:
    token = here.sign()
    for number in range(5):
        request = check_request(
            principal=str(ACTIVATOR),
            path=f"/{number}",
            request_id=f"id-{number}",
            headers=((HEADER, token),),
        )
        here.ask("verify", BANK, request)
    assert here.decisions == 2


def test_a_path_that_a_rule_reads_makes_a_difference() -> None:
    prometheus = workload("monitoring", "prometheus")
    policy = replace(TOGETHER, exemptions={prometheus: (Exemption(80, path="/metrics"),)})
    here = Here(rules(policy))

    def codes(*paths: str) -> list[bool]:
        answers = []
        for path in paths:
            request = check_request(principal=str(prometheus), port=80, path=path)
            status = envoy_reads(here.ask("verify", BANK, request)).status
            assert status is not None
            answers.append(status.code == 0)
        return answers

    assert codes("/metrics", "/admin", "/metrics", "/admin") == [True, False, True, False]


def test_a_token_is_given_out_again_for_a_minute(here: Here) -> None:
    first = here.sign()
    here.clock.now = NOW + 59.9
    assert here.sign() == first
    here.clock.now = NOW + 60
    second = here.sign()

    assert second != first
    claims = tokens.parse(second).claims
    assert (claims.issued_at, claims.expires_at) == (int(NOW) + 60, int(NOW) + 780)


def test_expiry_is_checked_each_time(here: Here) -> None:
    token = here.sign()
    assert here.lets_in(token)
    here.clock.now = NOW + 719.9
    assert here.lets_in(token)
    here.clock.now = NOW + 720
    assert not here.lets_in(token)


Change = Callable[[Rules], Rules]


def keyring_of(change: Callable[[Keyring], Keyring]) -> Change:
    return lambda by: replace(by, keyring=change(by.keyring))


def policy_of(**change: object) -> Change:
    return lambda by: replace(by, policy=replace(by.policy, **change))  # type: ignore[arg-type]


CLOSING: dict[str, Change] = {
    "the source is revoked": keyring_of(lambda k: revoke_namespace(k, Namespace("shop"), NOW)),
    "the root is revoked": lambda by: replace(
        by, keyring=revoke_root(by.keyring, by.keyring.roots[0].id, NOW, life=by.life)
    ),
    "another keyring is restored": keyring_of(lambda _: Keyring((root_key(7),))),
    "the tenant is split": policy_of(namespaces={}),
    "the activator loses its role": policy_of(roles={}),
    "another trust domain is accepted": policy_of(trust_domains=frozenset({"other"})),
}


@pytest.mark.parametrize("name", CLOSING)
def test_new_rules_count_from_the_next_question_on(here: Here, name: str) -> None:
    token = here.sign()
    assert here.lets_in(token)
    assert here.service.rules is not None
    before = here.service.rules
    here.service.rules = CLOSING[name](before)
    assert not here.lets_in(token)
    here.service.rules = before
    assert here.lets_in(token)


def test_a_rotation_changes_the_next_token_at_its_moment_and_denies_nobody(here: Here) -> None:
    assert here.service.rules is not None
    old = here.sign()
    life = here.service.rules.life
    rotations: list[Callable[[Keyring], Keyring]] = [
        lambda k: rotate_root(k, NOW, delay=30, life=life),
        lambda k: rotate_namespace(k, Namespace("shop"), NOW, delay=30, life=life),
    ]
    for rotate in rotations:
        here.clock.now = NOW
        here.service.rules = replace(rules(TOGETHER), keyring=rotate(rules(TOGETHER).keyring))
        assert here.sign() == old
        assert here.lets_in(old)
        here.clock.now = NOW + 30  # within the minute for which a token is given out again
        new = here.sign()
        assert tokens.parse(new).key != tokens.parse(old).key
        assert here.lets_in(new)
        assert here.lets_in(old)


def test_a_grant_ends_at_its_moment_without_new_rules() -> None:
    grant = Grant(Namespace("bank"), Namespace("shop"), until=int(NOW) + 30)
    here = Here(rules(Policy(roles=ROLES, grants=(grant,))))
    token = here.sign()
    request = check_request(principal=str(SHOP))
    for now, expected in ((NOW, True), (NOW + 29.9, True), (NOW + 30, False)):
        here.clock.now = now
        assert here.lets_in(token) is expected
        status = envoy_reads(here.ask("verify", BANK, request)).status
        assert status is not None
        assert (status.code == 0) is expected


def test_a_window_of_a_namespaces_key_ends_at_its_moment_without_new_rules(here: Here) -> None:
    token = here.sign()
    window = NamespaceKeys(generation=1, previous_until=int(NOW) + 100)
    by = rules(TOGETHER, Keyring((root_key(),), {Namespace("shop"): window}))
    here.service.rules = by
    assert here.lets_in(token)
    here.clock.now = NOW + 100
    assert not here.lets_in(token)


def test_who_presents_makes_a_difference(here: Here) -> None:
    token = here.sign()
    assert here.lets_in(token, ACTIVATOR)
    assert not here.lets_in(token, workload("mallory"))
    assert here.lets_in(token, ACTIVATOR)


def test_who_asks_makes_a_difference(here: Here) -> None:
    token = here.sign()
    assert here.lets_in(token, caller=BANK)
    assert not here.lets_in(token, caller=SHOP)
    assert here.sign(BANK) != here.sign(SHOP)
    assert tokens.parse(here.sign(workload("shop", "other"))).claims.service_account == "other"


def test_which_question_is_asked_makes_a_difference(here: Here) -> None:
    request = check_request(principal=str(SHOP))
    allowed = here.ask("verify", BANK, request)
    assert here.ask("tcp", BANK, request) != allowed  # strips nothing
    status = envoy_reads(here.ask("transit", BANK, request)).status
    assert status is not None
    assert status.code == 7


def test_denials_are_decided_and_recorded_each_time(here: Here) -> None:
    for _ in range(3):
        assert not here.lets_in("garbage")
    assert here.decisions == 3


def test_what_shadow_mode_lets_in_is_recorded_each_time() -> None:
    here = Here(rules(Policy(default_mode=Mode.SHADOW)))
    for number in range(3):
        here.ask("verify", BANK, check_request(request_id=f"id-{number}"))
    assert here.decisions == 3
    assert [event.request_id for event in here.events] == ["id-0", "id-1", "id-2"]


def test_an_identity_that_asks_for_everything_evicts_only_itself(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "MAX_PER_NAMESPACE", 10)
    token = here.sign(BANK)
    for number in range(1000):
        here.sign(SHOP, f"outbound|80||a.n{number}.svc.cluster.local")
    decisions = here.decisions
    assert here.sign(BANK) == token
    assert here.decisions == decisions
    assert here.service._cache._size == 11
    assert {len(room) for room in here.service._cache._rooms.values()} == {1, 10}


def test_many_identities_together_have_a_bound(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MAX_ALL", 50)
    for number in range(200):
        for to in ("a", "b"):
            here.sign(workload(f"n{number}"), f"outbound|80||x.{to}.svc.cluster.local")
    kept = here.service._cache
    assert kept._size == sum(len(room) for room in kept._rooms.values()) <= 50
    assert len(kept._rooms) <= 50


def test_the_count_of_what_is_kept_is_right_whoever_comes_in_whatever_order(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "MAX_ALL", 20)
    monkeypatch.setattr(answer_cache, "MAX_PER_NAMESPACE", 8)
    kept, order = here.service._cache, random.Random(1)
    for _ in range(2000):
        here.sign(
            workload(f"n{order.randrange(9)}"),
            f"outbound|80||x.d{order.randrange(40)}.svc.cluster.local",
        )
        assert kept._size == sum(map(len, kept._rooms.values())) <= 20


def test_the_accounts_of_a_namespace_share_its_room(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "MAX_PER_NAMESPACE", 5)
    for number in range(50):
        here.sign(workload("shop", f"account-{number}"))
    assert here.service._cache._size == 5


def test_facts_that_are_large_are_not_kept(here: Here) -> None:
    request = check_request(
        principal=str(SHOP), headers=(("user-agent", "x" * answer_cache.MAX_CHARACTERS),)
    )
    here.ask("verify", BANK, request)
    assert here.service._cache._size == 0
    here.ask("verify", BANK, check_request(principal=str(SHOP)))
    assert here.service._cache._size == 1


def test_texts_that_are_shared_are_bounded(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MAX_TEXTS", 5)
    for number in range(20):
        peer = str(workload("shop", f"account-{number}"))
        here.ask("verify", BANK, check_request(principal=peer))
        assert len(here.service._cache._texts) <= 6


def test_a_clock_that_is_set_back_makes_new_tokens(here: Here) -> None:
    here.clock.now = NOW + 3600
    ahead = here.sign()
    here.clock.now = NOW
    assert here.lets_in(here.sign())
    assert not here.lets_in(ahead)


questions = st.sampled_from(list(Question))
facts = st.builds(
    Facts,
    caller=st.sampled_from([SHOP, BANK, ACTIVATOR, GATEWAY]),
    upstream=st.sampled_from([None, TO_BANK, "PassthroughCluster"]),
    principal=st.sampled_from(["", str(SHOP), str(ACTIVATOR), str(GATEWAY), str(workload("x"))]),
    hop=st.sampled_from([None, *Hop]),
    virtual_service=st.sampled_from(["", VIRTUAL_SERVICE]),
    port=st.sampled_from([80, 8012]),
    host=st.sampled_from(["", "vault.bank.svc", "x"]),
    path=st.sampled_from(["", "/bank/x", "/shop/x"]),
    user_agent=st.sampled_from(["", "Knative-Activator-Probe"]),
    network_probe=st.sampled_from(["", "probe"]),
    forwarded=st.booleans(),
    queue_proxy=st.booleans(),
    method=st.sampled_from(["", "GET"]),
    kn_namespace=st.sampled_from([(), ("shop",), ("bank",)]),
    serving_namespace=st.sampled_from([(), ("bank",)]),
    serving_revision=st.sampled_from([(), ("r",)]),
    tokens=st.lists(st.integers(0, 5), max_size=2).map(tuple),
)
moments = st.sampled_from([0.0, 10.0, 40.0, 61.0, 100.0, 719.0, 721.0])


@given(st.lists(st.tuples(questions, facts, st.integers(0, 3), moments), max_size=20))
def test_with_the_cache_every_answer_is_the_one_without(
    steps: list[tuple[Question, Facts, int, float]],
) -> None:
    shop, bank = Namespace("shop"), Namespace("bank")
    base = Keyring((root_key(),))
    choices = [
        rules(TOGETHER, base),
        rules(TOGETHER, Keyring((root_key(),), {shop: NamespaceKeys(1, int(NOW) + 40, 0)})),
        rules(Policy(roles=ROLES, grants=(Grant(bank, shop, until=int(NOW) + 40),)), base),
        rules(Policy(roles=ROLES, default_mode=Mode.OFF), Keyring((root_key(3),))),
    ]
    received = [
        tokens.mint(
            source=source,
            service_account="",
            destination=bank,
            keyring=base,
            now=when,
            life=choices[0].life,
        )
        for source in (shop, bank, PUBLIC)
        for when in (NOW, NOW + 60)
    ]
    kept = answer_cache.AnswerCache()
    for question, drawn, which, moment in sorted(steps, key=lambda step: step[3]):
        values = drawn._replace(tokens=tuple(received[number] for number in drawn.tokens))  # type: ignore[call-overload]
        by, now, key = choices[which], NOW + moment, (question, values)
        expected = decide(question, values, by, now)
        found = kept.find(key, by, now)
        if found is None:
            kept.keep(key, repr(_shown(expected)).encode(), expected)
        else:
            assert isinstance(expected, Allow)
            assert found.ground is expected.ground
            assert found.response == repr(_shown(expected)).encode()


def _shown(verdict: Allow | Deny) -> object:
    """A verdict, but for what of a token is newer each time."""
    if isinstance(verdict, Allow) and verdict.ground is Ground.SIGNED:
        return verdict.ground, verdict.parties
    return verdict


def test_an_answer_that_was_not_looked_for_first_is_not_kept_under_other_rules() -> None:
    """`find` sets the rules by which `keep` keeps."""
    kept = answer_cache.AnswerCache()
    one, other = rules(TOGETHER), rules(Policy())
    key = (Question.VERIFY, Facts(BANK))
    allow = Allow(Ground.GRANTED, "remove", Parties())  # type: ignore[arg-type]
    assert kept.find(key, one, NOW) is None
    kept.keep(key, b"kept", allow)
    assert kept.find(key, one, NOW) is not None
    assert kept.find(key, other, NOW) is None
    assert kept.find(key, one, NOW) is None
