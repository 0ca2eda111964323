"""The boundary: what is read, what is answered, and that only an explicit allow opens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations
from typing import Any
from unittest.mock import patch

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.domain import case, decision, tokens
from authz.domain.decision import Rules
from authz.domain.facts import Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import KeyId, Keyring
from authz.domain.names import Namespace
from authz.domain.policy import Exemption, Mode, Policy
from authz.domain.reason import InvalidToken, Outward, Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, Parties, SetToken
from authz.errors import InvalidIdentity
from authz.extauthz import AuthorizationService, service
from authz.extauthz.answer_cache import AnswerCache
from authz.extauthz.request import asked_of, facts_of, request_id_of
from authz.extauthz.response import answer
from authz.observe import DecisionEvent
from authz.testing import ManualClock, check_request, root_key, rules, workload
from authz.wire import REASON_HEADER
from tests.any_request import (
    ACTIVATOR,
    BANK,
    ENFORCING,
    GATEWAY,
    HEADER,
    PEOPLE,
    POLICIES,
    ROLES,
    SHOP,
    TO_BANK,
    boundary,
    http,
    metadatas,
    requests,
    token,
)
from tests.witness import auth, core, envoy_check_request, envoy_reads

SHADOW = rules(Policy(default_mode=Mode.SHADOW, roles=ROLES))
OFF = rules(Policy(default_mode=Mode.OFF, roles=ROLES))

READING_PATHS = Policy(
    exemptions={workload("blue"): (Exemption(80),), workload("any"): (Exemption(80),)}
)

MESSAGE = "text-of-an-internal-error"


class Remembering:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.events: list[DecisionEvent] = []
        self.again: list[tuple[Question | None, Ground, SpiffeId]] = []
        self.shown: list[DecisionEvent] = []
        self.errors: list[Exception] = []

    def decided(self, event: DecisionEvent) -> None:
        self.events.append(event)

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        self.again.append((question, ground, caller))

    def sampled(self, event: DecisionEvent) -> None:
        self.shown.append(event)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


def ask(
    service_: AuthorizationService,
    request: bytes,
    caller: SpiffeId | None,
    metadata: Sequence[tuple[str, str]],
) -> bytes | None:
    """Ask as a transport does."""
    return service_.check(request, service_.asked(caller, metadata))


def answered(response: bytes | None) -> bytes:
    """An answer that must be there."""
    assert response is not None
    return response


def opens(response: bytes | None) -> bool:
    """Whether Envoy would let the request pass: it reads an absent status as 0, which is OK."""
    if response is None:  # the call fails with UNAVAILABLE
        return False
    status = envoy_reads(response).status
    return status is None or status.code == 0


FORWARDED = (("x-request-id", "4711"), ("x-forwarded-proto", "https"))


@pytest.mark.parametrize("put_on", FORWARDED)
def test_what_a_proxy_puts_on_a_request_tells_that_it_was_passed_on(
    put_on: tuple[str, str],
) -> None:
    assert asked_of(SHOP, [("x-authz-question", "sign"), put_on], direct=True).forwarded
    assert not asked_of(SHOP, [("x-authz-question", "sign"), put_on]).forwarded


def test_what_envoy_puts_on_a_check_of_its_own_does_not() -> None:
    own = [
        ("x-authz-question", "sign"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-internal", "true"),
        ("traceparent", "00-1-2-01"),
        ("x-b3-traceid", "1"),
    ]
    assert not asked_of(SHOP, own, direct=True).forwarded


# Reading ---------------------------------------------------------------------------------------


def read(request: bytes | CheckRequest, *metadata: tuple[str, str]) -> Any:
    message = CheckRequest.FromString(request) if isinstance(request, bytes) else request
    asked = asked_of(SHOP, metadata)
    return facts_of(message, SHOP, asked, token_header=HEADER, policy=READING_PATHS)


@pytest.mark.parametrize("raw", [True, False])
def test_every_fact_is_read_from_what_envoy_sends_in_either_form(raw: bool) -> None:
    facts = read(
        envoy_check_request(
            raw=raw,
            path="/a?b",
            port=8013,
            headers=[
                (HEADER, "v1.x"),
                ("user-agent", "kube-probe/1"),
                ("k-network-probe", "probe"),
                ("kn-namespace", "red"),
                ("knative-serving-namespace", "blue"),
                ("knative-serving-revision", "r-1"),
            ],
            route_metadata={"istio": {"config": "/apis/x"}},
        ),
        ("x-authz-hop", "activator"),
        ("x-authz-upstream", "outbound|80||a.b"),
    )
    assert facts.caller == SHOP
    assert facts.hop is Hop.ACTIVATOR
    assert facts.upstream == "outbound|80||a.b"
    assert facts.virtual_service == "/apis/x"
    assert facts.principal == "spiffe://cluster.local/ns/blue/sa/default"
    assert (facts.host, facts.path, facts.port) == ("hello.green.svc.cluster.local", "/a?b", 8013)
    assert facts.tokens == ("v1.x",)
    assert (facts.user_agent, facts.network_probe) == ("kube-probe/1", "probe")
    assert facts.kn_namespace == ("red",)
    assert (facts.serving_namespace, facts.serving_revision) == (("blue",), ("r-1",))


def test_what_was_not_sent_is_empty() -> None:
    facts = read(b"")
    assert (facts.hop, facts.upstream, facts.virtual_service) == (None, None, "")
    assert (facts.principal, facts.host, facts.path, facts.port) == ("", "", "", 0)
    assert (facts.tokens, facts.kn_namespace, facts.user_agent) == ((), (), "")


PROBING = ("k-network-probe", "probe")


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ([PROBING], "GET"),
        ([PROBING, ("content-length", "0")], "GET"),
        ([PROBING, ("content-length", "1")], ""),
        ([PROBING, ("content-length", "00")], ""),
        ([PROBING, ("content-length", "0"), ("content-length", "1")], ""),
        ([], ""),
    ],
)
def test_the_method_is_read_of_a_probe_that_announces_no_body(
    headers: list[tuple[str, str]], method: str, raw: bool
) -> None:
    facts = read(envoy_check_request(raw=raw, path="/healthz", headers=headers))
    assert facts.method == method
    assert facts.path == "/healthz"


@pytest.mark.parametrize(
    ("told", "has"),
    [
        (["user-container,queue-proxy"], True),
        (["queue-proxy"], True),
        (["user-container"], False),
        (["my-queue-proxy,queue-proxy-2"], False),
        (["-"], False),  # Envoy's word for a variable that is not there
        (["queue-proxy", "queue-proxy"], False),
        ([], False),
    ],
)
def test_whether_a_pod_has_queue_proxy_is_told_by_the_names_of_its_containers(
    told: list[str], has: bool
) -> None:
    assert read(b"", *(("x-authz-containers", it) for it in told)).queue_proxy is has


def test_repeated_raw_headers_stay_apart_and_the_joined_form_stays_joined() -> None:
    headers = [(HEADER, "one"), (HEADER, "two")]
    assert read(envoy_check_request(headers=headers, raw=True)).tokens == ("one", "two")
    assert read(envoy_check_request(headers=headers, raw=False)).tokens == ("one,two",)


def test_a_header_in_both_forms_is_a_repeated_header() -> None:
    request, sent = http()
    sent.headers[HEADER] = "joined"
    sent.header_map.headers.add(key=HEADER, raw_value=b"raw")
    assert read(request).tokens == ("joined", "raw")


def test_a_raw_header_may_come_as_text() -> None:
    request, sent = http()
    sent.header_map.headers.add(key=HEADER, value="text")
    assert read(request).tokens == ("text",)


def test_an_empty_header_is_there() -> None:
    """An empty token is a malformed one, not a missing one."""
    assert read(envoy_check_request(headers=[(HEADER, "")])).tokens == ("",)
    assert read(envoy_check_request(headers=[(HEADER, "")], raw=False)).tokens == ("",)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xc3\xa9", b"v1.\x80", b"\x00"])
def test_bytes_that_are_not_ascii_are_read_and_never_good(raw: bytes) -> None:
    request, sent = http()
    sent.header_map.headers.add(key=HEADER, raw_value=raw)
    (value,) = read(request).tokens
    with pytest.raises(InvalidToken):
        tokens.parse(value)


def test_bytes_that_are_not_ascii_cannot_become_another_good_value() -> None:
    """Were they left out, a header could say `shop` to us and something else to the next hop."""
    request, sent = http()
    sent.header_map.headers.add(key="kn-namespace", raw_value=b"sh\xffop")
    assert read(request).kn_namespace == ("sh\ufffdop",)


@pytest.mark.parametrize("key", ["X-Tenant-Token", "x-tenant-token ", "x-tenant-tokens", ""])
def test_a_header_of_another_name_is_not_the_token(key: str) -> None:
    request, sent = http()
    sent.header_map.headers.add(key=key, raw_value=b"v1")
    sent.headers[key] = "v1"
    assert read(request).tokens == ()


@pytest.mark.parametrize("question", Question)
def test_a_question_is_known_by_its_word(question: Question) -> None:
    asked = asked_of(SHOP, [("a", "b"), ("x-authz-question", question.value)])
    assert asked.question is question


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("x-authz-question", "")],
        [("x-authz-question", "VERIFY")],
        [("x-authz-question", " verify")],
        [("x-authz-question", "verify,verify")],
        [("x-authz-question", "verify"), ("x-authz-question", "verify")],
        [("x-authz-question", "sign"), ("x-authz-question", "verify")],
        [("X-Authz-Question", "verify")],
    ],
)
def test_a_missing_repeated_or_unknown_question_is_none(metadata: list[tuple[str, str]]) -> None:
    assert asked_of(SHOP, metadata).question is None


@pytest.mark.parametrize("values", [("nowhere",), ("Gateway",), ("gateway", "gateway"), ("",), ()])
def test_an_unknown_or_repeated_hop_is_none(values: tuple[str, ...]) -> None:
    assert read(b"", *(("x-authz-hop", value) for value in values)).hop is None


def test_a_repeated_upstream_is_unreadable_not_absent() -> None:
    """Absent, it would mean "outside Istio", where the Host is believed."""
    upstream = ("x-authz-upstream", TO_BANK)
    assert read(b"", upstream).upstream == TO_BANK
    assert read(b"", upstream, upstream).upstream == ""
    assert read(b"", ("x-authz-upstream", "")).upstream == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {"istio": {}},
        {"istio": {"config": 7}},
        {"istio": {"config": None}},
        {"other": {"config": "x"}},
    ],
)
def test_route_metadata_of_another_shape_names_no_virtual_service(metadata: Any) -> None:
    assert read(envoy_check_request(route_metadata=metadata)).virtual_service == ""


def test_the_request_id_is_the_header_else_envoys_own() -> None:
    request, sent = http()
    sent.id = "2795469873"
    assert request_id_of(request) == "2795469873"
    sent.header_map.headers.add(key="x-request-id", raw_value=b"6f1c-aa")
    assert request_id_of(request) == "6f1c-aa"


@pytest.mark.parametrize(
    ("sent_id", "clean"),
    [
        ("a\r\nset-cookie: b", "aset-cookie: b"),
        ("\x1b[31mred", "[31mred"),
        ("é\u202e\x00id", "id"),
        ("x" * 1000, "x" * 64),
        ("\x7f\x00", ""),
    ],
)
def test_a_request_id_is_cut_and_made_printable(sent_id: str, clean: str) -> None:
    request, sent = http()
    sent.headers["x-request-id"] = sent_id
    assert request_id_of(request) == clean


# Answers, as Envoy reads them ------------------------------------------------------------------


def allow(header: HeaderAction | SetToken) -> auth.CheckResponse:
    verdict = Allow(Ground.SIGNED, header, Parties())
    return envoy_reads(answered(answer(verdict, token_header=HEADER, request_id="id-1")))


@pytest.mark.parametrize("header", [*HeaderAction, SetToken("v1.t")])
def test_an_allow_has_an_explicit_status_0_and_an_ok_response(
    header: HeaderAction | SetToken,
) -> None:
    response = allow(header)
    assert response.status is not None
    assert (response.status.code, response.status.message) == (0, "")
    assert response.ok_response is not None
    assert response.denied_response is None
    assert response.error_response is None
    assert response.dynamic_metadata is None


def test_a_token_overwrites_and_nothing_is_removed() -> None:
    changes = allow(SetToken("v1.t")).ok_response
    assert changes is not None
    (option,) = changes.headers
    assert option.header is not None
    assert (option.header.key, option.header.value) == (HEADER, "v1.t")
    overwrite = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    assert option.append_action == overwrite
    assert changes.headers_to_remove == []
    assert_nothing_else(changes)


def test_removing_only_removes() -> None:
    changes = allow(HeaderAction.REMOVE).ok_response
    assert changes is not None
    assert (changes.headers, changes.headers_to_remove) == ([], [HEADER])
    assert_nothing_else(changes)


def test_keeping_does_neither() -> None:
    changes = allow(HeaderAction.KEEP).ok_response
    assert changes is not None
    assert (changes.headers, changes.headers_to_remove) == ([], [])
    assert_nothing_else(changes)


def assert_nothing_else(changes: auth.OkHttpResponse) -> None:
    assert changes.response_headers_to_add == []
    assert changes.query_parameters_to_set == []
    assert changes.query_parameters_to_remove == []


DENIALS = [reason for reason in Reason if reason is not Reason.INTERNAL_ERROR]
PARTIES = Parties(Namespace("src-ns"), "acct-x", Namespace("dst-ns"), KeyId("00abcdef", 3))


@pytest.mark.parametrize("reason", DENIALS, ids=lambda r: r.slug)
def test_a_denial_says_403_one_word_and_the_request_id(reason: Reason) -> None:
    response = answer(Deny(reason, PARTIES), token_header=HEADER, request_id="id-1")
    said = envoy_reads(answered(response))
    assert said.status is not None
    assert said.denied_response is not None
    assert said.denied_response.status is not None
    word = reason.outward.value
    assert (said.status.code, said.status.message, said.status.details) == (7, word, [])
    assert said.denied_response.status.code == 403
    (option,) = said.denied_response.headers
    assert option.header is not None
    assert (option.header.key, option.header.value) == (REASON_HEADER, word)
    assert said.denied_response.body == f"tenant-authz: {word} (request id-1)"
    assert (said.ok_response, said.error_response, said.dynamic_metadata) == (None, None, None)


@pytest.mark.parametrize("reason", DENIALS, ids=lambda r: r.slug)
def test_no_answer_tells_the_details_of_a_denial(reason: Reason) -> None:
    response = answered(answer(Deny(reason, PARTIES), token_header=HEADER, request_id=""))
    hidden = [reason.sentence, "src-ns", "acct-x", "dst-ns", "00abcdef", "None"]
    if reason.slug not in set(Outward):
        hidden.append(reason.slug)
    assert [text for text in hidden if text.encode() in response] == []


def test_every_denial_has_one_of_three_words() -> None:
    assert {reason.outward.value for reason in Reason} == {
        "token-missing",
        "token-invalid",
        "not-allowed",
    }


def test_what_we_could_not_decide_is_no_answer() -> None:
    """The transport then lets the call fail, and Envoy goes by its failure mode."""
    assert answer(Deny(Reason.INTERNAL_ERROR, PARTIES), token_header=HEADER, request_id="a") is None


# The boundary ----------------------------------------------------------------------------------


def asking(question: Question) -> tuple[bytes, SpiffeId, list[tuple[str, str]]]:
    """A Check that is allowed, so that whatever denies it is what was injected."""
    metadata = [("x-authz-question", question.value)]
    match question:
        case Question.SIGN:
            return check_request(), SHOP, [*metadata, ("x-authz-upstream", TO_BANK)]
        case Question.PUBLIC:
            own = check_request(route_of="bank")
            return own, GATEWAY, [*metadata, ("x-authz-upstream", TO_BANK)]
        case Question.VERIFY:
            carried = ((HEADER, token("bank", "bank")),)
            return check_request(principal=str(ACTIVATOR), headers=carried), BANK, metadata
        case Question.TRANSIT:
            carried = ((HEADER, token("bank", "bank")),)
            hop = [*metadata, ("x-authz-hop", "gateway"), ("x-authz-upstream", TO_BANK)]
            return check_request(principal=str(GATEWAY), headers=carried), ACTIVATOR, hop
        case Question.TCP:
            return check_request(principal=str(BANK)), BANK, metadata


@pytest.mark.parametrize("question", Question)
def test_the_requests_that_errors_are_injected_into_are_allowed_without(
    question: Question,
) -> None:
    assert opens(ask(boundary(ENFORCING, Remembering()), *asking(question)))


def test_nothing_is_allowed_before_rules_are_there() -> None:
    seen = Remembering()
    for question in Question:
        response = ask(boundary(None, seen), *asking(question))
        assert response is None


def test_nobody_is_denied_whatever_is_asked_under_whatever_mode() -> None:
    for by in (ENFORCING, SHADOW, OFF):
        for question in Question:
            request, _, metadata = asking(question)
            seen = Remembering()
            assert not opens(ask(boundary(by, seen), request, None, metadata))
            (event,) = seen.events
            assert event.verdict == Deny(Reason.CALLER_UNTRUSTED, Parties())


def test_a_request_that_cannot_be_read_is_denied_and_recorded_as_such() -> None:
    seen = Remembering()
    _, caller, metadata = asking(Question.VERIFY)
    assert not opens(ask(boundary(ENFORCING, seen), b"\xff\xff", caller, metadata))
    (event,) = seen.events
    assert isinstance(event.verdict, Deny)
    assert event.verdict.reason is Reason.REQUEST_MALFORMED
    assert seen.errors == []


def test_shadow_lets_a_request_that_cannot_be_read_pass_and_strips_the_token() -> None:
    _, caller, metadata = asking(Question.VERIFY)
    response = ask(boundary(SHADOW), b"\xff\xff", caller, metadata)
    assert opens(response)
    said = envoy_reads(answered(response)).ok_response
    assert said is not None
    assert said.headers_to_remove == [HEADER]


def test_each_check_is_recorded_once_by_every_recorder() -> None:
    first, second = Remembering(), Remembering()
    asked = boundary(ENFORCING, first, second)
    for question in Question:
        ask(asked, *asking(question))
    assert first.events == second.events
    assert [event.question for event in first.events] == list(Question)
    assert first.errors == second.errors == []


def test_no_recorded_event_shows_a_token() -> None:
    seen = Remembering()
    for question in Question:
        ask(boundary(ENFORCING, seen), *asking(question))
    assert len(seen.events) == 5
    assert "v1." not in repr(seen.events)


def test_new_rules_count_from_the_next_check_on() -> None:
    asked = boundary(None)
    assert not opens(ask(asked, *asking(Question.VERIFY)))
    asked.rules = ENFORCING
    assert opens(ask(asked, *asking(Question.VERIFY)))
    asked.rules = rules(ENFORCING.policy, Keyring((root_key(2),)))
    assert not opens(ask(asked, *asking(Question.VERIFY)))


@pytest.mark.parametrize("where", ["broker", "channel"])
def test_eventing_is_asked_about_by_the_path_of_the_request(where: str) -> None:
    hop = [("x-authz-question", "transit"), ("x-authz-hop", where)]
    carried = ((HEADER, token("bank", str(ACTIVATOR.namespace))),)
    for path, expected in (("/bank/default", True), ("/shop/default", False), ("/", False)):
        request = check_request(principal=str(GATEWAY), headers=carried, path=path)
        assert opens(ask(boundary(ENFORCING), request, ACTIVATOR, hop)) is expected


@given(st.text(max_size=60) | st.sampled_from([str(SHOP), str(SHOP) + "/", str(SHOP).upper()]))
def test_a_principal_that_is_somebody_is_written_in_one_way(principal: str) -> None:
    """Whether a path is read is looked up by the principal's text."""
    with suppress(InvalidIdentity):
        assert str(SpiffeId.parse(principal)) == principal


