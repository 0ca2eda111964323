"""Calls: what they say, and that only the right answer is right."""

import itertools

import pytest
from hpack import Decoder

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.config import IdentitySource
from authz.domain import rotation
from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, TokenLife
from authz.extauthz import AuthorizationService
from authz.policysource.file import parse_policy
from authz.testing import LET_IN, NOT_ALLOWED
from loadtest import tenants
from loadtest.headers import Encoder
from loadtest.plan import MAX_SECONDS, Ask, BadPlan, Plan, Share
from loadtest.traffic import Call, Traffic

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return rotation.create(NOW)


def read(decoder: Decoder, block: bytes) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in decoder.decode(block, raw=True)}


def answered(call: Call, keyring: Keyring, *, policy: str | None = None) -> str:
    """What is wrong with the answer that the service gives to a call."""
    service = AuthorizationService(token_header="x-tenant-token", clock=lambda: NOW, recorders=())
    service.rules = Rules(parse_policy(policy or tenants.policy(30)), keyring, TokenLife())
    head = read(Decoder(), Encoder().encode(call.head()))
    caller = SpiffeId.parse(head["x-forwarded-client-cert"].rpartition("URI=")[2])
    message = b"".join(call.message())
    answer = service.check(message[5:], service.asked(caller, [*head.items()]))
    assert answer is not None
    return call.expected.judge(b"\0" + len(answer).to_bytes(4, "big") + answer)


def traffic(keyring: Keyring, **plan: object) -> Traffic:
    return Traffic(Plan(**plan), keyring, lambda: NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("ask", Ask)
def test_the_service_answers_as_expected(ask: Ask, keyring: Keyring) -> None:
    asked = traffic(keyring, ask=ask, namespaces=25, destinations=3)
    calls = [*asked.warm(0), *itertools.chain(*asked.unseen(range(2), 20)), asked.forbidden(0)]
    assert [answered(call, keyring) for call in calls] == [""] * len(calls)


def test_another_policy_or_another_key_makes_the_answers_wrong(keyring: Keyring) -> None:
    (verify,) = traffic(keyring, ask=Ask.VERIFY).warm(0)
    (sign,) = traffic(keyring, ask=Ask.SIGN).warm(0)
    strangers = f'roles: {{transit: ["{tenants.ACTIVATOR}"]}}'
    assert answered(verify, keyring, policy=strangers).startswith("403 ")
    assert answered(verify, rotation.create(NOW)).startswith("403 ")
    assert answered(sign, rotation.create(NOW)) == "signed with a bad token: key-unknown"


def test_an_answer_for_one_pair_is_wrong_for_another(keyring: Keyring) -> None:
    one, other = traffic(keyring, ask=Ask.SIGN, destinations=2).warm(0)
    assert answered(one, keyring) == ""
    (right,) = one.expected.known
    assert other.expected.judge(right).startswith("token from ")


def test_letting_a_stranger_in_is_wrong(keyring: Keyring) -> None:
    forbidden = traffic(keyring).forbidden(0)
    open_to_all = tenants.policy(20) + "default_mode: 'off'\n"
    assert (
        answered(forbidden, keyring, policy=open_to_all) == f"{LET_IN}, and should be {NOT_ALLOWED}"
    )


def test_no_two_messages_are_the_same_bytes(keyring: Keyring) -> None:
    (call,) = traffic(keyring).warm(0)
    messages = {b"".join(call.message())[5:] for _ in range(100)}
    assert len(messages) == 100
    ids = {
        header.raw_value
        for message in messages
        for header in CheckRequest.FromString(message).attributes.request.http.header_map.headers
        if header.key == "x-request-id"
    }
    assert len(ids) == 100
    assert {len(one) for one in ids} == {36}


def test_a_traceparent_is_another_one_on_every_call(keyring: Keyring) -> None:
    (call,) = traffic(keyring, traceparent=True).warm(0)
    decoder, encoder = Decoder(), Encoder()
    heads = [read(decoder, encoder.encode(call.head())) for _ in range(200)]
    assert len({head["traceparent"] for head in heads}) == 200


def test_connections_carry_their_own_callers() -> None:
    each = Plan(namespaces=30, connections=3)
    assert [each.callers_of(n)[0] for n in range(3)] == [0, 10, 20]
    shared = Plan(namespaces=10, connections=3, callers=10)
    assert [shared.callers_of(n) for n in range(3)] == [list(range(10))] * 3


def test_a_plan_reaches_a_process_as_it_is() -> None:
    share = Share(
        plan=Plan(identity=IdentitySource.MTLS, ask=Ask.BOTH, connections=5, processes=2),
        number=1,
        port=1,
        keys="k",
        certificates="c",
    )
    assert Share.from_json(share.to_json()) == share
    assert list(share.connections) == [1, 3]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"namespaces": 10_001}, "namespaces"),
        ({"connections": 5_001}, "connections"),
        ({"seconds": 601.0}, "seconds"),
        ({"processes": 2}, "processes"),
        ({"identity": IdentitySource.MTLS, "namespaces": 2}, "namespaces"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(BadPlan, match=named):
        Plan(**wrong)  # type: ignore[arg-type]


def test_warm_tokens_outlive_the_longest_run() -> None:
    assert TokenLife().seconds > MAX_SECONDS + 60


def test_a_stranger_who_is_let_in_is_noticed(keyring: Keyring) -> None:
    calls = traffic(keyring, ask=Ask.MIXED, namespaces=20).warm(0)
    everybody = tenants.policy(20) + "default_mode: shadow\n"
    problems = {answered(call, keyring, policy=everybody) for call in calls}
    assert problems == {"", f"{LET_IN}, and should be {NOT_ALLOWED}"}


def test_a_token_of_a_newer_key_is_judged_by_the_newest_keys(keyring: Keyring) -> None:
    rotated = rotation.rotate_root(keyring, NOW, delay=0, life=TokenLife())
    read_again = 0

    def renew() -> Keyring:
        nonlocal read_again
        read_again += 1
        return rotated

    asked = Traffic(Plan(ask=Ask.SIGN, namespaces=10), keyring, lambda: NOW, renew)
    assert [answered(call, rotated) for call in asked.warm(0)] == [""] * 10
    assert read_again == 1
    another = rotation.create(NOW)
    assert all("unknown" in answered(call, another) for call in asked.warm(0))
