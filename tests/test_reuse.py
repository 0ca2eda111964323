"""Which answers a proxy may give again, and for how long: never beyond what they depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from authz.domain import rotation, tokens
from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, NamespaceKeys, TokenLife
from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.domain.verdict import Reuse
from authz.extauthz import AuthorizationService
from authz.testing import NOW, ManualClock, check_request, root_key, workload
from authz.wire import REUSE, REUSE_EPOCH, REUSED_TOKEN
from tests.witness import envoy_reads

HEADER: Final = "x-tenant-token"
SHOP, BANK, FOREIGN = workload("shop"), workload("bank"), workload("globex")
ACTIVATOR, GATEWAY = workload("knative-serving", "activator"), workload("istio-system", "gateway")
EVENTING, PROMETHEUS = workload("knative-eventing", "filter"), workload("monitoring", "prometheus")
TO_BANK: Final = "outbound|80||vault.bank.svc.cluster.local"
LIFE: Final = TokenLife(720, 30, reuse=60, step=30)
TOGETHER: Final = {
    Namespace("shop"): NamespacePolicy(tenant="acme"),
    Namespace("bank"): NamespacePolicy(tenant="acme"),
}
POLICY: Final = Policy(
    namespaces=TOGETHER,
    roles={
        ACTIVATOR: frozenset({Role.TRANSIT}),
        GATEWAY: frozenset({Role.GATEWAY, Role.TRANSIT}),
        EVENTING: frozenset({Role.ON_BEHALF_OF, Role.TRANSIT}),
    },
    exemptions={PROMETHEUS: (Exemption(8012),)},
)
RULES: Final = Rules(POLICY, Keyring((root_key(),)), LIFE, reuse=Reuse(30, 2))


def token(source: str = "shop", *, made: float = NOW) -> str:
    return tokens.mint(
        source=PUBLIC if source == PUBLIC else Namespace(source),
        service_account="" if source == PUBLIC else "default",
        destination=Namespace("bank"),
        keyring=RULES.keyring,
        now=made,
        life=LIFE,
    )


class Service:
    """The service, as Envoy sees it."""

    def __init__(self, by: Rules = RULES) -> None:
        self.clock = ManualClock()
        self.epoch: float | None = None
        """That the last answer told."""
        self.service = AuthorizationService(token_header=HEADER, clock=self.clock, recorders=())
        self.service.rules = by

    def told(
        self, question: str, caller: SpiffeId, request: bytes, **more: str
    ) -> dict[str, Any] | None:
        """The dynamic metadata of an answer; `None` for a denial."""
        metadata = [("x-authz-question", question)]
        metadata += [(f"x-authz-{name}", value) for name, value in more.items()]
        answer = self.service.check(request, self.service.asked(caller, metadata))
        assert answer is not None
        read = envoy_reads(answer)
        assert read.status is not None
        if read.status.code:
            assert read.dynamic_metadata is None
            return None
        told = {} if read.dynamic_metadata is None else read.dynamic_metadata.to_dict()
        self.epoch = told.pop(REUSE_EPOCH, None)
        assert (self.epoch is None) == (REUSE not in told)
        return told

    def sign(self, caller: SpiffeId = SHOP, **more: Any) -> dict[str, Any] | None:
        return self.told("sign", caller, check_request(**more), upstream=TO_BANK)

    def verify(
        self, peer: SpiffeId | None = ACTIVATOR, *shown: str, caller: SpiffeId = BANK, **more: Any
    ) -> dict[str, Any] | None:
        return self.told("verify", caller, _with(peer, shown, **more))

    def transit(self, *shown: str, hop: str = "activator", **more: Any) -> dict[str, Any] | None:
        caller = GATEWAY if hop == "gateway" else ACTIVATOR
        serving = (
            ("knative-serving-namespace", "bank"),
            ("knative-serving-revision", "vault-1"),
        )
        request = _with(SHOP, shown, more=serving, **more)
        return self.told("transit", caller, request, hop=hop, upstream=TO_BANK)


def _with(
    peer: SpiffeId | None, shown: tuple[str, ...], *, more: Any = (), path: str = "/"
) -> bytes:
    headers = (*((HEADER, it) for it in shown), *more)
    principal = "" if peer is None else str(peer)
    return check_request(principal=principal, port=8012, headers=headers, path=path)


@pytest.fixture
def here() -> Service:
    return Service()


# What is told -----------------------------------------------------------------------------------


def test_a_token_may_be_put_on_calls_for_the_time_of_the_setting(here: Service) -> None:
    assert here.sign() == {REUSE: 30, REUSED_TOKEN: token()}


def test_what_leaves_the_mesh_needs_no_question_either(here: Service) -> None:
    told = here.told("sign", SHOP, check_request(host="example.org"), upstream="PassthroughCluster")
    assert told == {REUSE: 30}


def test_a_pod_and_the_activator_may_let_in_the_same_again(here: Service) -> None:
    for answer in (
        here.verify(SHOP),
        here.verify(ACTIVATOR, token()),
        here.verify(GATEWAY, token(PUBLIC)),
        here.transit(token()),
    ):
        assert answer == {REUSE: 2}


@pytest.mark.parametrize(
    "nothing", [Reuse(), Reuse(sign=0, entry=2), Reuse(sign=30, entry=0)], ids=str
)
def test_a_setting_of_0_is_a_question_each_time(nothing: Reuse) -> None:
    here = Service(replace(RULES, reuse=nothing))
    assert (REUSE in (here.sign() or {})) == bool(nothing.sign)
    for answer in (here.verify(SHOP), here.transit(token())):
        assert (REUSE in (answer or {})) == bool(nothing.entry)


def test_a_second_time_the_same_is_told(here: Service) -> None:
    assert here.sign() == here.sign()
    assert here.verify(SHOP) == here.verify(SHOP) == {REUSE: 2}


# What is never kept -----------------------------------------------------------------------------


def test_a_holder_of_a_role_is_asked_about_each_time(here: Service) -> None:
    for holder in (ACTIVATOR, GATEWAY, EVENTING):
        assert here.sign(holder) == {}
        assert here.sign(holder, headers=((HEADER, token()),)) == {}
        assert here.sign(holder, headers=(("kn-namespace", "shop"),)) == {}
        assert here.verify(workload(holder.namespace), caller=holder) == {}


def test_a_denial_is_not_kept(here: Service) -> None:
    assert here.verify(FOREIGN) is None
    assert here.verify(ACTIVATOR, "v1.x") is None
    assert here.transit() is None


def test_an_exemption_depends_on_more_than_the_key(here: Service) -> None:
    assert here.verify(PROMETHEUS) == {}


def test_who_is_not_proven_is_asked_about_each_time() -> None:
    plaintext = {Namespace("bank"): NamespacePolicy(tenant="acme", plaintext_peers=True)}
    here = Service(replace(RULES, policy=replace(POLICY, namespaces={**TOGETHER, **plaintext})))
    assert here.verify(None, token()) == {}


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
def test_what_is_not_enforced_is_asked_about_each_time(mode: Mode) -> None:
    """Shadow mode has to record each."""
    here = Service(replace(RULES, policy=replace(POLICY, default_mode=mode)))
    assert here.verify(FOREIGN) == here.verify(ACTIVATOR, "v1.x") == here.transit() == {}
    assert here.verify(SHOP) == {REUSE: 2}


def test_of_hops_only_the_activator_keeps_answers(here: Service) -> None:
    assert here.transit(token(), hop="gateway") == {}
    for_the_broker = tokens.mint(
        source=Namespace("shop"),
        service_account="default",
        destination=ACTIVATOR.namespace,
        keyring=RULES.keyring,
        now=NOW,
        life=LIFE,
    )
    assert here.transit(for_the_broker, hop="broker", path="/bank/default") == {}


@pytest.mark.parametrize("name", ["shop", "bank"])
def test_a_namespace_that_does_not_want_it_is_asked_about_each_time(name: str) -> None:
    own = {Namespace(name): NamespacePolicy(tenant="acme", reuse=False)}
    here = Service(replace(RULES, policy=replace(POLICY, namespaces={**TOGETHER, **own})))
    answers = here.sign(), here.verify(SHOP), here.verify(ACTIVATOR, token()), here.transit(token())
    assert answers == ({}, {}, {}, {})


# What was revoked --------------------------------------------------------------------------------

CHANGES: Final[dict[str, Callable[[Keyring], Keyring]]] = {
    "a namespace is revoked": lambda it: rotation.revoke_namespace(it, Namespace("shop"), NOW),
    "a root is revoked": lambda it: rotation.revoke_root(it, it.roots[-1].id, NOW, life=LIFE),
    "all is revoked": lambda it: rotation.revoke_all(it, NOW, life=LIFE),
    "a root is added": lambda it: rotation.rotate_root(it, NOW, delay=60, life=LIFE),
    "a namespace is rotated": lambda it: rotation.rotate_namespace(
        it, Namespace("shop"), NOW, delay=60, life=LIFE
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_revocation_is_told_with_all_answers_and_no_other_change(change: str) -> None:
    here = Service()
    assert here.verify(SHOP) == {REUSE: 2}
    before, changed = here.epoch, CHANGES[change](RULES.keyring)
    here.service.rules = replace(RULES, keyring=changed)
    assert here.verify(SHOP) == {REUSE: 2}
    assert (here.epoch != before) == ("revoked" in change)
    if "revoked" in change:  # and once more
        assert CHANGES[change](changed).revocations not in {before, here.epoch}


def test_replicas_with_the_same_keyring_tell_the_same() -> None:
    one = Keyring.of(root_key(), shop=NamespaceKeys(2), bank=NamespaceKeys(1))
    other = Keyring.of(root_key(), bank=NamespaceKeys(1), shop=NamespaceKeys(2))
    assert one.revocations == other.revocations == 0xFFFFFFFFFFFF & one.revocations
    assert one.revocations != Keyring.of(root_key(), shop=NamespaceKeys(2)).revocations


# For how long -----------------------------------------------------------------------------------


def _over(seconds: float) -> Iterator[float]:
    """Moments, a quarter of a second apart."""
    return (NOW + quarter / 4 for quarter in range(int(seconds * 4)))


def test_nobody_keeps_a_token_s_answer_until_it_has_expired() -> None:
    here, shown = Service(), token(made=NOW - 690)
    for here.clock.now in _over(30):
        for answer in (here.verify(ACTIVATOR, shown), here.transit(shown)):
            assert answer is not None
            assert here.clock.now + answer.get(REUSE, 0) <= NOW + 30
    here.clock.now = NOW + 30
    assert here.verify(ACTIVATOR, shown) is None


def test_nobody_keeps_what_a_grant_lets_in_until_it_has_ended() -> None:
    grant = Grant(Namespace("bank"), FOREIGN.namespace, until=int(NOW) + 10)
    here = Service(replace(RULES, policy=replace(POLICY, grants=(grant,))))
    for here.clock.now in _over(10):
        for answer in (here.verify(FOREIGN), here.verify(ACTIVATOR, token("globex"))):
            assert answer is not None
            assert here.clock.now + answer.get(REUSE, 0) <= NOW + 10
    here.clock.now = NOW + 10
    assert here.verify(FOREIGN) is None


def test_nobody_keeps_a_token_beyond_a_change_of_keys() -> None:
    keyring = Keyring.of(root_key(), shop=NamespaceKeys(1, int(NOW) + 10, int(NOW) + 5000))
    here = Service(replace(RULES, keyring=keyring))
    for here.clock.now in _over(10):
        answer = here.sign()
        assert answer is not None
        assert here.clock.now + answer.get(REUSE, 0) <= NOW + 10


def test_a_token_is_two_steps_old_at_most_wherever_it_was_kept() -> None:
    here = Service()
    for here.clock.now in _over(120):
        answer = here.sign()
        assert answer is not None
        issued = tokens.parse(answer[REUSED_TOKEN]).claims.issued_at
        assert issued % 30 == 0
        assert here.clock.now + answer[REUSE] - issued <= 2 * 30


def test_all_replicas_show_one_token_until_the_next_step() -> None:
    one, other = Service(), Service()
    one.clock.now, other.clock.now = NOW, NOW + 29.9
    assert one.sign() == other.sign()
    other.clock.now = NOW + 30
    assert one.sign() != other.sign()