# Errors at every seam. A seam is patched to raise; the answer must be a denial.

RAISED: list[Exception] = [
    RuntimeError(MESSAGE),
    ValueError(MESSAGE),
    KeyError(MESSAGE),
    MemoryError(MESSAGE),
    RecursionError(MESSAGE),
    DecodeError(MESSAGE),
    InvalidToken(Reason.TOKEN_EXPIRED),
    StopIteration(MESSAGE),
    UnicodeDecodeError("ascii", b"\xff", 0, 1, MESSAGE),
    ExceptionGroup(MESSAGE, [OSError(MESSAGE)]),
]

SEAMS: dict[str, tuple[Any, str]] = {
    "parsing": (service, "CheckRequest"),
    "asked_of": (service, "asked_of"),
    "facts_of": (service, "facts_of"),
    "request_id_of": (service, "request_id_of"),
    "decide": (service, "decide"),
    "event": (service, "DecisionEvent"),
    "answer": (service, "answer"),
    "destination": (case, "destination_of"),
    "policy": (Policy, "roles_of"),
    "mint": (tokens, "mint"),
    "parse": (tokens, "parse"),
    "verify": (tokens, "verify"),
    "signing_key": (Keyring, "signing_key"),
    "verifying_secret": (Keyring, "verifying_secret"),
    "decide_in_doubt": (service, "decide_in_doubt"),
    "decided": (Remembering, "decided"),
    "failed": (Remembering, "failed"),
    "clock": (ManualClock, "__call__"),
    "find": (AnswerCache, "find"),
    "keep": (AnswerCache, "keep"),
}
ONLY_AFTER_AN_ERROR = {"decide_in_doubt", "failed"}
NOT_ASKED = {  # seams that a question never reaches
    Question.SIGN: {"request_id_of", "parse", "verify", "verifying_secret"},
    Question.PUBLIC: {"request_id_of", "parse", "verify", "verifying_secret"},
    Question.VERIFY: {"request_id_of", "mint", "signing_key"},
    Question.TRANSIT: {"request_id_of", "mint", "signing_key"},
    Question.TCP: {"request_id_of", "mint", "signing_key", "parse", "verify", "verifying_secret"},
}


