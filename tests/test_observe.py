"""What is recorded: one audit line for each denial, a count of everything, and never a token."""

import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import authz
from authz.config import Settings
from authz.domain.decision import Rules, decide, decide_in_doubt
from authz.domain.facts import Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import KeyId
from authz.domain.names import Namespace
from authz.domain.policy import Grant, Mode, Policy, Role
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, Parties, SetToken
from authz.extauthz import AuthorizationService
from authz.observe import AuditLog, DecisionEvent, Metrics, Sampler, json_log, series
from authz.observe.audit import (
    ENTRY_SECONDS,
    LINES_PER_SECOND,
    MAX_ENTRIES,
    MAX_ENTRIES_OF_ONE,
    MAX_LINES_PER_SECOND,
    MAX_SAMPLES_PER_SECOND,
    MAX_UPSTREAMS,
    UPSTREAM_SECONDS,
)
from authz.observe.destinations import MAX_CLAIMED, MAX_PROVEN
from authz.observe.metrics import MAX_LISTED
from authz.testing import NOW, ManualClock, check_request, rules, workload
from tests.oracle.compare import asked as questions

SHOP, BANK = workload("shop", "till"), workload("bank", "vault")
PARTIES = Parties(Namespace("shop"), "till", Namespace("bank"), KeyId("00abcdef", 3))
DENIAL = Deny(Reason.NO_GRANT, PARTIES, "no-grant")


def event(
    verdict: Allow | Deny = DENIAL,
    *,
    question: Question | None = Question.VERIFY,
    caller: SpiffeId | None = BANK,
    request_id: str = "6f1c",
) -> DecisionEvent:
    return DecisionEvent(question, verdict, caller, request_id)


