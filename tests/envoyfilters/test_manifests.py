"""The manifests: they render offline, everywhere the same, and hold what the API servers accept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz.domain.policy import Role
from authz.envoyfilters import Patches, directory, shipped
from authz.policysource.file import parse_policy, read_policy

Json = dict[str, Any]
HERE = directory()
OVERLAYS = ("enforce", "reuse", "shadow", "break-glass")
COMPONENTS = ("eventing", "cert-manager", "reuse", "strict-mtls", "sidecar-scope")
PREFIX = "tenant-authz"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
overlays = pytest.mark.parametrize("overlay", OVERLAYS)


def rendered(folder: Path) -> str:
    """What `kubectl apply -k` would send; offline, since everything is in this folder."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def parsed(text: str) -> list[Json]:
    return list(YAML(typ="safe").load_all(text))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE, tmp_path / "envoyfilters"))


def with_components(copy: Path, *components: str) -> list[Json]:
    """The enforce overlay with more components, as a user would write it."""
    folder = copy / "overlays" / "mine"
    folder.mkdir(exist_ok=True)
    listed = "".join(f"  - ../../components/{it}\n" for it in (*components, "values"))
    text = f"kind: Kustomization\nresources:\n  - ../../base\ncomponents:\n{listed}"
    (folder / "kustomization.yaml").write_text(text)
    return parsed(rendered(folder))


# -- rendering ---------------------------------------------------------------------------------


@needs_kubectl
@overlays
def test_each_overlay_renders_to_what_ships(overlay: str) -> None:
    assert tuple(parsed(rendered(HERE / "overlays" / overlay))) == shipped(overlay)


@needs_kubectl
def test_the_top_is_enforce() -> None:
    assert tuple(parsed(rendered(HERE))) == shipped() == shipped("enforce")


@needs_kubectl
def test_what_is_rendered_is_fresh() -> None:
    script = [sys.executable, str(HERE / "render.py"), "--check"]
    subprocess.run(script, check=True, timeout=60)


def test_every_overlay_and_component_is_known_here() -> None:
    assert {path.name for path in (HERE / "overlays").iterdir()} == set(OVERLAYS)
    assert {it.name for it in (HERE / "components").iterdir()} == {*COMPONENTS, "values"}
    assert {it.stem for it in (HERE / "rendered").iterdir()} == set(OVERLAYS)


@needs_kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_adds_something_of_its_own(copy: Path, component: str) -> None:
    before = with_components(copy)
    added = [it for it in with_components(copy, component) if it not in before]
    kinds = {it["kind"] for it in added}
    assert (
        kinds
        == {
            "eventing": {"EnvoyFilter", "AuthorizationPolicy", "PeerAuthentication"},
            "cert-manager": {"EnvoyFilter", "PeerAuthentication"},
            "reuse": {"EnvoyFilter"},
            "strict-mtls": {"PeerAuthentication"},
            "sidecar-scope": {"Sidecar"},
        }[component]
    )