class _Unreadable:
    """Stands for CheckRequest."""

    def __init__(self, parse: Callable[..., Any]) -> None:
        self.FromString = parse


@contextmanager
def broken(seam: str, error: Exception) -> Iterator[list[str]]:
    """Let a seam raise; yields how often it did."""
    times: list[str] = []

    def breaks(*_: Any, **__: Any) -> Any:
        times.append(seam)
        raise error

    place, name = SEAMS[seam]
    with patch.object(place, name, _Unreadable(breaks) if seam == "parsing" else breaks):
        yield times


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("seam", [seam for seam in SEAMS if seam not in ONLY_AFTER_AN_ERROR])
@pytest.mark.parametrize("question", Question)
def test_an_error_at_any_seam_denies(question: Question, seam: str, error: Exception) -> None:
    check = asking(question)
    seen = Remembering()
    with broken(seam, error) as times:
        response = ask(boundary(ENFORCING, seen), *check)
    if seam in NOT_ASKED[question]:
        assert times == []
        assert opens(response)
        return
    assert times
    assert not opens(response)
    assert response is None or MESSAGE.encode() not in response
    expected = isinstance(error, InvalidToken) or (seam, type(error)) == ("parsing", DecodeError)
    if not expected:
        assert error in seen.errors


@pytest.mark.parametrize("question", Question)
def test_errors_at_any_two_seams_deny(question: Question) -> None:
    check = asking(question)
    for pair in combinations(SEAMS, 2):
        with ExitStack() as stack:
            times = [stack.enter_context(broken(seam, RuntimeError(MESSAGE))) for seam in pair]
            response = ask(boundary(ENFORCING, Remembering()), *check)
        if any(times):
            assert not opens(response), pair
            assert response is None or MESSAGE.encode() not in response, pair
        else:
            assert set(pair) <= NOT_ASKED[question] | ONLY_AFTER_AN_ERROR