class Log:
    """An audit log, its clock and what it wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.clock = ManualClock(100.0)
        self.audit = AuditLog(json_log(self.stream), self.clock)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


# The audit log ---------------------------------------------------------------------------------


def test_a_denial_is_one_line_with_everything_that_is_known() -> None:
    log = Log()
    log.audit.decided(event())
    (line,) = log.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "denied",
        "level": "warning",
        "reason": "no-grant",
        "told": "not-allowed",
        "because": Reason.NO_GRANT.sentence,
        "row": "no-grant",
        "question": "verify",
        "peer": None,
        "source": "shop",
        "claimed_source": None,
        "service_account": "till",
        "destination": "bank",
        "key_id": "00abcdef-3",
        "request_id": "6f1c",
        "asked_by": "spiffe://cluster.local/ns/bank/sa/vault",
    }


def test_what_is_not_known_is_null() -> None:
    log = Log()
    log.audit.decided(
        event(Deny(Reason.QUESTION_UNKNOWN, Parties()), question=None, caller=None, request_id="")
    )
    (line,) = log.lines
    names = ("question", "source", "service_account", "destination", "key_id", "asked_by")
    assert [line[name] for name in names] == [None] * 6


def test_what_shadow_mode_lets_pass_is_a_line_too() -> None:
    log = Log()
    shadowed = Allow(Ground.NOT_ENFORCED, HeaderAction.REMOVE, PARTIES, would_deny=Reason.NO_GRANT)
    log.audit.decided(event(shadowed))
    (line,) = log.lines
    assert (line["event"], line["reason"]) == ("would deny", "no-grant")


def test_an_allow_is_no_line_and_neither_is_what_mode_off_lets_pass() -> None:
    log = Log()
    told = {Ground.UPSTREAM_UNREADABLE, Ground.EXEMPT, Ground.GRANTED, Ground.FROM_OUTSIDE}
    for ground in set(Ground) - told:
        log.audit.decided(event(Allow(ground, HeaderAction.KEEP, PARTIES)))
    assert log.lines == []


def test_who_is_let_in_from_elsewhere_is_a_line_an_hour_with_row_and_grant() -> None:
    log = Log()
    grant = Grant(BANK.namespace, SHOP.namespace)
    for parties in (PARTIES, PARTIES, PARTIES._replace(source=BANK.namespace)):
        allow = Allow(Ground.GRANTED, HeaderAction.REMOVE, parties, row="granted", grant=grant)
        log.audit.decided(event(allow))
    assert [line["source"] for line in log.lines] == ["shop", "bank"]
    assert log.lines[0]["event"] == "let in"
    assert (log.lines[0]["row"], log.lines[0]["grant"]) == ("granted", "bank from shop")
    log.clock.now += ENTRY_SECONDS
    log.audit.decided(event(allow))
    assert len(log.lines) == 3


def test_lines_of_who_is_let_in_have_a_limit() -> None:
    log = Log()
    for number in range(MAX_ENTRIES + 10):
        parties = PARTIES._replace(source=workload(f"n{number}").namespace)
        log.audit.decided(event(Allow(Ground.EXEMPT, HeaderAction.REMOVE, parties, row="exempt")))
    assert len(log.lines) == MAX_ENTRIES


def test_one_source_hides_no_others_line() -> None:
    """With as many service accounts as it likes."""
    log = Log()
    for number in range(MAX_ENTRIES):
        parties = PARTIES._replace(service_account=f"robot-{number}")
        log.audit.decided(event(Allow(Ground.GRANTED, HeaderAction.REMOVE, parties, row="granted")))
    assert len(log.lines) == MAX_ENTRIES_OF_ONE
    other = PARTIES._replace(source=BANK.namespace)
    log.audit.decided(event(Allow(Ground.GRANTED, HeaderAction.REMOVE, other, row="granted")))
    assert log.lines[-1]["source"] == "bank"


def unreadable(caller: SpiffeId) -> DecisionEvent:
    """A token was not made, for a reason that is a fault."""
    parties = Parties(caller.namespace, upstream="outbound|80||x;")
    allow = Allow(Ground.UPSTREAM_UNREADABLE, HeaderAction.REMOVE, parties)
    return event(allow, question=Question.SIGN, caller=caller)


def test_an_upstream_that_cannot_be_read_is_a_line_a_minute_for_each_namespace() -> None:
    log = Log()
    for caller in (SHOP, SHOP, BANK, SHOP):
        log.audit.decided(unreadable(caller))
    assert [line["asked_by"] for line in log.lines] == [str(SHOP), str(BANK)]
    line = log.lines[0]
    del line["timestamp"]
    assert line == {
        "event": "no token: the upstream is no cluster name of istiod's",
        "level": "warning",
        "upstream": "outbound|80||x;",
        "question": "sign",
        "asked_by": str(SHOP),
    }
    log.clock.now += UPSTREAM_SECONDS
    log.audit.decided(unreadable(SHOP))
    assert len(log.lines) == 3


def test_nobody_fills_the_log_with_upstreams() -> None:
    log = Log()
    for number in range(2 * MAX_UPSTREAMS):
        log.audit.decided(unreadable(workload(f"n{number}")))
    assert len(log.lines) == MAX_UPSTREAMS


def test_a_hop_that_cannot_read_the_upstream_says_what_it_was() -> None:
    log = Log()
    log.audit.decided(event(Deny(Reason.UPSTREAM_UNREADABLE, Parties(upstream="x;"))))
    (line,) = log.lines
    assert (line["reason"], line["upstream"]) == ("upstream-unreadable", "x;")


@pytest.mark.parametrize(("mode", "said"), [("enforce", "denied"), ("shadow", "would deny")])
def test_a_denial_by_the_service_is_logged_by_its_mode(mode: str, said: str) -> None:
    log = Log()
    asked(rules(Policy(default_mode=Mode(mode))), log.audit)("verify", BANK)
    (line,) = log.lines
    assert (line["event"], line["reason"]) == (said, "token-missing")


def test_mode_off_writes_nothing() -> None:
    log = Log()
    asked(rules(Policy(default_mode=Mode.OFF)), log.audit)("verify", BANK)
    assert log.lines == []


def asked(by: Rules, *recorders: Any) -> Callable[..., bytes]:
    """Asks a service that tells these recorders."""
    service = AuthorizationService(
        token_header="x-tenant-token", clock=ManualClock(), recorders=recorders
    )
    service.rules = by

    def ask(question: str, caller: SpiffeId, *tokens: str, **more: str) -> bytes:
        headers = tuple(("x-tenant-token", token) for token in tokens)
        request_id, route_of = more.pop("request_id", ""), more.pop("route_of", "")
        request = check_request(headers=headers, request_id=request_id, route_of=route_of)
        named = [(f"x-authz-{name}", value) for name, value in more.items()]
        answer = service.check(
            request, service.asked(caller, [("x-authz-question", question), *named])
        )
        assert answer is not None
        return answer

    return ask


def test_no_line_shows_a_token_nor_a_part_of_it() -> None:
    log, metrics = Log(), Metrics(ManualClock())
    ask = asked(rules(), log.audit, metrics)
    signed = ask("sign", SHOP, upstream="outbound|80||vault.bank.svc.cluster.local")
    token = signed[signed.index(b"v1.") :].split(b"\x18")[0].decode()
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    for sent in ((token,), (forged,), (token, token), ("v1.nonsense",)):
        ask("verify", BANK, *sent)
    assert [line["reason"] for line in log.lines] == [
        "presented-by-a-stranger",
        "signature-wrong",
        "token-repeated",
        "token-malformed",
    ]
    everything = log.stream.getvalue() + metrics.text().decode()
    for secret in (token, token.split(".")[3], token.split(".")[2], forged, "v1."):
        assert secret not in everything


def test_a_request_id_cannot_write_a_line_of_its_own() -> None:
    log = Log()
    ask = asked(rules(), log.audit)
    ask("verify", BANK, request_id='x"}\n{"event": "forged')
    (line,) = log.lines
    assert line["request_id"] == 'x"}{"event": "forged'


# Traces ----------------------------------------------------------------------------------------

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"trace_id": TRACE, "span_id": SPAN, "trace_flags": "01"}


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACED),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACED),
        ("", {}),
        (f"00-{TRACE}-{SPAN}-01-more", {}),
        (f"00-{TRACE.upper()}-{SPAN}-01", {}),
        (f"ff-{TRACE}-{SPAN}-01", {}),
        (f"00-{'0' * 32}-{SPAN}-01", {}),
        (f"00-{TRACE}-{'0' * 16}-01", {}),
        (f"00-{TRACE}-{SPAN}-01\n", {}),
        (f"00-{TRACE}-{SPAN}-1", {}),
        (f"00-{TRACE}{SPAN}-01", {}),
        (f"01-{TRACE}-{SPAN}-01-" + "x" * 10_000, {}),
        ('00-"}\n{"event": "forged"}', {}),
    ],
)
def test_a_denial_names_its_trace_and_nothing_else_that_calls_itself_one(
    sent: str, found: dict[str, str]
) -> None:
    log = Log()
    service = AuthorizationService(
        token_header="x-tenant-token", clock=ManualClock(), recorders=[log.audit]
    )
    service.rules = rules()
    metadata = [("x-authz-question", "verify"), ("traceparent", sent)]
    service.check(check_request(), service.asked(BANK, metadata))
    service.check(b"\xff", service.asked(BANK, metadata))
    service.check(check_request(), service.asked(BANK, [*metadata, metadata[1]]))
    service.check(check_request(), service.asked(None, metadata))
    traced = [{name: line[name] for name in TRACED if name in line} for line in log.lines]
    assert traced == [found, found, {}, found]


# Samples of allows -----------------------------------------------------------------------------


def sampled(log: Log, share: float, count: int, *tokens: str) -> list[dict[str, Any]]:
    """What is logged of so many equal allows."""
    metrics = Metrics(ManualClock())
    service = AuthorizationService(
        token_header="x-tenant-token",
        clock=ManualClock(),
        recorders=[metrics, log.audit],
        sample=Sampler(share, Random(7).random) if share else None,
    )
    service.rules = rules()
    metadata = [
        ("x-authz-question", "sign"),
        ("x-authz-upstream", "outbound|80||vault.bank.svc.cluster.local"),
        ("traceparent", f"00-{TRACE}-{SPAN}-01"),
    ]
    for number in range(count):
        request = check_request(request_id=f"id-{number}", headers=(("x-tenant-token", "v1.a"),))
        service.check(request, service.asked(SHOP, metadata))
        log.clock.now += 0.1
    assert checks(metrics) == {("sign", "allow", "signed"): count}
    return log.lines


def test_allows_are_not_logged_unless_somebody_wants_samples() -> None:
    assert sampled(Log(), 0, 100) == []
    assert Settings.model_fields["log_allows"].default == 0


def test_a_sample_is_an_allow_with_all_that_is_known_and_no_token() -> None:
    log = Log()
    first, second = sampled(log, 1, 2)  # decided, and given again
    assert (first.pop("request_id"), second.pop("request_id")) == ("id-0", "id-1")
    for line in (first, second):
        line.pop("timestamp")
        assert line == {
            "event": "allowed",
            "level": "info",
            "reason": "signed",
            "because": Ground.SIGNED.value,
            "row": "signed",
            "grant": None,
            "question": "sign",
            "peer": None,
            "source": "shop",
            "claimed_source": None,
            "service_account": "till",
            "destination": "bank",
            "key_id": None,
            "asked_by": str(SHOP),
            **TRACED,
        }
    assert "v1." not in log.stream.getvalue()


def test_the_share_of_samples_is_as_wanted() -> None:
    found = len(sampled(Log(), 0.1, 5000))
    assert 400 < found < 600


@pytest.mark.parametrize("share", [1e-300, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1 - 2**-53])
def test_no_share_and_no_chance_breaks_the_sampler(share: float, chance: float) -> None:
    sampler = Sampler(share, lambda: chance)
    assert [sampler() for _ in range(3)]
    if share == 1.0:
        assert all(sampler() for _ in range(3))


def test_denials_are_no_samples_and_samples_are_bounded() -> None:
    log = Log()
    log.audit.sampled(event())
    allow = Allow(Ground.SIGNED, SetToken("v1.t"), PARTIES)
    for _ in range(2 * MAX_SAMPLES_PER_SECOND):
        log.audit.sampled(event(allow))
    assert len(log.lines) == MAX_SAMPLES_PER_SECOND
    log.audit.decided(event())  # which have a limit of their own
    log.clock.now += 1
    log.audit.sampled(event(allow))
    assert [line["event"] for line in log.lines[-2:]] == ["denied", "allowed"]


# Its limit -------------------------------------------------------------------------------------


def test_each_asking_namespace_has_a_limit_of_its_own() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND * 3):
        log.audit.decided(event(caller=SHOP))
    log.audit.decided(event(caller=BANK))
    log.audit.decided(event(caller=None))
    assert len(log.lines) == LINES_PER_SECOND + 2
    assert log.lines[-2]["asked_by"] == str(BANK)


def test_service_accounts_of_one_namespace_share_its_limit() -> None:
    log = Log()
    for number in range(LINES_PER_SECOND * 2):
        log.audit.decided(event(caller=workload("shop", f"sa-{number}")))
    assert len(log.lines) == LINES_PER_SECOND


def test_what_was_left_out_is_said_in_the_next_second() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND + 7):
        log.audit.decided(event(caller=SHOP))
    for _ in range(LINES_PER_SECOND):
        log.audit.decided(event(caller=BANK))
    log.clock.now += 0.9
    log.audit.decided(event(caller=SHOP))
    assert len(log.lines) == LINES_PER_SECOND * 2
    log.clock.now += 0.2
    log.audit.decided(event(caller=SHOP))
    said, line = log.lines[-2:]
    assert said["event"] == "denials left out of the log"
    assert said["left_out"] == {"nobody at shop": 8}
    assert line["event"] == "denied"


def test_one_tenants_flood_does_not_hide_what_another_does() -> None:
    """At the activator, all that is asked is asked by the activator."""
    log = Log()
    for peer, count in ((workload("mallory"), 100), (SHOP, 1)):
        for _ in range(count):
            parties = PARTIES._replace(peer=peer)
            log.audit.decided(event(Deny(Reason.TOKEN_MISSING, parties), caller=BANK))
    assert [line["peer"] for line in log.lines].count(str(SHOP)) == 1
    assert len(log.lines) == LINES_PER_SECOND + 1


def test_all_lines_together_have_a_limit() -> None:
    log = Log()
    for number in range(2 * MAX_LINES_PER_SECOND):
        parties = PARTIES._replace(peer=workload(f"n{number}"))
        log.audit.decided(event(Deny(Reason.TOKEN_MISSING, parties), caller=BANK))
    assert len(log.lines) == MAX_LINES_PER_SECOND


def test_a_new_second_is_a_new_limit_and_nothing_left_out_is_not_said() -> None:
    log = Log()
    for _ in range(3):
        for _ in range(LINES_PER_SECOND):
            log.audit.decided(event())
        log.clock.now += 1
    assert [line["event"] for line in log.lines] == ["denied"] * LINES_PER_SECOND * 3


def test_allows_do_not_use_the_limit_up() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND * 2):
        log.audit.decided(event(Allow(Ground.SIGNED, SetToken("v1.t"), PARTIES)))
    log.audit.decided(event())
    assert len(log.lines) == 1


# Errors ----------------------------------------------------------------------------------------


def failure(text: str) -> Exception:
    """An error that was raised, and so knows where."""
    with pytest.raises(KeyError) as caught:
        json.loads("{}")[text]
    return caught.value


def test_an_unexpected_error_is_told_by_its_kind_and_place_and_not_by_its_text() -> None:
    log = Log()
    log.audit.failed(failure("header x-tenant-token: v1.secret"))
    (line,) = log.lines
    assert (line["event"], line["level"]) == ("unexpected error", "error")
    assert line["kind"] == "KeyError"
    assert line["place"].startswith(f"{__file__}:")
    assert "secret" not in log.stream.getvalue()


def test_an_error_that_was_never_raised_has_no_place() -> None:
    log = Log()
    log.audit.failed(ValueError("text"))
    assert log.lines[0]["place"] is None


def test_errors_are_limited_too_and_not_by_any_namespace() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND * 2):
        log.audit.failed(failure("text"))
    log.audit.decided(event())
    assert [line["event"] for line in log.lines] == ["unexpected error"] * LINES_PER_SECOND + [
        "denied"
    ]


# The log ---------------------------------------------------------------------------------------


def test_the_log_is_json_lines_on_standard_output_by_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    json_log().info("said", text="two\nlines", value=object)
    output = capsys.readouterr()
    (line,) = output.out.splitlines()
    assert json.loads(line)["text"] == "two\nlines"
    assert output.err == ""


def test_debug_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    json_log().debug("said")
    assert capsys.readouterr().out == ""


# Metrics ---------------------------------------------------------------------------------------


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def checks(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """What was counted, by question, outcome and reason."""
    found = {}
    for (name, labels), value in samples(metrics).items():
        if name == "authz_checks_total" and value:
            named = dict(labels)
            found[named["question"], named["outcome"], named["reason"]] = value
    return found


def test_every_decision_is_counted_by_question_outcome_and_reason() -> None:
    metrics = Metrics(ManualClock())
    shadowed = Allow(Ground.NOT_ENFORCED, HeaderAction.KEEP, PARTIES, would_deny=Reason.NO_GRANT)
    off = Allow(Ground.NOT_ENFORCED, HeaderAction.KEEP, PARTIES)
    for told in (
        event(),
        event(),
        event(shadowed),
        event(off, question=Question.TCP),
        event(Allow(Ground.SIGNED, SetToken("v1.t"), PARTIES), question=Question.SIGN),
        event(Deny(Reason.QUESTION_UNKNOWN, Parties()), question=None, caller=None),
    ):
        metrics.decided(told)
    assert checks(metrics) == {
        ("verify", "deny", "no-grant"): 2,
        ("verify", "shadow", "no-grant"): 1,
        ("tcp", "allow", "not-enforced"): 1,
        ("sign", "allow", "signed"): 1,
        ("unknown", "deny", "question-unknown"): 1,
    }


def test_nothing_that_a_tenant_says_becomes_a_label() -> None:
    """Series would grow without bound: only our own words are labels."""
    metrics = Metrics(ManualClock())
    ask = asked(rules(), metrics)
    for number in range(50):
        ask(f"question-{number}", workload(f"ns-{number}"), f"token-{number}")
        ask("verify", workload(f"ns-{number}"), f"token-{number}")
    assert len(checks(metrics)) == 2
    assert series_of(metrics) == series_of(Metrics(ManualClock()))


def test_every_label_set_is_there_before_anything_happens() -> None:
    """Else the first event is no increase, and an alert on it is silent."""
    metrics = Metrics(ManualClock())
    before = series_of(metrics)
    for seed in range(3):
        for one in questions(seed, 2000):
            question, facts = one.request
            verdict = decide(question, facts, one.rules, one.world.now)
            metrics.decided(event(verdict, question=question, caller=None))
    for question in (None, *Question):
        for reason in (Reason.REQUEST_MALFORMED, Reason.INTERNAL_ERROR):
            for mode in Mode:
                doubt = decide_in_doubt(reason, question, BANK, Policy(default_mode=mode))
                metrics.decided(event(doubt, question=question))
    for error in (*map(ValueError, "ab"), KeyError(), UnicodeError(), TimeoutError(), Unheard()):
        metrics.failed(error)
    assert series_of(metrics) == before


def series_of(metrics: Metrics) -> set[object]:
    """All but those of namespaces that have asked, which are proven and bounded."""
    of_one = {"authz_namespace_verified", "authz_denials_total"}
    return {key for key in samples(metrics) if key[0] not in of_one}


class Unheard(Exception):
    """Of a kind that is nobody's."""