@needs_kubectl
def test_every_file_is_installed_by_somebody() -> None:
    for kustomization in HERE.rglob("kustomization.yaml"):
        if kustomization.parent.parent.name not in {"components", HERE.name}:
            continue
        listed = set(YAML(typ="safe").load(kustomization).get("resources", []))
        found = {path.name for path in kustomization.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert found <= listed or kustomization.parent == HERE


@needs_kubectl
def test_the_overlays_differ_in_nothing_but_how_they_fail() -> None:
    def without_failure(value: Any) -> Any:
        if isinstance(value, dict):
            switches = {"failure_mode_allow", "filter_enabled"}
            if value.get("stat_prefix") == "tenant_authz_tcp":
                switches.add("filter_enabled_metadata")
            return {k: without_failure(v) for k, v in value.items() if k not in switches}
        return [without_failure(it) for it in value] if isinstance(value, list) else value

    expected = without_failure(list(shipped()))
    for overlay in set(OVERLAYS) - {"reuse"}:
        assert without_failure(list(shipped(overlay))) == expected


def ext_authz(overlay: str) -> Iterator[Json]:
    for document in shipped(overlay):
        for patch in document["spec"].get("configPatches", []):
            config = patch["patch"].get("value", {}).get("typed_config", {})
            if "ext_authz" in config.get("@type", "") and "grpc_service" in config:
                yield config


def test_only_sign_fails_open_in_enforce() -> None:
    opens = {it["stat_prefix"] for it in ext_authz("enforce") if it["failure_mode_allow"]}
    assert opens == {"tenant_authz_sign"}


def test_nothing_fails_closed_in_shadow() -> None:
    assert all(it["failure_mode_allow"] for it in ext_authz("shadow"))


def test_nothing_is_asked_in_break_glass() -> None:
    for it in ext_authz("break-glass"):
        if it["stat_prefix"] == "tenant_authz_tcp":
            assert it["filter_enabled_metadata"]["value"] == {"present_match": True}
        else:
            assert it["filter_enabled"] == {"default_value": {"numerator": 0}}


def test_every_filter_that_asks_says_what() -> None:
    for it in ext_authz("enforce"):
        metadata = it["grpc_service"]["initial_metadata"]
        assert metadata[0]["key"] == "x-authz-question"


def test_only_formatters_that_were_tried_on_every_envoy() -> None:
    """A wrong one passes validation and aborts every proxy at its first request.

    tests/envoy/test_filters.py sends a request through each filter that has one.
    """
    text = "\n".join(path.read_text() for path in (HERE / "rendered").glob("*.yaml"))
    # Not %UPSTREAM_CLUSTER%: that is the name for statistics where a cluster has one, and istiod
    # gives one to each. tests/envoy/test_statistics_names.py
    tried = {"%UPSTREAM_CLUSTER_RAW%", "%ENVIRONMENT(ISTIO_META_APP_CONTAINERS)%"}
    assert set(re.findall(r"%[^%\n]*%", text)) == tried


# -- values ------------------------------------------------------------------------------------

OTHER = {
    "trust-domain": "mesh.example",
    "cluster-domain": "k8s.example.org",
    "authz-service": "guard",
    "authz-namespace": "guards",
    "authz-port": "7777",
    "authz-service-account": "guardian",
    "root-namespace": "mesh-root",
    "gateway-namespace": "edge",
    "gateway-label": "ingress",
    "public-port-1": "18080",
    "public-port-2": "18443",
    "public-port-3": "10080",
    "public-port-4": "10443",
    "local-gateway-port": "18081",
    "token-header": "x-other-token",
    "sign-timeout": "0.111s",
    "verify-timeout": "2.222s",
    "autoscaler-service-account": "scaler",
    "prometheus-namespace": "observability",
    "prometheus-service-account": "prom",
}


def values_of(copy: Path) -> dict[str, str]:
    found: dict[str, str] = YAML(typ="safe").load(copy / "base" / "values.yaml")["data"]
    return found


def test_the_test_changes_every_value() -> None:
    assert set(OTHER) == set(values_of(HERE)) - {"authz-host", "local-gateway-host"}


def set_values(copy: Path, values: dict[str, str]) -> None:
    file = copy / "base" / "values.yaml"
    text = file.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^  {name}: .*$", f'  {name}: "{value}"', text)
        assert count == 1
    file.write_text(text)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    else:
        yield path, value


def in_order(documents: list[Json]) -> list[Json]:
    """Kustomize sorts by namespace, too, which is a value."""
    return sorted(documents, key=lambda it: (it["kind"], it["metadata"]["name"], selected(it)))


def selected(document: Json) -> tuple[bool, str]:
    knative = document["metadata"]["namespace"].startswith("knative-")  # these are no values
    return knative, str(document["spec"].get("workloadSelector"))


@needs_kubectl
@pytest.mark.parametrize("name", OTHER)
def test_each_value_is_seen_everywhere_and_nothing_else_changes(copy: Path, name: str) -> None:
    """What says the old value says the new one, and stays of its type; all else stays."""
    old = values_of(copy)[name]
    before = list(leaves(in_order(with_components(copy, *COMPONENTS))))
    set_values(copy, {name: OTHER[name]})
    after = list(leaves(in_order(with_components(copy, *COMPONENTS))))
    assert [path for path, _ in before] == [path for path, _ in after]
    changed = [
        (one, other) for (_, one), (_, other) in zip(before, after, strict=True) if one != other
    ]
    assert changed
    for one, other in changed:
        assert type(one) is type(other)
        assert re.sub(rf"(?<![\w-]){re.escape(OTHER[name])}(?![\w-])", old, str(other)) == str(one)


@needs_kubectl
def test_no_old_value_is_left(copy: Path) -> None:
    """With all of them changed, the defaults are gone; but for what Knative calls its own."""
    set_values(copy, OTHER)
    after = [value for _, value in leaves(with_components(copy, *COMPONENTS))]
    text = "\n".join(map(str, after))
    gone = [
        *("cluster.local", "authz-system", "istio-system", "ingressgateway", "x-tenant-token"),
        *("outbound|9000|", "authz.authz", "/sa/authz", "0.25s", "monitoring", "/sa/prometheus"),
        "/sa/controller",
    ]
    left = [it for it in gone if it in text]
    assert left == []
    numbers = {it for it in after if isinstance(it, int)}
    assert {80, 443, 8080, 8081, 8443, 9000} & numbers == {8080, 8443}


@needs_kubectl
def test_ports_of_knative_s_own_stay(copy: Path) -> None:
    set_values(copy, OTHER)
    ports: dict[int | None, set[str]] = {}
    for port, name in (
        (patch["match"]["listener"].get("portNumber"), document["metadata"]["name"])
        for document in with_components(copy, *COMPONENTS)
        if document["kind"] == "EnvoyFilter"
        for patch in document["spec"]["configPatches"]
    ):
        kind = name.removeprefix("tenant-authz-")
        ports.setdefault(port, set()).add("webhook" if kind.startswith("webhook-") else kind)
    assert {port: names for port, names in ports.items() if port and port < 10_000} == {
        8012: {"transit", "reuse-activator"},
        8013: {"transit", "reuse-activator"},
        8080: {
            *("broker", "carry", "carry-reply", "channel", "filter", "job-sink", "request-reply")
        },
        8443: {"webhook"},
        9090: {"scrape"},
    }


@needs_kubectl
def test_values_go_into_every_overlay(copy: Path) -> None:
    set_values(copy, OTHER)
    for overlay in OVERLAYS:
        text = rendered(copy / "overlays" / overlay)
        assert "outbound|7777||guard.guards.svc.k8s.example.org" in text
        assert "x-tenant-token" not in text


# -- tenants -----------------------------------------------------------------------------------


@needs_kubectl
def test_a_thousand_tenants_change_nothing_in_the_mesh(copy: Path) -> None:
    texts = set()
    for count in (1, 1_000):
        names = [f"tenant-{number}" for number in range(count)]
        tenants = "".join(f"  {name}: {{namespaces: [{name}-a, {name}-b]}}\n" for name in names)
        grants = "".join(f"  - {{to: {it}-a, from: tenant-0-b}}\n" for it in names)
        policy = (HERE / "policy.yaml").read_text()
        policy = policy.replace("tenants: {}\n", f"tenants:\n{tenants}")
        policy = policy.replace("grants: []\n", f"grants:\n{grants}")
        assert len(parse_policy(policy).namespaces) == 2 * count
        (copy / "policy.yaml").write_text(policy)
        texts.add("".join(rendered(copy / "overlays" / overlay) for overlay in OVERLAYS))
    assert len(texts) == 1


# -- policy ------------------------------------------------------------------------------------


def test_the_policy_is_good() -> None:
    authz = [sys.executable, "-m", "authz", "policy", "check", str(HERE / "policy.yaml")]
    assert subprocess.run(authz, check=False, capture_output=True, timeout=60).returncode == 0


def test_whoever_asks_for_a_role_s_question_is_given_that_role() -> None:
    """The accounts in the policy run where the filters that need their role are."""
    policy = read_policy(HERE / "policy.yaml")
    holders = {
        role: {
            (it.namespace, it.service_account)
            for it, roles in policy.roles.items()
            if role in roles
        }
        for role in Role
    }
    assert {namespace for namespace, _ in holders[Role.TRANSIT]} == {
        document["metadata"]["namespace"]
        for document in shipped()
        if document["kind"] == "EnvoyFilter"
        and any(name == "tenant-authz.transit" for name in inserted(document))
    }
    assert holders[Role.GATEWAY] <= holders[Role.TRANSIT]  # local and public are one process


def inserted(document: Json) -> list[str]:
    patches = document["spec"]["configPatches"]
    return [patch["patch"]["value"]["name"] for patch in patches if "value" in patch["patch"]]


# -- schema ------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {
    # Istio's kinds: every field that is used, from istio/api 1.30. A typo in one would be dropped,
    # or refused, by the API server; here it fails.
    "EnvoyFilter": {
        "priority": int,
        "workloadSelector": {"labels": dict},
        "configPatches": [{"applyTo": str, "match": dict, "patch": dict}],
    },
    "DestinationRule": {
        "host": str,
        "trafficPolicy": {
            "tls": {"mode": str, "subjectAltNames": [str]},
            "connectionPool": {"tcp": {"connectTimeout": str, "maxConnectionDuration": str}},
            "outlierDetection": {
                "consecutive5xxErrors": int,
                "interval": str,
                "baseEjectionTime": str,
                "maxEjectionPercent": int,
                "minHealthPercent": int,
            },
        },
    },
    "Gateway": {
        "selector": dict,
        "servers": [
            {
                "port": {"number": int, "name": str, "protocol": str},
                "tls": {"mode": str},
                "hosts": [str],
            }
        ],
    },
    "PeerAuthentication": {
        "selector": {"matchLabels": dict},
        "mtls": {"mode": str},
        "portLevelMtls": {"8443": {"mode": str}, "10250": {"mode": str}},
    },
    "Sidecar": {"egress": [{"hosts": [str]}]},
    "AuthorizationPolicy": {
        "selector": {"matchLabels": dict},
        "action": str,
        "rules": [
            {
                "from": [{"source": {"principals": [str]}}],
                "to": [{"operation": {"ports": [str]}}],
            }
        ],
    },
}
VERSIONS = {
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "DestinationRule": "networking.istio.io/v1",
    "Gateway": "networking.istio.io/v1",
    "Sidecar": "networking.istio.io/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
}


