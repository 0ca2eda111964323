"""Shadow to enforce: what is proposed is enough, and never more than what was proven."""

import http.server
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.cli import report
from authz.domain.decision import Rules, decide
from authz.domain.facts import Facts, Question
from authz.domain.names import parse_namespace
from authz.domain.policy import Mode, Policy
from authz.domain.reason import Outward, Reason
from authz.observe import AuditLog, Metrics, json_log
from authz.observe.events import DecisionEvent
from authz.policysource.file import parse_policy
from authz.report.scrape import scrape
from authz.report.shadow import Log, Readiness, as_policy
from authz.testing import NOW, ManualClock, rules, workload
from tests.command import Run
from tests.platform.manifests import rendered

POLICY = """\
default_mode: shadow
roles:
  transit: [spiffe://cluster.local/ns/knative-serving/sa/activator]
  gateway: [spiffe://cluster.local/ns/istio-system/sa/gateway]
namespaces:
  acme: {mode: shadow}
  quiet: {mode: shadow}
  closed: {mode: shadow, public: false}
"""
ACTIVATOR = "spiffe://cluster.local/ns/knative-serving/sa/activator"


def line(**values: Any) -> str:
    """A line of the log."""
    record = {
        "reason": "no-grant",
        "question": "verify",
        "source": "globex",
        "service_account": "reader",
        "destination": "acme",
        "event": "would deny",
        "timestamp": "2026-11-23T10:00:00.5Z",
    }
    return json.dumps(record | values)


def log_of(*lines: str, policy: str = POLICY) -> Log:
    """A log that was read."""
    log = Log(parse_policy(policy))
    log.read(lines)
    return log


def readiness(log: Log, namespace: str = "acme", unprotected: tuple[str, ...] = ()) -> Readiness:
    return log.readiness(parse_namespace(namespace), unprotected)


# From the service's own decisions --------------------------------------------------------------


class Service:
    """Decides as the server does, and writes the log that it writes."""

    def __init__(self, policy: str = POLICY) -> None:
        self.rules: Rules = rules(parse_policy(policy))
        self.text = io.StringIO()
        self._audit = AuditLog(json_log(self.text), ManualClock())

    def call(
        self,
        source: str,
        destination: str = "acme",
        *,
        token: bool = True,
        question: Question = Question.VERIFY,
        peer: str | None = None,
    ) -> bool:
        """Whether a call is let in, with the policy's mode."""
        pod = workload(destination)
        tokens: tuple[str, ...] = ()
        if token:
            signed = decide(
                Question.SIGN,
                Facts(
                    workload(source, "reader"),
                    upstream=f"outbound|80||x.{destination}.svc.cluster.local",
                ),
                self.rules,
                NOW,
            )
            tokens = (signed.header.token,)  # type: ignore[union-attr]
        facts = Facts(
            pod, principal=peer or str(workload(source, "reader")), port=8012, tokens=tokens
        )
        result = decide(question, facts, self.rules, NOW)
        self._audit.decided(DecisionEvent(question, result, pod, "an-id"))
        return type(result).__name__ == "Allow" and getattr(result, "would_deny", None) is None

    def report(self) -> Log:
        log = Log(self.rules.policy)
        log.read(self.text.getvalue().splitlines())
        return log


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"peer": ACTIVATOR},
        {"token": False},
        {"token": False, "question": Question.TCP},
    ],
)
def test_what_is_proposed_lets_in_exactly_those_who_would_have_been_denied(
    how: dict[str, Any],
) -> None:
    service = Service()
    assert not service.call("globex", **how)
    proposed = as_policy(service.report())
    enforced = Service(POLICY.replace("shadow", "enforce") + proposed)
    assert enforced.call("globex", **how)
    assert not enforced.call("initech", **how)
    assert not enforced.call("globex", "quiet", **how)


def test_the_grants_are_a_policy_also_when_there_are_none() -> None:
    assert parse_policy(as_policy(log_of())).grants == ()
    assert len(parse_policy(as_policy(log_of(line()))).grants) == 1


# Never more than was proven --------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", [one for one in Reason if one.outward is Outward.TOKEN_INVALID], ids=lambda r: r.slug
)
def test_a_token_that_was_not_good_never_leads_to_a_grant(reason: Reason) -> None:
    log = log_of(line(reason=reason.slug, claimed_source="globex"))
    assert log.grants() == []
    assert readiness(log) is Readiness.LOOK
    (caller, _), *_ = log.of(parse_namespace("acme"))
    assert "never a grant" in log.advice(caller)


@pytest.mark.parametrize(
    "values",
    [
        {"source": None},
        {"source": None, "claimed_source": "globex"},
        {"source": "@public", "service_account": None},
        {"source": "knative-serving", "service_account": "activator"},
        {"source": "istio-system", "service_account": "gateway"},
        {"service_account": "sha256:" + "0" * 32},
        {"reason": "token-missing", "question": "transit"},
        {"reason": "destination-unknown"},
        {"reason": "internal-error"},
        {"reason": "role-required"},
    ],
)
def test_nothing_is_granted_to_whom_is_not_proven_or_not_a_tenant(values: dict[str, Any]) -> None:
    log = log_of(line(**values))
    assert log.grants() == []
    assert readiness(log) is Readiness.LOOK


