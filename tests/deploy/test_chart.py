"""The Helm chart makes the objects of the kustomizations, and changes what its values say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from authz import __version__
from authz.cli.settings import load_settings
from authz.config import Settings
from authz.envoyfilters import shipped
from tests.deploy import helm
from tests.deploy.helm import CHART
from tests.deploy.manifests import DEPLOY, INSTALLS, Json, load, rendered, with_component

pytestmark = pytest.mark.timeout(900)  # the first builds Helm
OVERLAYS = ("shadow", "enforce", "reuse", "break-glass")
DIGEST = "sha256:" + "0a" * 32
Key = tuple[str, str, str]


def name_of(install: str) -> str:
    """What the chart calls an install."""
    return install.rpartition("/")[2]


def by_key(objects: Iterable[Json]) -> dict[Key, Json]:
    """Objects by what they are; each is there once."""
    found: dict[Key, Json] = {}
    for it in objects:
        key = it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"]
        assert key not in found
        found[key] = it
    return found


def plain(objects: Iterable[Json]) -> dict[Key, Json]:
    """Without what Helm alone wants: to keep keys and Grants, and to make the keys once."""
    copies = by_key(map(deepcopy, objects))
    for (kind, _, _), it in copies.items():
        notes = it["metadata"].get("annotations", {})
        helms = {name for name in notes if name.startswith("helm.sh/")}
        allowed = {"Secret", "CustomResourceDefinition", "Job"}
        assert not helms or kind in allowed
        for name in helms:
            del notes[name]
        if helms and not notes:
            del it["metadata"]["annotations"]
    return copies


@pytest.mark.parametrize("install", INSTALLS)
def test_an_install_is_the_kustomizations(install: str) -> None:
    values = {"install": name_of(install), "namespace": True}
    assert plain(helm.rendered(values=values)) == by_key(rendered(install))


@pytest.mark.parametrize("install", INSTALLS)
def test_policy_from_the_cluster_is_the_components(install: str, tmp_path: Path) -> None:
    values = {"install": name_of(install), "namespace": True, "policyFromCluster": True}
    expected = with_component(install, "policy-from-cluster", tmp_path)
    assert plain(helm.rendered(values=values)) == by_key(expected)


def test_the_fallback_is_the_components(tmp_path: Path) -> None:
    values = {"namespace": True, "fallback": True}
    expected = with_component("base", "fallback", tmp_path)
    assert plain(helm.rendered(values=values)) == by_key(expected)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_filters_are_an_overlays(overlay: str) -> None:
    base, filters = by_key(rendered("base")), by_key(shipped(overlay))
    values: Json = {"namespace": True, "filters": overlay}
    assert plain(helm.rendered(values=values)) == base | filters
    without = {key: it for key, it in filters.items() if key[1] != "knative-eventing"}
    assert plain(helm.rendered(values={**values, "eventing": False})) == base | without


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("admission", "platform/admission"),
        ("observability", "observability"),
        ("keys", "keys"),
    ],
)
def test_each_part_is_its_folders(value: str, folder: str) -> None:
    expected = by_key(rendered("base")) | by_key(rendered(folder))
    assert plain(helm.rendered(values={"namespace": True, value: True})) == expected


def test_by_default_nothing_is_there_but_the_service() -> None:
    made = plain(helm.rendered())
    assert made.keys() == {it for it in by_key(rendered("base")) if it[0] != "Namespace"}


def test_keys_and_grants_outlive_an_uninstall() -> None:
    made = by_key(helm.rendered(values={"policyFromCluster": True, "keys": True}))
    notes = {key: it["metadata"].get("annotations", {}) for key, it in made.items()}
    kept = {key for key, it in notes.items() if it.get("helm.sh/resource-policy") == "keep"}
    assert kept == {
        ("Secret", "authz-system", "tenant-authz-keys"),
        ("CustomResourceDefinition", "", "grants.tenant-authz.dev"),
    }
    hooks = {key: it["helm.sh/hook"] for key, it in notes.items() if "helm.sh/hook" in it}
    assert hooks == {("Job", "authz-system", "authz-keys"): "post-install"}


# ---- what values change --------------------------------------------------------------------------


def pod(made: dict[Key, Json], kind: str = "DaemonSet", name: str = "authz") -> Json:
    """A workload's pod."""
    spec: Json = made[kind, "authz-system", name]["spec"]["template"]["spec"]
    return spec


