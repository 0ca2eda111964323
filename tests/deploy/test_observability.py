"""Alerts and dashboard: what they look at exists, and every alert fires when it should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz.domain.facts import Question
from authz.domain.reason import Reason
from authz.domain.verdict import Ground
from authz.observe.series import CLOSED, RELOADED
from tests.deploy.manifests import DEPLOY, load
from tests.deploy.observability import FOLDER, exported, rules

OUTCOMES = {"allow", "deny", "shadow"}
REASONS = {
    *(reason.slug for reason in (*Reason, *Ground)),
    *CLOSED,
}  # of answers, and of lost connections


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return found


def expressions() -> Iterator[str]:
    """Every query of an alert or a panel."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rules as Prometheus itself reads them, and their tests."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool: apt-get install prometheus")
    (document,) = load(FOLDER / "rules.yaml")
    with (tmp_path / "rules.yaml").open("w") as file:
        YAML().dump(document["spec"], file)
    shutil.copy(FOLDER / "tests.yaml", tmp_path)
    return tmp_path


def promtool(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_prometheus_takes_the_rules(folder: Path) -> None:
    done = promtool(folder, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_only_then(folder: Path) -> None:
    done = promtool(folder, "test", "rules", "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_can_fail(folder: Path) -> None:
    text = (folder / "rules.yaml").read_text()
    assert text.count("< 3600") == 1
    (folder / "rules.yaml").write_text(text.replace("< 3600", "< 360"))
    assert promtool(folder, "test", "rules", "tests.yaml").returncode == 1


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = (FOLDER / "tests.yaml").read_text()
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert f'alertname="{rule["alert"]}"' in tests
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


def test_every_runbook_is_a_section_of_a_page_of_ours() -> None:
    for rule in rules():
        base, found, place = rule["annotations"]["runbook_url"].partition("/blob/main/")
        page, _, section = place.partition("#")
        assert (base, found) == ("https://git.example/tenant-authz", "/blob/main/")
        assert base + found.rstrip("/") in (FOLDER / "README.md").read_text()  # how to set it
        assert section == rule["alert"].lower()
        assert f"\n## {rule['alert']}\n" in (DEPLOY.parent / page).read_text()


@pytest.mark.parametrize("always", ["vector(1)", "vector(1) > 1"], ids=["fires", "is-quiet"])
def test_an_alert_that_always_fires_or_never_is_noticed(folder: Path, always: str) -> None:
    text = YAML().load(folder / "rules.yaml")
    for rule in text["groups"][0]["rules"]:
        rule["expr"] = always
        rule.pop("for", None)
    with (folder / "rules.yaml").open("w") as file:
        YAML().dump(text, file)
    done = promtool(folder, "test", "rules", "tests.yaml")
    assert done.returncode == 1
    side = "got" if always == "vector(1)" else "exp"  # what is seen, or missed
    noticed = "".join(
        re.findall(rf"{side}:(?:(?!exp:|got:).)*", done.stdout + done.stderr, re.DOTALL)
    )
    assert not [rule["alert"] for rule in rules() if f'alertname="{rule["alert"]}"' not in noticed]


def test_every_metric_in_a_query_exists_and_all_are_shown() -> None:
    found = {
        name for text in expressions() for name in re.findall(r"\b(?:authz|process)_\w+", text)
    }
    assert {name.removesuffix("_bucket") for name in found} <= exported()
    shown = "".join(target["expr"] for it in dashboard()["panels"] for target in it["targets"])
    assert not [name for name in exported() if name not in shown]


def test_every_value_that_a_query_looks_for_can_occur() -> None:
    values: dict[str, set[str]] = {}
    for text in expressions():
        for label, found in re.findall(r'(\w+)(?:=~?|!=)"([^"]*)"', text):
            values.setdefault(label, set()).update(found.split("|"))
    values.pop("__name__")  # Envoy's: tests/envoy/test_reuse.py
    assert values.pop("job") == {"authz-metrics"}  # the Service, after which Prometheus names it
    assert values.pop("outcome") <= OUTCOMES
    assert values.pop("reason") <= REASONS
    assert values.pop("question") <= {question.value for question in Question}
    assert values.pop("what") <= {*RELOADED}
    assert not values


def test_the_monitor_finds_the_port() -> None:
    (monitor,) = load(FOLDER / "servicemonitor.yaml")
    (service,) = [
        it for it in load(DEPLOY / "base/service.yaml") if it["metadata"]["name"] == "authz-metrics"
    ]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert endpoint["honorLabels"] is True  # or `namespace` would be ours everywhere


def test_the_dashboard_asks_the_source_that_is_chosen() -> None:
    found = dashboard()
    assert [it["name"] for it in found["templating"]["list"]] == ["datasource"]
    for panel in found["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