def misfits(value: Any, fields: Any, path: str) -> Iterator[str]:
    """Where `value` has a field that is not known, or of another type."""
    if isinstance(fields, dict):
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        for key, item in value.items():
            if key in fields:
                yield from misfits(item, fields[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is unknown"
    elif isinstance(fields, list):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for item in value:
            yield from misfits(item, fields[0], f"{path}[]")
    elif type(value) is not fields:
        yield f"{path} is not {fields.__name__}"


@needs_kubectl
def test_istio_s_kinds_have_no_field_that_istio_does_not_know(copy: Path) -> None:
    documents = with_components(copy, *COMPONENTS)
    for overlay in OVERLAYS:
        documents += shipped(overlay)
    for document in documents:
        kind = document["kind"]
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(document["metadata"]) <= {"name", "namespace", "labels", "annotations"}
        assert document["apiVersion"] == VERSIONS[kind]
        assert list(misfits(document["spec"], FIELDS[kind], kind)) == []
    Patches.of(documents)  # reads each field of a patch, and knows no others


def test_a_typo_is_found() -> None:
    bad = {"tls": {"mode": "STRICT"}, "mtls": {"mod": "STRICT"}}
    assert list(misfits(bad, FIELDS["PeerAuthentication"], "PeerAuthentication")) == [
        "PeerAuthentication.tls is unknown",
        "PeerAuthentication.mtls.mod is unknown",
    ]


@needs_kubectl
def test_nothing_native_is_installed(copy: Path) -> None:
    """Only Istio's kinds, so there is nothing that Kubernetes' own schemas would check."""
    kinds = {component["kind"] for component in with_components(copy, *COMPONENTS)}
    assert kinds == set(VERSIONS)


def test_names_are_unique_and_ours() -> None:
    for overlay in OVERLAYS:
        found = [
            (it["kind"], it["metadata"]["namespace"], it["metadata"]["name"])
            for it in shipped(overlay)
        ]
        assert len(set(found)) == len(found)
        for _, _, name in found:
            assert name.startswith(PREFIX) or name == "knative-local-gateway"


def documented() -> Iterator[Path]:
    for folder in (HERE / "base", *(HERE / "components" / component for component in COMPONENTS)):
        yield from (path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("file", list(documented()), ids=lambda it: it.stem)
def test_each_file_says_for_what_and_how_to_take_it_back(file: Path) -> None:
    comments = "\n".join(it for it in file.read_text().split("\n") if it.startswith("#"))
    if file.name == "values.yaml":
        return
    assert "Take it back" in comments
    assert "For Istio" in comments or "see base/" in comments
    for name in re.findall(
        r"(?:envoyfilter|destinationrule|peerauthentication) ([a-z-]+)", comments
    ):
        assert f"name: {name}\n" in file.read_text()