def test_what_transports_count_is_there_before_anything_happens() -> None:
    source = "".join(
        path.read_text()
        for folder in ("transport", "http2")
        for path in (Path(authz.__file__).parent / folder).glob("*.py")
    )
    limit = r'(?:limited|\bcount)\("(\w+)"|limit="(\w+)"'
    limits = {one or other for one, other in re.findall(limit, source)}
    assert limits == set(series.LIMITS)
    ends = r'(?:abort|announce|fail|retire|Refused|_closed|call_soon\(\S+)\(?(?:, )?"(\w+)"'
    reasons = {*re.findall(ends, source), "client", "handshake", "handshake_limit"}
    faults = re.findall(r"ConnectionFault\(\s*ErrorCode\.(\w+)", source)
    assert reasons | {fault.lower() for fault in faults} <= set(series.CLOSED)


def denials(metrics: Metrics) -> dict[tuple[str, str], float]:
    """By destination and outcome, where there were any."""
    return {
        (dict(labels)["destination"], dict(labels)["outcome"]): value
        for (name, labels), value in samples(metrics).items()
        if name == "authz_denials_total" and value
    }


def denial_at(name: str | None, question: Question = Question.TRANSIT) -> DecisionEvent:
    destination = None if name is None else Namespace(name)
    return event(Deny(Reason.NO_GRANT, Parties(destination=destination)), question=question)