def test_an_error_in_what_only_a_denial_needs_denies() -> None:
    stranger = check_request(principal=str(SHOP))
    metadata = [("x-authz-question", "verify")]
    with broken("request_id_of", RuntimeError(MESSAGE)) as times:
        assert not opens(ask(boundary(ENFORCING, Remembering()), stranger, BANK, metadata))
    assert times


def test_errors_at_all_seams_at_once_deny() -> None:
    for question in Question:
        check = asking(question)
        with ExitStack() as stack:
            for seam in SEAMS:
                stack.enter_context(broken(seam, RuntimeError(MESSAGE)))
            response = ask(boundary(ENFORCING, Remembering()), *check)
        assert response is None


def test_an_error_is_told_to_every_recorder_and_answered_by_the_mode() -> None:
    first, second = Remembering(), Remembering()
    error = RuntimeError(MESSAGE)
    check = asking(Question.VERIFY)
    with broken("facts_of", error):
        assert not opens(ask(boundary(ENFORCING, first, second), *check))
        assert opens(ask(boundary(SHADOW, second), *check))
    assert first.errors == [error]
    assert second.errors == [error, error]
    assert [type(event.verdict) for event in second.events] == [Deny, Allow]
    shadowed = second.events[1].verdict
    assert isinstance(shadowed, Allow)
    assert shadowed.would_deny is Reason.INTERNAL_ERROR


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        True,
        0,
        b"",
        "allow",
        Ground.SIGNED,
        HeaderAction.KEEP,
        object(),
        Allow,
        Allow(Ground.SIGNED, None, Parties()),  # type: ignore[arg-type]
        Deny(None, Parties()),  # type: ignore[arg-type]
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_a_decision_that_is_no_whole_verdict_denies(garbage: object) -> None:
    check = asking(Question.VERIFY)
    with patch.object(service, "decide", lambda *_: garbage):
        assert not opens(ask(boundary(ENFORCING, Remembering()), *check))
        assert not opens(ask(boundary(ENFORCING), *check))


