"""The JSON Schemas that ship say of a file's form what the code that reads it says."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from authz.config import Settings
from authz.reach.schemas import Kind, schema
from tests import policy_text, test_policyfile
from tests.command import Run
from tests.platform import test_tenants
from tests.reach import test_cases

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy/schemas"
MADE: dict[str, dict[str, Any]] = {kind.value: schema(kind) for kind in Kind}
LED = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def plain(text: str) -> Any:
    """A file as an editor sees it: days are text."""

    def undated(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): undated(each) for key, each in value.items()}
        if isinstance(value, list):
            return [undated(each) for each in value]
        return value.isoformat() if isinstance(value, dt.date) else value

    return undated(YAML(typ="safe", pure=True).load(text))


def fits(kind: str, data: Any) -> bool:
    checker = Draft202012Validator.FORMAT_CHECKER
    return bool(Draft202012Validator(MADE[kind], format_checker=checker).is_valid(data))


def rows(test: Any) -> list[tuple[Any, ...]]:
    """The rows over which another test goes."""
    return [row if isinstance(row, tuple) else (row,) for row in test.pytestmark[0].args[1]]


@pytest.mark.parametrize("kind", MADE)
def test_what_ships_is_what_is_made(kind: str, run: Run) -> None:
    """If not: authz policy schema KIND > deploy/schemas/KIND.json."""
    shown = run("policy", "schema", kind)
    assert (shown.code, shown.out) == (0, (SHIPPED / f"{kind}.json").read_text())
    Draft202012Validator.check_schema(shown.json)


def test_without_a_kind_it_is_the_policys(run: Run) -> None:
    assert run("policy", "schema").json == MADE["policy"]
    assert run("policy", "schema", "nonsense").code == 2


def _led() -> Iterator[tuple[Path, Path]]:
    for folder in ("deploy", "envoyfilters"):
        for file in (ROOT / folder).rglob("*.yaml"):
            if found := LED.match(file.read_text()):
                yield file, (file.parent / found[1]).resolve()


def test_files_that_ship_lead_to_their_schema_and_fit_it() -> None:
    led = dict(_led())
    assert {str(it.relative_to(ROOT)) for it in led} == {
        "deploy/base/policy.yaml",
        "deploy/base/policy-cases.yaml",
        "deploy/base/settings.yaml",
        "deploy/standalone/policy.yaml",
        "envoyfilters/policy.yaml",
    }
    for file, known in led.items():
        validator = Draft202012Validator(json.loads(known.read_text()))
        assert not list(validator.iter_errors(plain(file.read_text()))), file


@pytest.mark.parametrize("kind", MADE)
def test_every_field_is_described_but_for_a_tenants(kind: str) -> None:
    if kind == "tenants":
        return
    models = [MADE[kind], *MADE[kind].get("$defs", {}).values()]
    for model in models:
        for name, said in model.get("properties", {}).items():
            assert said.get("description"), name


def test_whole_files_fit() -> None:
    assert fits("policy", plain(policy_text.WHOLE))
    assert fits("tenants", plain(test_tenants.FILE))
    for text in ("grants: []", "default_mode: off", "namespaces: {a: {public: [b]}}"):
        assert fits("policy", plain(text))


NO_FORM = (
    "cluster_domains: [a.svc]",  # a label that makes hosts ambiguous
    "grants: [{to: a, from: b, port: 80.0}]",  # which is 80 in JSON
    "namespaces:\n  0456: {mode: shadow}",  # which YAML reads as a number, and JSON as text
    "tenants: {a: {namespaces: [2027-01-31]}}",  # and this as a day
    "plain_names: [svc]\ntenants:\n  svc:",
    "tenants:\n  svc:",  # this and the next: names that are taken
    "tenants:\n  com:",
    "tenants:\n  a: {namespaces: [kube-x]}",
    "tenants:\n  a: {namespaces: [x-system]}",
    "tenants:\n  a: {namespaces: [xn--p1ai]}",
    "tenants:\n  a: {namespaces: [a-1, bank]}",
    "tenants:\n  a: {domains: [x.svc.cluster.local]}",
    "tenants:\n  a-1: {external_names: [10.96.0.1]}",
)
"""Refused for what a value means, and not for its form."""
BAD = [
    *(
        ("policy", *row)
        for row in rows(test_policyfile.test_a_bad_value_is_told_with_its_line_and_field)
    ),
    *(
        ("tenants", *row)
        for row in rows(test_tenants.test_a_mistake_is_told_with_its_line_and_renders_nothing)
    ),
    *(
        ("cases", f"cases: [{{{text}}}]", problem)
        for text, problem in rows(test_cases.test_a_bad_case_is_told_with_its_line)
    ),
]
NOT_ALONE = re.compile(
    "not valid YAML|has no field|no aliases|already|in tenant a|lies under|overlaps"
    "|a part of the cluster|row and reason|from @public only|says nothing|does not begin"
    "|an event has no port|write a day from"
)
"""What is said of a file as a whole, or of fields that cannot be together."""


@pytest.mark.parametrize(("kind", "text", "problem"), BAD)
def test_what_the_reader_refuses_for_its_form_does_not_fit(
    kind: str, text: str, problem: str
) -> None:
    if NOT_ALONE.search(problem) or text in NO_FORM:
        return
    assert not fits(kind, plain(text)), text


def test_settings_that_cannot_be_do_not_fit() -> None:
    good = {"listen": "0.0.0.0:9000", "workers": 2, "identity": "xfcc", "kek_files": "a,b"}
    assert fits("settings", good)
    assert fits("settings", {"listen": "unix:/run/authz", "kek_files": ["a"]})
    for name, evil in {
        "listen": 9000,
        "workers": 0,
        "identity": "anybody",
        "kek": "c2VjcmV0",
        "policy_configmap": "policy",
        "drain_seconds": -1,
        "nonsense": 1,
    }.items():
        assert not fits("settings", {**good, name: evil}), name
    assert set(MADE["settings"]["properties"]) == set(Settings.model_fields) - {"kek"}