def test_denials_are_counted_by_destination() -> None:
    metrics = Metrics(ManualClock())
    shadowed = Allow(Ground.NOT_ENFORCED, HeaderAction.KEEP, PARTIES, would_deny=Reason.NO_GRANT)
    allowed = Allow(Ground.GRANTED, HeaderAction.REMOVE, PARTIES)
    for one in (event(), event(), event(shadowed), event(allowed), denial_at(None)):
        metrics.decided(one)
    assert denials(metrics) == {
        ("bank", "deny"): 2,
        ("bank", "shadow"): 1,
        ("_unknown", "deny"): 1,
    }


def test_made_up_destinations_crowd_out_nobody() -> None:
    metrics = Metrics(ManualClock())
    for number in range(2 * MAX_CLAIMED):
        metrics.decided(denial_at(f"made-up-{number}"))
    for number in range(MAX_PROVEN + 1):
        metrics.decided(denial_at(f"real-{number}", Question.VERIFY))
    metrics.decided(denial_at("real-0"))
    found = denials(metrics)
    assert len(found) == MAX_CLAIMED + MAX_PROVEN + 1
    assert found["_other", "deny"] == MAX_CLAIMED + 1
    assert found["real-0", "deny"] == 2


def test_destinations_of_all_workers_are_bounded_together() -> None:
    whole, one = Metrics(ManualClock()), Metrics(ManualClock())
    for number in range(MAX_PROVEN):
        one.decided(denial_at(f"of-one-{number}", Question.VERIFY))
        other = Metrics(ManualClock())
        other.decided(denial_at(f"of-many-{number}"))
        whole.add(2, other.changes())
    whole.add(1, one.changes())
    found = denials(whole)
    assert len(found) == MAX_PROVEN + 1
    assert sum(found.values()) == 2 * MAX_PROVEN