def server(made: dict[Key, Json]) -> Json:
    """The service's own container."""
    (found,) = (container for container in pod(made)["containers"] if container["name"] == "authz")
    return dict(found)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"repository": "r.example:5000/a"}, f"r.example:5000/a:{__version__}"),
        ({"repository": "r.example/a", "tag": "7"}, "r.example/a:7"),
        ({"repository": "r.example/a", "tag": "7", "digest": DIGEST}, f"r.example/a@{DIGEST}"),
    ],
)
def test_the_image_is_what_the_values_say(image: Json, expected: str) -> None:
    values = {"image": {**image, "pullSecrets": ["mine"]}, "keys": True}
    made = by_key(helm.rendered(values=values))
    job = pod(made, "Job", "authz-keys")
    assert (server(made)["image"], job["containers"][0]["image"]) == (expected, expected)
    assert pod(made)["imagePullSecrets"] == job["imagePullSecrets"] == [{"name": "mine"}]


def test_other_settings_replace_the_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"max_connections": 3000, "token_seconds": 900}
    made = by_key(helm.rendered(values={"settings": changes}))
    (key,) = (it for it in made if it[2].startswith("tenant-authz-settings"))
    (volume,) = (it for it in pod(made)["volumes"] if it["name"] == "settings")
    assert volume["configMap"]["name"] == key[2]
    (before,) = (it for it in by_key(rendered("base")) if it[2].startswith(key[2][:21]))
    other = by_key(helm.rendered(values={"settings": {"token_seconds": 901}}))
    assert len({before[2], key[2], *(it[2] for it in other if it[2].startswith(key[2][:21]))}) == 3
    (tmp_path / "settings.yaml").write_text(made[key]["data"]["settings.yaml"])
    shipped_ones = load_settings(Settings, {}, DEPLOY / "base/settings.yaml")
    assert load_settings(Settings, {}, tmp_path / "settings.yaml") == shipped_ones.model_copy(
        update=changes
    )


def test_policy_and_resources_are_what_the_values_say() -> None:
    policy, resources = "default_mode: enforce\n", {"limits": {"memory": "1Gi"}}
    made = by_key(helm.rendered(values={"policy": policy, "resources": resources}))
    place = ("ConfigMap", "authz-system", "tenant-authz-policy")
    assert made[place]["data"] == {"policy.yaml": policy}
    assert server(made)["resources"] == resources


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"instal": "base"}, "instal"),
        ({"install": "statefulset"}, "install"),
        ({"filters": "on"}, "filters"),
        ({"filters": True}, "filters"),
        ({"policyFromCluster": "yes"}, "policyFromCluster"),
        ({"policy": {"default_mode": "enforce"}}, "policy"),
        ({"settings": ["a"]}, "settings"),
        ({"image": {"name": "a"}}, "image"),
        ({"image": {"repository": "a b"}}, "repository"),
        ({"image": {"digest": "sha256:0"}}, "digest"),
        ({"resources": {"limit": {}}}, "limit"),
    ],
)
def test_a_bad_value_is_told(values: Json, said: str) -> None:
    done = helm.template(values=values)
    assert (done.returncode, done.stdout) == (1, "")
    assert "don't meet the specifications of the schema" in done.stderr
    assert said in done.stderr


def test_no_other_namespace_will_do() -> None:
    done = helm.template(namespace="default")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the service's namespace is authz-system" in done.stderr


@pytest.mark.parametrize(
    ("header", "filters", "code"),
    [("x-mine", "enforce", 1), ("x-mine", "none", 0), ("x-tenant-token", "enforce", 0)],
)
def test_server_and_filters_use_one_header(header: str, filters: str, code: int) -> None:
    """The chart's filters are as they are rendered: with another header every pod would deny."""
    done = helm.template(values={"settings": {"token_header": header}, "filters": filters})
    assert done.returncode == code
    assert ("install them by kustomize, with token-header in" in done.stderr) is bool(code)


# ---- the chart itself ----------------------------------------------------------------------------


def schema() -> Any:
    return json.loads((CHART / "values.schema.json").read_text())


def test_every_value_is_in_the_schema_and_shown_with_its_default() -> None:
    (values,) = load(CHART / "values.yaml")
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.validate(values, schema())
    properties = schema()["properties"]
    assert set(values) == set(properties) - {"global"}
    assert set(values["image"]) == set(properties["image"]["properties"])
    assert properties["install"]["enum"] == [name_of(install) for install in INSTALLS]


def test_its_version_is_the_services() -> None:
    (chart,) = load(CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_helm_finds_nothing_to_complain_about() -> None:
    done = helm.run("lint", "--strict", CHART, "--namespace", "authz-system")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_holds_all(tmp_path: Path) -> None:
    done = helm.run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    package = tmp_path / f"tenant-authz-{__version__}.tgz"
    values = {"filters": "enforce", "admission": True, "policyFromCluster": True}
    assert helm.rendered(package, values) == helm.rendered(values=values)


def test_the_comparison_sees_a_difference() -> None:
    deployed = plain(helm.rendered(values={"install": "deployment", "namespace": True}))
    assert deployed != by_key(rendered("base"))
