"""The file of cases: what holds, what does not, and every problem with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.errors import BadSettings
from authz.policysource.file import parse_policy
from authz.reach.cases import MAX_BYTES, read_cases
from authz.reach.played import Played, play
from authz.testing import NOW

POLICY = parse_policy("""\
roles:
  transit: [spiffe://cluster.local/ns/knative-serving/sa/activator]
  gateway: [spiffe://cluster.local/ns/istio-system/sa/gateway]
tenants: {acme: {namespaces: [web, db]}}
namespaces:
  db: {public: false}
  old: {mode: shadow}
  shop: {public: [hello]}
  plain: {plaintext_peers: true}
grants:
  - {to: db, from: bank, service_account: till, port: 8080, until: 2027-01-31}
exemptions:
  - {peer: spiffe://cluster.local/ns/monitoring/sa/prometheus, port: 9091, path: /metrics}
hosts: {www.acme.example: web}
""")


def cases(tmp_path: Path, *texts: str) -> list[Played]:
    file = tmp_path / "cases.yaml"
    file.write_text("cases:\n" + "".join(f"  - {{{text}}}\n" for text in texts))
    return list(play(POLICY, read_cases(file), NOW))


@pytest.mark.parametrize(
    "text",
    [
        "from: web, to: db, expect: allow",
        "from: bank, to: web, expect: deny",
        "from: bank, service_account: till, to: db, port: 8080, expect: allow",
        "from: bank, service_account: till, to: db, port: 8081, expect: deny",
        "from: bank, service_account: other, to: db, expect: deny",
        "from: bank, to: db, way: event, expect: deny, row: no-grant, reason: no-grant",
        "from: bank, service_account: till, to: db, port: 8080, on: 2027-01-31, expect: allow",
        "from: bank, to: db, on: '2027-02-01', expect: deny",
        "from: web, to: db, way: token, on: 1971-01-01, expect: allow",
        "from: web, to: db, way: token, on: 5074-12-31, expect: allow",
        "from: web, to: db, way: peer, expect: allow, row: peer-of-tenant, reason: proven-peer",
        "from: web, to: db, way: token, expect: allow, row: same-tenant, reason: same-tenant",
        "from: bank, to: old, way: token, expect: allow, row: no-grant, reason: no-grant",
        "from: web, to: db, way: plaintext, expect: deny, row: stranger",
        "from: plain, to: plain, way: plaintext, expect: allow",
        "from: monitoring, to: web, way: exemption, expect: allow, row: exempt, reason: exempt",
        "from: monitoring, to: web, way: peer, expect: deny",
        "from: nobody, to: nobody-else, expect: deny",
        "from: nobody, to: nobody, expect: allow",
        'from: "@public", to: web, expect: allow',
        'from: "@public", to: db, expect: deny, reason: not-public',
        'from: "@public", to: shop, service: hello-00001, expect: allow',
        'from: "@public", to: shop, service: db, expect: deny, row: not-theirs-to-open',
        'from: "@public", to: web, route: bank, expect: deny, reason: route-foreign',
        'from: "@public", to: shop, service: hello, host: www.acme.example, expect: deny',
    ],
)
def test_what_holds(tmp_path: Path, text: str) -> None:
    (played,) = cases(tmp_path, text)
    assert played.answers
    assert not played.wrong()
    turned = text.replace("expect: allow", "expect: x").replace("expect: deny", "expect: allow")
    (other,) = cases(tmp_path, turned.replace("expect: x", "expect: deny"))
    assert other.wrong()


@pytest.mark.parametrize(
    "text",
    [
        "from: bank, to: db, expect: deny",  # but for one account and port
        "from: bank, service_account: till, to: db, expect: allow",  # but on one port only
        'from: "@public", to: shop, expect: allow',  # but one Service only
        "from: web, to: db, way: peer, expect: allow, row: granted",
        "from: web, to: db, way: peer, expect: allow, reason: granted",
        "from: bank, to: old, expect: deny",  # in shadow mode nobody is denied
        "from: monitoring, to: web, expect: deny",
    ],
)
def test_what_does_not(tmp_path: Path, text: str) -> None:
    (played,) = cases(tmp_path, text)
    assert played.wrong()


def test_without_hops_and_gateways_there_are_no_such_ways(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(
        "cases: [{from: a, to: a, expect: allow}, {from: a, to: a, way: token, expect: deny},"
        ' {from: "@public", to: a, expect: deny}]'
    )
    played = list(play(parse_policy("grants: []"), read_cases(file), NOW))
    assert [it.wrong() for it in played] == [[], [], []]
    assert "no account holds the role" in played[1].answers[0].sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from: a, to: b", "cases.0.expect: is required"),
        ("from: a, expect: deny", "cases.0.to: is required"),
        ("from: a, to: b, expect: maybe", "cases.0.expect: Input should be 'allow' or 'deny'"),
        ("from: a/x, to: b, expect: deny", "write the service account under service_account"),
        ("from: A, to: b, expect: deny", "cases.0.from: 'A' is not a namespace"),
        ("from: a, to: '@public', expect: deny", "cases.0.to: '@public' is not a namespace"),
        ("from: a, to: b, port: 0, expect: deny", "cases.0.port"),
        ("from: a, to: b, port: '80', expect: deny", "cases.0.port"),
        ("from: a, to: b, way: magic, expect: deny", "cases.0.way"),
        ("from: a, to: b, on: soon, expect: deny", "cases.0.on"),
        ("from: a, to: b, on: 1970-12-31, expect: deny", "write a day from 1971 to 5074"),
        ("from: a, to: b, on: 5075-01-01, expect: deny", "write a day from 1971 to 5074"),
        ("from: a, to: b, because: x, expect: deny", "cases.0.because: there is no such field"),
        ("from: a, to: b, port: , expect: deny", "cases.0.port: has no value"),
        ("from: a, to: b, expect: deny, row: no-grant", "row and reason are of one way"),
        ("from: a, to: b, expect: deny, host: x", "host is for requests from @public only"),
        ("from: '@public', to: b, port: 1, expect: deny", "port says nothing of a request"),
        ("from: a, to: b, way: outside, expect: deny", "way outside does not begin at a"),
        ("from: a, to: b, way: event, port: 1, expect: deny", "an event has no port"),
        ("from: a, to: b, service_account: B_, expect: deny", "cases.0.service_account"),
        ("from: '@public', to: b, service: x.y, expect: deny", "cases.0.service"),
    ],
)
def test_a_bad_case_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadSettings) as error:
        cases(tmp_path, text)
    (problem,) = error.value.problems
    assert problem.startswith("line 2: cases.0")
    assert said in problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: cases: is required"),
        (b"cases: []", "line 1: cases"),
        (b"cases: &x [*x]", "not valid YAML"),
        (b"\xff", "is not UTF-8"),
        (b"#" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "cases.yaml"
    file.write_bytes(content)
    with pytest.raises(BadSettings, match=said):
        read_cases(file)
    with pytest.raises(BadSettings, match="No such file"):
        read_cases(tmp_path / "none.yaml")