def durations(metrics: Metrics) -> dict[str, float]:
    """Of Checks, by the upper end of the bucket: how many took no longer."""
    return {
        dict(labels)["le"]: value
        for (name, labels), value in samples(metrics).items()
        if name == "authz_check_duration_seconds_bucket"
    }


def test_durations_are_counted_in_buckets_and_add_up() -> None:
    whole, one = Metrics(ManualClock()), Metrics(ManualClock())
    assert set(durations(whole).values()) == {0}
    one.latency.took(0.0001, 3)
    one.latency.took(0.02, 2)
    whole.add(1, one.changes())
    one.latency.took(7.0, 1)
    whole.add(1, one.changes())
    whole.add(1, one.changes())
    found = durations(whole)
    assert (found["0.0001"], found["0.01"], found["0.025"], found["1.0"]) == (3, 3, 5, 5)
    assert (found["+Inf"], durations(one)) == (6, found)
    assert samples(whole)["authz_check_duration_seconds_sum", ()] == pytest.approx(7.0403)


def test_the_build_is_told() -> None:
    ((_, labels),) = [it for it in samples(Metrics(ManualClock())) if it[0] == "authz_build_info"]
    assert dict(labels)["version"] == authz.__version__


def test_each_process_has_series_of_its_own_and_one_that_is_gone_none() -> None:
    metrics = Metrics(ManualClock())
    gone = subprocess.Popen(["true"])
    gone.wait()
    metrics.processes = lambda: {0: os.getpid(), 1: os.getppid(), 2: gone.pid}
    found = samples(metrics)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert [dict(labels)["worker"] for it, labels in found if it == name] == ["0", "1"]
        assert found[name, (("worker", "0"),)] > 0


