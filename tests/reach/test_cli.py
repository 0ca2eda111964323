"""The commands: what they print for people and machines, and their exit codes."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from authz.reach.words import listed
from tests.command import Run
from tests.reach.policies import TEXT

ALL = "peer, token, event, tcp"


def cells(table: str) -> list[list[str]]:
    """The lines of tables, cell by cell."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in table.splitlines()
        if line.startswith("│")
    ]


def test_the_matrix_as_a_table(run: Run) -> None:
    done = run("policy", "matrix", "policy.yaml")
    assert done.code == 0
    assert cells(done.out) == [
        ["its own tenant", "acme (db, web)", ALL, "", "", "", "same tenant"],
        ["any other namespace", "old", f"{ALL}, plaintext", "", "", "", "mode shadow"],
        ["bank", "db", "peer, token, tcp", "till", "8080", "2099-01-31", "grant"],
        [
            "@public, by routes of any other namespace",
            "old",
            *("outside", "", "", "", "mode shadow"),
        ],
        [
            "@public",
            "bank, old, web, every namespace not named",
            *("outside", "", "", "", "public"),
        ],
    ]
    enforced = cells(run("policy", "matrix", "policy.yaml", "--enforced").out)
    assert "mode shadow" not in str(enforced)


def test_the_matrix_as_json_names_every_namespace_in_one_group(run: Run) -> None:
    done = run("policy", "matrix", "policy.yaml", "--json")
    groups = {group["id"]: group for group in done.json["groups"]}
    names = [name for it in groups.values() for name in it["namespaces"] or ["(others)"]]
    assert len(names) == len(set(names))
    assert {"web", "db", "bank", "old", "istio-system", "(others)"} < set(names)
    (grant,) = [
        it for it in done.json["reach"] if it["because"] == "grant" and "peer" in it["ways"]
    ]
    assert [groups[it]["namespaces"] for it in (*grant["from"], *grant["to"])] == [["bank"], ["db"]]
    assert grant | {"from": 0, "to": 0} == {
        "among": "apart",
        "from": 0,
        "but_from": [],
        "to": 0,
        "ways": ["peer", "token", "tcp"],
        "service_accounts": ["till"],
        "ports": [8080],
        "until": "2099-01-31",
        "because": "grant",
    }


def test_the_page_needs_nothing_else_and_believes_no_name(run: Run) -> None:
    Path("<b>.yaml").write_text(TEXT)
    assert run("policy", "matrix", "<b>.yaml", "--html", "page.html").code == 0
    page = Path("page.html").read_text()
    assert "<b>" not in page
    assert not re.search(r"<script|https?://|@import|url\(", page)
    for text in ("every namespace not named", "mode shadow", "till", "2099-01-31"):
        assert text in page
    done = run("policy", "matrix", "policy.yaml", "--html", "none/page.html")
    assert (done.code, "--html: none/page.html" in done.err) == (2, True)


def test_diff_says_what_changes_and_fails_on_what_it_is_told(run: Run) -> None:
    Path("new.yaml").write_text(TEXT.replace("port: 8080, ", "").replace("mode: shadow", ""))
    done = run("policy", "diff", "policy.yaml", "new.yaml")
    assert done.code == 1
    grant = ["bank", "db", "peer, token, tcp", "till", "any but 8080", "2099-01-31", "grant"]
    assert grant in cells(done.out)
    assert "new.yaml opens" in done.out
    assert "new.yaml closes" in done.out
    told = run("policy", "diff", "policy.yaml", "new.yaml", "--json").json
    assert {change["change"] for change in told["changes"]} == {"opens", "closes"}
    assert told["besides"] == []
    narrower = ("policy", "diff", "new.yaml", "policy.yaml", "--enforced")
    codes = [run(*narrower, "--fail-on", it).code for it in ("any", "opens", "closes")]
    assert codes == [1, 0, 1]
    same = run("policy", "diff", "policy.yaml", "policy.yaml")
    assert (same.code, same.out) == (0, "no pair opens or closes\n")


def test_diff_names_what_no_pair_shows(run: Run) -> None:
    Path("new.yaml").write_text(f"relays: [a.b]\n{TEXT}")
    for fail_on in ("any", "opens", "closes"):
        done = run("policy", "diff", "policy.yaml", "new.yaml", "--fail-on", fail_on)
        assert (done.code, "relays differs" in done.out) == (1, True)


def test_prove(run: Run) -> None:
    done = run("policy", "prove", "policy.yaml", "--no-path", "web", "bank")
    assert (done.code, done.out) == (0, "proven: no path from web to bank\n")
    broken = run("policy", "prove", "policy.yaml", "--no-path", "bank", "tenant:acme")
    assert broken.code == 1
    assert cells(broken.out)[0][:5] == ["bank", "db", "peer, token, tcp", "till", "8080"]
    through = ("policy", "prove", "policy.yaml", "--through", "--no-path", "bank", "web", "--json")
    assert (run(*through).code, [it["to"] for it in run(*through).json["path"]]) == (
        1,
        ["db", "web"],
    )
    usage = run("policy", "prove", "policy.yaml", "--no-path", "A", "web")
    assert (usage.code, "'A' is no end of a path" in usage.err) == (2, True)
    assert run("policy", "prove", "policy.yaml").code == 2
    assert run("policy", "prove", "none.yaml", "--no-path", "a", "b").code == 3


