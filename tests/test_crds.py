"""The schema of a Grant and what the service makes of one agree."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz.domain.names import Namespace
from authz.domain.policy import Grant
from authz.policysource.cluster_objects import CLAIMS, GRANTS, NAMESPACES, grant_of
from authz.policysource.status import TYPE

CRDS = Path(__file__).parent.parent / "deploy" / "crds"
DB = Namespace("db")


def documents(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all((CRDS / name).read_text()))


@pytest.fixture(scope="module")
def version() -> Any:
    (crd,) = documents("grants.yaml")
    assert crd["metadata"]["name"] == f"{GRANTS.plural}.{GRANTS.group}"
    assert (crd["spec"]["group"], crd["spec"]["names"]["plural"]) == (GRANTS.group, GRANTS.plural)
    (only,) = crd["spec"]["versions"]
    assert only["name"] == GRANTS.version
    assert only["subresources"] == {"status": {}}
    return only


@pytest.fixture(scope="module")
def spec(version: Any) -> Any:
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_schema_and_the_service_know_the_same_fields(spec: Any) -> None:
    whole = {"from": "shop", "serviceAccount": "reader", "port": 80, "until": "2027-12-31"}
    assert set(spec["properties"]) == set(whole)
    assert isinstance(grant_of({"spec": whole}, DB), Grant)
    for name in whole:
        rest = {key: value for key, value in whole.items() if key != name}
        assert isinstance(grant_of({"spec": rest}, DB), str) == (name in spec["required"])


def test_unknown_fields_reach_the_service_which_refuses_them(spec: Any) -> None:
    assert spec["x-kubernetes-preserve-unknown-fields"] is True
    assert isinstance(grant_of({"spec": {"from": "shop", "serviceaccount": "x"}}, DB), str)


@pytest.mark.parametrize(
    "source", ["shop", "*", "a", "0-1", "x" * 63, "Shop", "-a", "a-", "a.b", "@public", "", "**"]
)
def test_the_pattern_of_from_takes_what_the_service_takes(spec: Any, source: str) -> None:
    field = spec["properties"]["from"]
    fits = re.search(field["pattern"], source) is not None and len(source) <= field["maxLength"]
    assert fits == isinstance(grant_of({"spec": {"from": source}}, DB), Grant)


@pytest.mark.parametrize(
    "day", ["2027-12-31", "20271231", "2027-W52-5", "2027-1-31", "2027-12-31T00:00:00Z", ""]
)
def test_the_pattern_of_until_takes_what_the_service_takes(spec: Any, day: str) -> None:
    fits = re.search(spec["properties"]["until"]["pattern"], day) is not None
    assert fits == isinstance(grant_of({"spec": {"from": "shop", "until": day}}, DB), Grant)


def test_the_columns_show_the_condition_that_is_written(version: Any) -> None:
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    assert sum(f'@.type=="{TYPE}"' in path for path in paths) == 2


def test_the_servers_may_do_what_they_do_and_no_more() -> None:
    role = documents("roles.yaml")[0]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": [NAMESPACES.plural], "verbs": ["list", "watch"]},
        {"apiGroups": [GRANTS.group], "resources": [GRANTS.plural], "verbs": ["list", "watch"]},
        {
            "apiGroups": [GRANTS.group],
            "resources": [f"{GRANTS.plural}/status"],
            "verbs": ["update"],
        },
        {"apiGroups": [CLAIMS.group], "resources": [CLAIMS.plural], "verbs": ["list", "watch"]},
    ]


def test_tenants_may_edit_grants_and_never_their_status() -> None:
    for role in documents("roles.yaml")[1:]:
        assert any("aggregate-to" in label for label in role["metadata"]["labels"])
        assert [rule["resources"] for rule in role["rules"]] == [[GRANTS.plural]]