def test_errors_are_counted_by_kind() -> None:
    metrics = Metrics(ManualClock())
    metrics.failed(failure("text"))
    metrics.failed(failure("text"))
    assert samples(metrics)["authz_unexpected_errors_total", (("kind", "KeyError"),)] == 2


def test_the_names_of_all_metrics() -> None:
    metrics = Metrics(ManualClock())
    metrics.decided(event(Allow(Ground.SIGNED, SetToken("t"), PARTIES), question=Question.SIGN))
    metrics.failed(ValueError())
    assert {name for name, _ in samples(metrics)} == {
        "authz_checks_total",
        "authz_denials_total",
        "authz_check_duration_seconds_bucket",
        "authz_check_duration_seconds_count",
        "authz_check_duration_seconds_sum",
        "authz_build_info",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "authz_unexpected_errors_total",
        "authz_reload_failures_total",
        "authz_last_reload_successful",
        "authz_connections_closed_total",
        "authz_limits_met_total",
        "authz_keyring_version",
        "authz_keyring_refused",
        "authz_age_seconds",
        "authz_unverified_namespaces",
        "authz_namespace_unverified",
        "authz_verified_namespaces",
        "authz_connections",
        "authz_workers",
        "authz_worker_restarts_total",
    }


def test_ages_grow_from_the_last_time_that_something_was_fresh() -> None:
    clock = ManualClock()
    metrics = Metrics(clock)
    keyring, policy = (("authz_age_seconds", (("what", what),)) for what in ("keyring", "policy"))
    assert samples(metrics)[keyring] == float("inf")
    metrics.fresh("keyring")
    clock.now = NOW + 5
    assert (samples(metrics)[keyring], samples(metrics)[policy]) == (5, float("inf"))