def test_an_exemption_is_a_path_unless_it_is_said(run: Run) -> None:
    peer = "spiffe://cluster.local/ns/monitoring/sa/prometheus"
    Path("policy.yaml").write_text(
        f"exemptions:\n  - {{peer: {peer}, port: 9091, path: /metrics}}\n"
    )
    proof = ("policy", "prove", "policy.yaml", "--no-path", "*", "web")
    assert (run(*proof).code, run(*proof, "--ignore-exemptions").code) == (1, 0)
    assert "9091 /metrics" in run(*proof).out


def test_cases(run: Run) -> None:
    Path("cases.yaml").write_text("cases:\n- {from: web, to: db, expect: allow}\n")
    done = run("policy", "test", "policy.yaml", "cases.yaml")
    assert (done.code, "1 of 1 cases hold" in done.out) == (0, True)
    Path("cases.yaml").write_text(
        "cases:\n- {name: till, from: bank, to: db, expect: deny}\n"
        "- {from: bank, to: old, expect: deny}\n"
    )
    failed = run("policy", "test", "policy.yaml", "cases.yaml")
    assert failed.code == 1
    assert cells(failed.out)[0][:6] == [
        *("2", "till", "FAILS", "deny", "allow"),
        "peer, account till, port 8080",
    ]
    told = run("policy", "test", "policy.yaml", "cases.yaml", "--json").json
    assert (told["ok"], [it["ok"] for it in told["cases"]]) == (False, [False, False])
    enforced = run("policy", "test", "policy.yaml", "cases.yaml", "--json", "--enforced").json
    assert [case["ok"] for case in enforced["cases"]] == [False, True]
    Path("cases.yaml").write_text("cases:\n- {from: web, to: db}\n")
    bad = run("policy", "test", "policy.yaml", "cases.yaml")
    assert (bad.code, bad.err) == (2, "line 2: cases.0.expect: is required\n")


def test_brackets_are_no_markup_and_no_html(run: Run) -> None:
    peer = "spiffe://cluster.local/ns/monitoring/sa/prometheus"
    evil = """path: "/[/x]<b>", user_agent: '[bold]"x"'"""
    Path("policy.yaml").write_text(f"exemptions:\n  - {{peer: {peer}, port: 1, {evil}}}\n")
    done = run("policy", "matrix", "policy.yaml", "--html", "page.html")
    assert '1 /[/x]<b>, User-Agent [bold]"x"' in done.out
    assert "<b>" not in Path("page.html").read_text()
    Path("cases.yaml").write_text('cases: [{name: "[/red]", from: a, to: b, expect: deny}]')
    assert "[/red]" in run("policy", "test", "policy.yaml", "cases.yaml").out


def test_the_cases_that_ship_hold(run: Run) -> None:
    """Of the policy that ships, once it is enforced; before that, nobody is denied anything."""
    base = Path(__file__).parents[2] / "deploy/base"
    asked = ("policy", "test", str(base / "policy.yaml"), str(base / "policy-cases.yaml"))
    assert run(*asked, "--enforced").code == 0
    assert run(*asked).code == 1


def test_many_names_are_counted_for_who_looks_and_whole_for_a_pipe(run: Run) -> None:
    names = [f"n{number}" for number in range(200)]
    assert listed(names, 6).endswith("n5 and 194 more")
    assert listed(names[:7], 6).endswith("n6")
    Path("old.yaml").write_text("grants: []\n")
    Path("new.yaml").write_text(f"tenants: {{big: {{namespaces: [{', '.join(names)}]}}}}\n")
    for pair in (("old.yaml", "new.yaml"), ("new.yaml", "old.yaml")):
        rows = cells(run("policy", "diff", *pair).out)
        assert {row[0] for row in rows} == {"its own tenant"}
        told = " ".join(row[1] for row in rows).replace("big (", "").replace(")", "")
        assert told.replace(",", "").split() == sorted(names)


def test_five_times_the_namespaces_are_five_times_the_work(run: Run) -> None:
    """Counted in lines of Python that are run. With the square it would be 25 times."""
    lines: Counter[int] = Counter()

    def traced(_frame: FrameType, event: str, _argument: object) -> Any:
        lines[many] += event == "line"
        return traced

    for many in (60, 300):
        tenants = "".join(f"  t{n}: {{namespaces: [t{n}-a, t{n}-b]}}\n" for n in range(many))
        grants = "".join(f"  - {{to: t{n}-a, from: t{n + 1}-b}}\n" for n in range(many * 16 // 25))
        Path("policy.yaml").write_text(f"tenants:\n{tenants}grants:\n{grants}")
        sys.settrace(traced)
        try:
            assert run("policy", "matrix", "policy.yaml").code == 0
        finally:
            sys.settrace(None)
    assert lines[300] < 6 * lines[60]