def test_an_allow_that_cannot_be_recorded_is_not_given() -> None:
    """What nobody could have seen is not let through."""
    for question in Question:
        check = asking(question)
        with broken("decided", RuntimeError(MESSAGE)):
            response = ask(boundary(ENFORCING, Remembering()), *check)
        assert response is None


# Arbitrary requests ----------------------------------------------------------------------------


@given(
    request=requests() | st.binary(max_size=200),
    caller=st.sampled_from([*PEOPLE, None]),
    metadata=metadatas,
    by=st.sampled_from(POLICIES),
)
@example(b"", None, [], ENFORCING)
@example(b"", BANK, [("x-authz-question", "verify")], POLICIES[2])
def test_only_an_explicit_allow_becomes_status_0(
    request: bytes,
    caller: SpiffeId | None,
    metadata: Sequence[tuple[str, str]],
    by: Rules,
) -> None:
    decided: list[Allow | Deny] = []

    def spying(real: Callable[..., Allow | Deny]) -> Callable[..., Allow | Deny]:
        def spy(*args: Any) -> Allow | Deny:
            decided.append(real(*args))
            return decided[-1]

        return spy

    seen = Remembering()
    with (
        patch.object(service, "decide", spying(decision.decide)),
        patch.object(service, "decide_in_doubt", spying(decision.decide_in_doubt)),
    ):
        response = ask(boundary(by, seen), request, caller, metadata)
    assert seen.errors == []  # an error is a denial, but what anybody may send is no error
    (event,) = seen.events
    verdict = event.verdict
    if caller is None:
        assert decided == []
        assert isinstance(verdict, Deny)
    else:
        assert decided == [verdict]
    assert opens(response) == isinstance(verdict, Allow)
    said = envoy_reads(answered(response))
    if isinstance(verdict, Allow):
        assert said.ok_response is not None
        changed = [o.header.value for o in said.ok_response.headers if o.header]
        assert changed == ([verdict.header.token] if isinstance(verdict.header, SetToken) else [])
        removed = [HEADER] if verdict.header is HeaderAction.REMOVE else []
        assert said.ok_response.headers_to_remove == removed
        assert caller is not None
        assert caller.trust_domain == "cluster.local"
    else:
        assert said.ok_response is None
        assert said.denied_response is not None


@given(request=requests() | st.binary(max_size=200), metadata=metadatas)
def test_a_tenant_gets_tokens_of_its_own_namespace_only(
    request: bytes, metadata: Sequence[tuple[str, str]]
) -> None:
    for by in POLICIES:
        said = envoy_reads(answered(ask(boundary(by), request, SHOP, metadata)))
        for option in said.ok_response.headers if said.ok_response else ():
            assert option.header is not None
            assert tokens.parse(option.header.value).claims.source == "shop"