def test_what_is_left_of_a_certificate_is_told_where_there_is_one() -> None:
    clock = ManualClock()
    metrics = Metrics(clock)
    key = ("authz_certificate_expires_seconds", ())
    assert key not in samples(metrics)
    metrics.presents(NOW + 60)
    clock.now = NOW + 70
    assert samples(metrics)[key] == -10


@pytest.mark.parametrize("what", series.RELOADED)
def test_a_bad_new_version_is_told_as_long_as_it_is_there(what: str) -> None:
    one, whole = Metrics(ManualClock()), Metrics(ManualClock())
    key = "authz_last_reload_successful", (("what", what),)
    assert samples(one)[key] == 1
    for newest in (False, False, True):
        one.is_newest(what, newest)
        whole.add(1, one.changes())
        whole.add(2, Metrics(ManualClock()).changes())  # another worker, in which all is well
        assert samples(one)[key] == samples(whole)[key] == newest


def test_reload_failures_are_there_before_the_first_one() -> None:
    found = samples(Metrics(ManualClock()))
    for what in ("keyring", "policy"):
        assert found["authz_reload_failures_total", (("what", what),)] == 0


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(ManualClock()), Metrics(ManualClock())
    one.decided(event())
    assert checks(other) == {}


# Namespaces that sign and never verify ---------------------------------------------------------