def test_holders_of_a_role_in_the_policy_are_platform_wherever_they_are() -> None:
    policy = POLICY.replace("ns/knative-serving", "ns/hops")
    log = log_of(line(source="hops"), policy=policy)
    assert log.grants() == []


def test_what_is_not_public_on_purpose_asks_for_nothing() -> None:
    closed = log_of(line(reason="not-public", source="@public", destination="closed"))
    assert closed.grants() == []
    assert readiness(closed, "closed") is Readiness.GRANTS


def test_an_account_that_is_not_known_is_left_out() -> None:
    ((grant, _),) = log_of(line(service_account=None)).grants()
    assert grant == {"to": "acme", "from": "globex"}


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "{",
        "[]",
        line(destination="Acme"),
        line(destination="acme\n  - {to: victim, from: evil}"),
        line(source="a: b"),
        line(source=["x"]),
        line(service_account="x}\n"),
        line(service_account={"a": 1}),
        line(reason="because"),
        line(question="why"),
        '{"event": "denials left out of the log", "left_out": {"a at b": "many"}}',
        '{"a": ' * 100_000,
        '{"a": 1}',
        '{"log": []}',
        '{"log": "{\\"a\\": 1}"}',
        '{"message": 7}',
    ],
)
def test_a_line_that_is_not_the_services_is_counted_and_proposes_nothing(text: str) -> None:
    log = log_of(text)
    assert (log.lines, log.unreadable) == (1, 1)
    assert log.grants() == []


def test_other_lines_of_the_service_are_passed_over() -> None:
    log = log_of(json.dumps({"event": "serving", "timestamp": "2026-11-01T00:00:01Z"}), "", "  \n")
    assert (log.lines, log.ours, log.unreadable) == (1, 1, 0)
    assert log.is_evidence


