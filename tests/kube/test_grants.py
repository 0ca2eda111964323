"""The schema of a Grant on a real API server: every rule of it is attacked, each beside a twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from authz.domain.names import Namespace
from authz.domain.policy import Grant
from authz.policysource.cluster_objects import grant_of
from tests.admission.rows import PLATFORM, Json, thing
from tests.deploy.manifests import DEPLOY, load
from tests.kube.conftest import Installed

pytestmark = pytest.mark.timeout(300)
session = pytest.mark.asyncio(loop_scope="session")

SPACE: Final = "shop"
GROUP: Final = "tenant-authz.dev/v1alpha1"
NOW: Final = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Row:
    """One rule of the schema, where it is, a value that it refuses, and one that it takes."""

    rule: str
    evil: Any
    twin: Any
    said: str


def spec(**fields: object) -> Json:
    """A spec; `from_` is `from`, which is there unless it is said."""
    given = {"from_": "bank", **fields}
    return {key.rstrip("_"): value for key, value in given.items()}


def _of(rule: str, key: str, evil: object, twin: object, said: str) -> Row:
    return Row(rule, spec(**{key: evil}), spec(**{key: twin}), said)


SPECS: Final = [
    Row("required", None, spec(), "spec: Required"),
    Row("spec.type", "bank", spec(), "must be of type object"),
    Row("spec.required", {"port": 80}, spec(port=80), "spec.from: Required"),
    _of("spec.from.type", "from_", 7, "7", "must be of type string"),
    _of("spec.from.maxLength", "from_", "x" * 64, "x" * 63, "may not be more than 63"),
    *(
        _of("spec.from.pattern", "from_", evil, twin, "should match")
        for evil, twin in [
            ("", "a"),
            ("**", "*"),
            ("*.bank", "bank"),
            ("Bank", "bank"),
            ("-bank", "b-ank"),
            ("bank-", "bank-1"),
            ("bank.web", "bank-web"),
            ("bank/web", "bank-web"),
            ("@public", "public"),
            ("bank ", "bank"),
            ("bank\n", "bank"),
            ("bänk", "bank"),
        ]
    ),
    _of("spec.serviceAccount.type", "serviceAccount", True, "true", "must be of type string"),
    _of("spec.serviceAccount.minLength", "serviceAccount", "", "a", "at least 1 char"),
    _of(
        *("spec.serviceAccount.maxLength", "serviceAccount"),
        *("a" * 254, "a" * 253, "may not be more than 253"),
    ),
    *(
        _of("spec.port.type", "port", evil, 80, "must be of type integer")
        for evil in ("80", 80.5, True)
    ),
    *(_of("spec.port.minimum", "port", evil, 1, "greater than or equal to 1") for evil in (0, -1)),
    _of("spec.port.maximum", "port", 65536, 65535, "less than or equal to 65535"),
    _of("spec.until.type", "until", 20271231, "2027-12-31", "must be of type date"),
    *(
        _of("spec.until.pattern", "until", evil, "2027-12-31", "should match")
        for evil in ("", "2027-1-31", "tomorrow", "20271231", "2027-W52-5")
    ),
    *(
        _of("spec.until.format", "until", evil, twin, "must be of type date")
        for evil, twin in [("2027-02-29", "2028-02-29"), ("2027-13-01", "2027-12-01")]
    ),
    _of(
        *("spec.until.maxLength", "until"),
        *("2027-12-31T00:00:00Z", "2027-12-31", "may not be more than 10"),
    ),
]


def _condition(**fields: object) -> Json:
    """A status with one condition; a field of `None` is left out."""
    whole = {
        "type": "Accepted",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": NOW,
        "reason": "Accepted",
        "message": "",
    }
    found = {key: value for key, value in {**whole, **fields}.items() if value is not None}
    return {"conditions": [found]}


def _rule(rule: str, said: str, evil: Mapping[str, object], **twin: object) -> Row:
    where = f"status.conditions.items{'.' if rule else ''}{rule}"
    return Row(where, _condition(**evil), _condition(**twin), said)


STATUSES: Final = [
    Row("status.type", "yes", _condition(), "must be of type object"),
    Row("status.conditions.type", {"conditions": {}}, _condition(), "must be of type array"),
    Row(
        "status.conditions.maxItems",
        {"conditions": [_condition(type=f"T{it}")["conditions"][0] for it in range(9)]},
        {"conditions": [_condition(type=f"T{it}")["conditions"][0] for it in range(8)]},
        "must have at most 8 items",
    ),
    Row(
        "status.conditions.x-kubernetes-list-map-keys",
        {"conditions": _condition()["conditions"] * 2},
        _condition(),
        "Duplicate value",
    ),
    Row("status.conditions.items.type", {"conditions": ["yes"]}, _condition(), "of type object"),
    *(
        _rule("required", f"{key}: Required", {key: None})
        for key in ("type", "status", "lastTransitionTime", "reason", "message")
    ),
    _rule("type.type", "of type string", {"type": 1}),
    _rule("type.maxLength", "more than 316", {"type": "x" * 317}, type="x" * 316),
    _rule("status.type", "of type string", {"status": True}),
    _rule("status.enum", "Unsupported value", {"status": "yes"}, status="Unknown"),
    _rule("observedGeneration.type", "of type integer", {"observedGeneration": "1"}),
    _rule("observedGeneration.format", "int64", {"observedGeneration": 2**63}),
    _rule(
        *("observedGeneration.minimum", "equal to 0", {"observedGeneration": -1}),
        observedGeneration=0,
    ),
    _rule("lastTransitionTime.type", "of type date-time", {"lastTransitionTime": 1}),
    _rule("lastTransitionTime.format", "of type date-time", {"lastTransitionTime": "yesterday"}),
    _rule("reason.type", "of type string", {"reason": 1}),
    _rule("reason.minLength", "at least 1 char", {"reason": ""}, reason="x"),
    _rule("reason.maxLength", "more than 1024", {"reason": "x" * 1025}, reason="x" * 1024),
    _rule("message.type", "of type string", {"message": 1}),
    _rule("message.maxLength", "more than 32768", {"message": "x" * 32769}, message="x" * 32768),
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(installed: Installed) -> AsyncIterator[Installed]:
    await installed.apply(load(DEPLOY / "crds" / "grants.yaml"))
    yield installed


def grant(**content: object) -> Json:
    return thing(GROUP, "Grant", "one", SPACE, **content)


@session
@pytest.mark.parametrize("row", SPECS, ids=lambda it: f"{it.rule}: {str(it.evil)[:40]!r}")
async def test_a_rule_refuses_what_breaks_it_and_takes_its_twin(
    cluster: Installed, row: Row
) -> None:
    evil = {} if row.evil is None else {"spec": row.evil}
    refusal = await cluster.create(grant(**evil))
    assert refusal.startswith("422")
    assert row.said in refusal
    assert not await cluster.create(grant(spec=row.twin))
    # And the server, which must not rely on it, takes the twin and refuses the other.
    assert isinstance(grant_of({"spec": row.evil}, Namespace(SPACE)), str)
    assert isinstance(grant_of({"spec": row.twin}, Namespace(SPACE)), Grant)


@session
@pytest.mark.parametrize("row", STATUSES, ids=lambda it: it.rule)
async def test_a_status_is_what_it_must_be(cluster: Installed, row: Row) -> None:
    item = grant(spec=spec())
    if not await cluster.there(item):
        assert not await cluster.create(item, really=True)
    refusal = await cluster.change(item, {"status": row.evil}, subresource="status")
    assert refusal.startswith(("422", "400"))
    assert row.said in refusal
    assert not await cluster.change(item, {"status": row.twin}, subresource="status")


def test_every_rule_of_the_schema_has_a_row() -> None:
    (crd,) = load(DEPLOY / "crds" / "grants.yaml")
    (version,) = crd["spec"]["versions"]
    there = {*_rules(version["schema"]["openAPIV3Schema"])}
    attacked = {row.rule for row in (*SPECS, *STATUSES)}
    assert there == attacked


def _rules(schema: Json, path: str = "") -> Iterator[str]:
    """Where something may be refused; the type of an object's root is the API server's own."""
    said = {"description", "properties", "items", "x-kubernetes-list-type"}
    open_ = "x-kubernetes-preserve-unknown-fields"
    for key in schema.keys() - said - {open_}:
        if path or key != "type":
            yield f"{path}{key}"
    for key, value in schema.get("properties", {}).items():
        yield from _rules(value, f"{path}{key}.")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}items.")


# ---- what is kept ----


@session
async def test_a_field_that_is_not_known_is_kept_and_seen_by_the_server(
    cluster: Installed,
) -> None:
    """A pruned `serviceaccount` would be a grant for everybody there."""
    item = thing(GROUP, "Grant", "misspelled", SPACE, spec=spec(serviceaccount="till"))
    assert not await cluster.create(item, really=True)
    found = await cluster.get(item)
    assert found["spec"] == {"from": "bank", "serviceaccount": "till"}
    said = grant_of(found, Namespace(SPACE))
    assert isinstance(said, str)
    assert "serviceaccount" in said


@session
async def test_who_makes_a_grant_cannot_say_that_it_counts(cluster: Installed) -> None:
    item = thing(GROUP, "Grant", "boasting", SPACE, spec=spec(), status=_condition())
    assert not await cluster.create(item, really=True)
    assert "status" not in await cluster.get(item)


@session
async def test_who_says_that_it_counts_cannot_change_it(cluster: Installed) -> None:
    item = thing(GROUP, "Grant", "told", SPACE, spec=spec())
    assert not await cluster.create(item, really=True)
    change = {"spec from": "mallory", "status": _condition()}
    assert not await cluster.change(item, change, subresource="status", really=True)
    found = await cluster.get(item)
    assert (found["spec"]["from"], "status" in found) == ("bank", True)


@session
async def test_its_columns_show_what_is_told(cluster: Installed) -> None:
    item = thing(GROUP, "Grant", "shown", SPACE, spec=spec(until="2027-12-31"))
    assert not await cluster.create(item, PLATFORM, really=True)
    told = {"status": _condition(status="False", reason="Bad")}
    assert not await cluster.change(item, told, subresource="status", really=True)
    done = await cluster.kubectl("get", "grants", "-n", SPACE, "shown")
    header, line = done.stdout.splitlines()
    assert header.split() == ["NAME", "FROM", "ACCEPTED", "REASON", "UNTIL"]
    assert line.split() == ["shown", "bank", "False", "Bad", "2027-12-31"]