def unverified(metrics: Metrics) -> list[str]:
    found = samples(metrics)
    names = [
        dict(labels)["namespace"] for name, labels in found if name == "authz_namespace_unverified"
    ]
    assert found["authz_unverified_namespaces", ()] >= len(names)
    return names


def test_a_namespace_that_signs_and_never_verifies_is_listed_until_it_does() -> None:
    metrics = Metrics(ManualClock())
    ask = asked(rules(), metrics)
    assert unverified(metrics) == []
    for caller in (SHOP, BANK):
        ask("sign", caller, upstream="outbound|80||a.b.svc.cluster.local")
    assert unverified(metrics) == ["bank", "shop"]
    ask("verify", SHOP)
    assert unverified(metrics) == ["bank"]
    assert samples(metrics)["authz_namespace_verified", (("namespace", "shop"),)] == 1
    ask("verify", BANK)
    assert unverified(metrics) == []
    assert samples(metrics)["authz_verified_namespaces", ()] == 2


def test_one_that_only_verifies_or_only_calls_outside_is_not_listed() -> None:
    metrics = Metrics(ManualClock())
    ask = asked(rules(), metrics)
    ask("verify", SHOP)
    ask("sign", BANK, upstream="PassthroughCluster")
    assert unverified(metrics) == []


def test_whoever_is_not_trusted_cannot_take_a_namespace_off_the_list() -> None:
    metrics = Metrics(ManualClock())
    ask = asked(rules(), metrics)
    ask("sign", SHOP, upstream="outbound|80||a.b.svc.cluster.local")
    ask("verify", workload("shop", "till", "elsewhere"))
    assert unverified(metrics) == ["shop"]


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    metrics = Metrics(ManualClock())
    verdict = Allow(Ground.SIGNED, SetToken("t"), PARTIES)
    for number in range(MAX_LISTED + 5):
        caller = workload(f"ns-{number}")
        metrics.decided(event(verdict, question=Question.SIGN, caller=caller))
    assert len(unverified(metrics)) == MAX_LISTED
    assert samples(metrics)["authz_unverified_namespaces", ()] == MAX_LISTED + 5


def test_a_gateway_which_is_no_destination_is_not_listed() -> None:
    metrics = Metrics(ManualClock())
    gateway = workload("istio-system", "gateway")
    ask = asked(rules(Policy(roles={gateway: frozenset({Role.GATEWAY})})), metrics)
    ask("public", gateway, upstream="outbound|80||a.b.svc.cluster.local", route_of="b")
    assert ("public", "allow", "signed") in checks(metrics)
    assert unverified(metrics) == []