# Evidence --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "envelope",
    [
        lambda text: f"[pod/tenant-authz-x7/authz] {text}",
        lambda text: f"2026-11-01T00:00:01.5Z stdout F {text}",
        lambda text: json.dumps({"log": text + "\n", "stream": "stdout", "time": "..."}),
        lambda text: json.dumps({"_source": {"message": text, "host": "node"}}),
        lambda text: json.dumps({"jsonPayload": json.loads(text), "insertId": "1"}),
    ],
    ids=["prefix", "cri", "docker", "search", "cloud"],
)
def test_envelopes_of_runtimes_and_log_stores_are_opened(envelope: Callable[[str], str]) -> None:
    log = log_of(envelope(line()))
    assert (log.ours, log.unreadable) == (1, 0)
    assert len(log.grants()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "I1101 something.go:12] somebody else's\n" * 50,
        '{"level": "info", "msg": "an agent\'s"}\n',
        '{"log": {"log": {"log": {"log": {"event": "x", "timestamp": "y"}}}}}\n',
    ],
)
def test_a_log_without_lines_of_a_server_is_no_evidence(
    run: Run, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "log"
    file.write_text(text)
    result = run("report", str(file))
    assert result.code == 3
    assert "select its container" in result.err


def test_a_few_lines_of_others_are_no_matter_and_many_are(run: Run, tmp_path: Path) -> None:
    ours = json.dumps({"event": "serving", "timestamp": "2026-11-01T00:00:01Z"})
    file = tmp_path / "log"
    file.write_text("\n".join([ours, *["agent started"] * 10]))
    assert run("report", str(file)).code == 0
    file.write_text("\n".join([ours, *["agent started"] * 11]))
    assert run("report", str(file)).code == 3


def test_the_documented_selector_selects_the_servers_that_ship() -> None:
    pods = [
        item["spec"]["template"]
        for item in rendered(Path("deploy/base"))
        if item["kind"] == "DaemonSet"
    ]
    assert len(pods) == 1
    help_text = report.app.registered_commands[0].epilog or ""
    guide = Path("deploy/platform/WHY-DENIED.md").read_text("utf-8")
    for text in (help_text, guide):
        found = re.search(r"(app[.]kubernetes[.]io/name=\S+?)['\s]", text)
        assert found
        wanted = dict(part.split("=") for part in found[1].split(","))
        assert wanted.items() <= pods[0]["metadata"]["labels"].items()
        assert "-c authz" in text


# Counting --------------------------------------------------------------------------------------


def test_a_call_through_a_hop_is_counted_once() -> None:
    log = log_of(line(question="transit"), line(), line(question="transit"), line())
    ((_, seen),) = log.of(parse_namespace("acme"))
    assert seen.times_shadowed == 2


def test_what_a_hop_let_pass_and_signed_itself_is_no_second_caller() -> None:
    log = log_of(
        line(question="transit", reason="token-missing", source="knative-serving"),
        line(source="knative-serving", service_account="activator"),
    )
    ((caller, _),) = log.of(parse_namespace("acme"))
    assert caller.reason is Reason.TOKEN_MISSING


@pytest.mark.parametrize("name", ["source", "service_account"])
def test_callers_of_whom_less_is_proven_come_first(name: str) -> None:
    """An event that is sent on behalf has no account, and is denied as often as one that has."""
    unproven = line(**{name: None})
    for lines in ((line(), unproven), (unproven, line())):
        found = [getattr(caller, name) for caller, _ in log_of(*lines).of(parse_namespace("acme"))]
        assert found[0] is None
        assert found[1] is not None


def test_first_and_last_are_told_whatever_the_order() -> None:
    times = [f"2026-11-{day}T10:00:00.000001Z" for day in (20, 18, 22)]
    log = log_of(*(line(timestamp=time) for time in times))
    ((_, seen),) = log.of(parse_namespace("acme"))
    assert (seen.first, seen.last) == ("2026-11-18T10:00:00Z", "2026-11-22T10:00:00Z")
    assert (log.first, log.last) == (seen.first, seen.last)


def test_lines_that_were_left_out_make_a_count_the_least() -> None:
    event, counts = "denials left out of the log", {"globex at acme": 7}
    left_out = json.dumps({"event": event, "left_out": counts, "timestamp": ""})
    log = log_of(line(), left_out)
    assert log.incomplete(parse_namespace("acme"))
    assert not log.incomplete(parse_namespace("quiet"))
    at_a_hop = log_of(left_out.replace("acme", "knative-serving"))
    assert at_a_hop.incomplete(parse_namespace("quiet"))


def test_verdicts() -> None:
    assert readiness(log_of(), "quiet") is Readiness.SAFE
    assert readiness(log_of(line())) is Readiness.GRANTS
    assert readiness(log_of(line(), line(reason="token-expired"))) is Readiness.LOOK
    assert readiness(log_of(line(event="denied"))) is Readiness.ENFORCED
    assert readiness(log_of(), "quiet", ("quiet",)) is Readiness.UNPROTECTED
    assert "quiet" in log_of().namespaces()


# The command -----------------------------------------------------------------------------------


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """A side port that answers with `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_command_reads_files_and_standard_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "log").write_text(line() + "\n")
    done = run("report", "log", "-", "--policy", "policy.yaml", "--json", given=line() + "\n")
    assert done.code == 1
    verdicts = {row["namespace"]: row["verdict"] for row in done.json["namespaces"]}
    assert verdicts == {"acme": "grants", "closed": "safe", "quiet": "safe"}
    assert done.json["callers"][0]["would_deny"] == 2
    assert parse_policy(done.json["policy"]).grants
    people = run("report", "log")
    assert "Can it be enforced?" in people.out
    assert "- {to:" in people.out


def test_when_nothing_is_left_to_do_the_command_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    ours = json.dumps({"event": "serving", "timestamp": "2026-11-01T00:00:01Z"})
    assert run("report", "-", "--policy", "policy.yaml", given=ours).code == 0


def test_the_grants_go_to_a_file_of_their_own(run: Run, tmp_path: Path) -> None:
    done = run("report", "-", "--grants", "grants.yaml", given=line())
    assert done.code == 1
    assert "- {to:" not in done.out
    assert parse_policy((tmp_path / "grants.yaml").read_text()).grants


def test_metrics_tell_who_is_unprotected_and_what_was_counted(run: Run) -> None:
    clock = ManualClock()
    metrics = Metrics(clock)
    service = rules(Policy(default_mode=Mode.SHADOW))
    pod = workload("acme")
    caller = workload("bare")
    upstream = "outbound|80||x.acme.svc.cluster.local"
    for question, facts in (
        (Question.SIGN, Facts(caller, upstream=upstream)),
        (Question.VERIFY, Facts(pod, principal=str(caller), port=8012)),
    ):
        result = decide(question, facts, service, NOW)
        metrics.decided(DecisionEvent(question, result, facts.caller, ""))
    with serving(metrics.text()) as url:
        done = run("report", "--metrics", url, "--metrics", url, "--json")
    assert done.code == 1
    assert done.json["namespaces"][0] == {
        "namespace": "bare",
        "verdict": "unprotected",
        "would_deny": 0,
        "denied": 0,
        "at_least": False,
    }
    assert done.json["checks"] == [
        {"question": "verify", "outcome": "shadow", "reason": "token-missing", "count": 2}
    ]


def test_what_never_happened_is_not_counted() -> None:
    """A server exports every series from the start, as 0."""
    with serving(Metrics(ManualClock()).text()) as url:
        assert scrape([url]).checks == {}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("absent",),
        ("--metrics", "file:///etc/passwd"),
        ("--metrics", "http://127.0.0.1:1/metrics"),
        ("-", "--grants", "absent/grants.yaml"),
    ],
)
def test_what_cannot_be_read_or_written_is_told(run: Run, arguments: tuple[str, ...]) -> None:
    done = run("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_an_answer_that_is_no_metrics_is_refused(run: Run) -> None:
    with serving(b"authz_checks_total{ 1") as url:
        assert run("report", "--metrics", url).code == 2
