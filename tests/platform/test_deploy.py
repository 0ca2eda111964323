"""deploy/platform renders offline, is valid, and says what its page says."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.config import Settings
from authz.conformance.kubernetes import NAMES
from authz.domain.reason import Reason
from authz.domain.verdict import Deny, Parties
from authz.envoyfilters import shipped
from authz.extauthz.response import answer
from authz.wire import REASON_HEADER, TENANT_LABEL
from tests.platform.manifests import PLATFORM, ROOT, needs_kubectl, rendered, validate

FOLDERS = sorted(file.parent.name for file in PLATFORM.glob("*/kustomization.yaml"))
PAGE = (PLATFORM / "README.md").read_text()
FILTERS = (ROOT / "envoyfilters/README.md").read_text()
REFERENCE = (ROOT / "authz/REFERENCE.md").read_text()
WHY = (PLATFORM / "WHY-DENIED.md").read_text()


def data(name: str) -> dict[str, str]:
    """The keys that we set in one of Knative's ConfigMaps."""
    for one in YAML(typ="safe").load_all((PLATFORM / "knative" / "config.yaml").read_text()):
        if one["metadata"]["name"] == name:
            keys: dict[str, str] = one["data"]
            return keys
    raise AssertionError(name)


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS)
def test_each_part_renders_and_is_valid(folder: str) -> None:
    assert validate(rendered(PLATFORM / folder)) > 0


def test_validation_notices_a_wrong_field() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        validate([{"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "spce": {}}])
    with pytest.raises(AssertionError):
        validate(
            [
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "Sidecar",
                    "metadata": {"namespace": "a"},
                    "spec": {"egresses": []},
                }
            ]
        )


@needs_kubectl
def test_the_images_that_are_held_are_named_in_the_kustomization_and_versioned() -> None:
    (daemonset,) = (one for one in rendered(PLATFORM / "prepull") if one["kind"] == "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    images = [one["image"] for one in pod["initContainers"] + pod["containers"]]
    assert all("/" in image and image.rpartition(":")[2] != "latest" for image in images)
    assert any("istio/proxyv2:" in image for image in images)
    assert any("serving/cmd/queue:" in image for image in images)


def test_every_configuration_value_is_text() -> None:
    for one in YAML(typ="safe").load_all((PLATFORM / "knative/config.yaml").read_text()):
        assert all(isinstance(value, str) for value in one["data"].values()), one


def test_the_activator_is_always_in_the_path_and_never_scaled() -> None:
    assert data("config-autoscaler")["target-burst-capacity"] == "-1"
    hpa, deployment = YAML(typ="safe").load_all((PLATFORM / "knative/activator.yaml").read_text())
    assert hpa["spec"]["minReplicas"] == hpa["spec"]["maxReplicas"] > 1
    assert "replicas" not in deployment["spec"], "the HPA says how many"


def test_cold_starts_end_although_sidecars_answer_403_in_plaintext() -> None:
    """serving, pkg/activator/net/revision_backends.go: it tells a mesh by 502 and 503 alone."""
    assert data("config-network")["mesh-compatibility-mode"] == "enabled"
    strict = YAML(typ="safe").load((PLATFORM / "istio/mtls.yaml").read_text())
    assert strict["spec"] == {"mtls": {"mode": "STRICT"}}
    before, _ = FILTERS.split("**1. Watch.**")
    assert "`mesh-compatibility-mode: enabled`" in before.partition("## Before")[2]


def test_knative_tells_urls_that_tenants_gateways_serve() -> None:
    assert data("config-network")["default-external-scheme"] == "https"


def test_one_revision_that_is_not_active_is_kept() -> None:
    gc = data("config-gc")
    assert int(gc["min-non-active-revisions"]) <= int(gc["max-non-active-revisions"]) == 1
    assert gc["retain-since-create-time"] == gc["retain-since-last-active-time"] == "disabled"


def test_no_request_may_last_longer_than_tokens_are_good_for() -> None:
    longest = int(data("config-defaults")["max-revision-timeout-seconds"])
    assert longest == Settings.model_fields["longest_request_seconds"].default
    _, deployment = YAML(typ="safe").load_all((PLATFORM / "knative/activator.yaml").read_text())
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= longest


def test_there_are_as_many_controllers_as_buckets() -> None:
    buckets = int(data("config-leader-election")["buckets"])
    assert buckets <= 10
    for one in YAML(typ="safe").load_all((PLATFORM / "knative/controllers.yaml").read_text()):
        assert one["spec"]["replicas"] == buckets


def test_a_scale_that_is_not_given_is_within_the_limit() -> None:
    scale = data("config-autoscaler")
    assert 1 <= int(scale["max-scale"]) <= int(scale["max-scale-limit"])


def test_istiod_watches_tenants_and_the_platform_only() -> None:
    values = YAML(typ="safe").load((PLATFORM / "istio/istiod-values.yaml").read_text())
    tenants, platform = values["meshConfig"]["discoverySelectors"]
    assert tenants == {"matchExpressions": [{"key": TENANT_LABEL, "operator": "Exists"}]}
    assert {"authz-system", *NAMES.values()} <= set(platform["matchExpressions"][0]["values"])
    assert all(isinstance(value, str) for value in values["pilot"]["env"].values())
    assert values["meshConfig"]["tlsDefaults"]["cipherSuites"]


def test_gateways_have_our_cluster_although_they_are_sent_only_what_routes_use() -> None:
    """istiod: PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, and GatewayServices in push_context.go."""
    values = YAML(typ="safe").load((PLATFORM / "istio/istiod-values.yaml").read_text())
    assert values["pilot"]["env"]["PILOT_FILTER_GATEWAY_CLUSTER_CONFIG"] == "true"
    older = YAML(typ="safe").load((PLATFORM / "istio/istiod-1.25-values.yaml").read_text())
    (provider,) = older["meshConfig"]["extensionProviders"]
    gateways = [it for it in shipped() if "GATEWAY" in contexts(it)]
    assert len(gateways) == 2
    for document in gateways:
        named = document["metadata"]["annotations"]["envoyfilter.istio.io/referenced-services"]
        assert named == provider["envoyExtAuthzGrpc"]["service"]
        assert asked(document) == {
            f"outbound|{provider['envoyExtAuthzGrpc']['port']}||{named.partition('/')[2]}"
        }


def contexts(document: dict[str, Any]) -> set[str]:
    return {patch["match"]["context"] for patch in document["spec"].get("configPatches", ())}


def asked(document: dict[str, Any]) -> set[str]:
    """The clusters by which an EnvoyFilter's filters ask."""
    values = (patch["patch"].get("value", {}) for patch in document["spec"]["configPatches"])
    typed = (value.get("typed_config", {}) for value in values)
    return {
        it["grpc_service"]["envoy_grpc"]["cluster_name"] for it in typed if "grpc_service" in it
    }


def test_sidecars_know_the_ways_that_tokens_need() -> None:
    mesh, activator = YAML(typ="safe").load_all((PLATFORM / "istio/sidecars.yaml").read_text())
    (egress,) = mesh["spec"]["egress"]
    assert {"authz-system/*", "istio-system/*", "knative-serving/*"} < set(egress["hosts"])
    assert activator["spec"]["egress"] == [{"hosts": ["*/*"]}]


# The pages -------------------------------------------------------------------------------------


def lessons(page: str, folder: Path) -> list[tuple[str, list[Path]]]:
    """Rows of the table of lessons, each with the paths that it names."""
    rows = [row.split("|")[1:-1] for row in page.splitlines() if row.startswith("| **")]
    return [
        (row[0].strip(), [folder / path for path in re.findall(r"\]\(([^)#]+)\)", row[2])])
        for row in rows
    ]


def test_each_lesson_names_where_it_is_kept() -> None:
    found = lessons(PAGE, PLATFORM)
    assert len(found) >= 12
    for lesson, paths in found:
        assert paths, lesson
        for path in paths:
            assert path.exists(), (lesson, path)


def test_each_part_is_on_the_page() -> None:
    for folder in [*FOLDERS, "apiserver"]:
        assert f"]({folder}/" in PAGE, folder


def test_every_reason_is_explained_and_no_other() -> None:
    told = dict(re.findall(r"^\| `([a-z-]+)` \| `([a-z-]+)` \|", WHY, re.MULTILINE))
    assert told == {reason.slug: reason.outward.value for reason in Reason}


def test_the_answer_on_the_page_is_the_one_that_is_given() -> None:
    answer_ = CheckResponse.FromString(
        answer(Deny(Reason.NO_GRANT, Parties()), token_header="x", request_id="6f1c2a7e-…") or b""
    )
    assert answer_.denied_response.body in WHY
    assert f"{REASON_HEADER}: not-allowed" in WHY


def test_the_commands_on_the_page_are_ours() -> None:
    def commands(text: str) -> Any:
        return re.findall(r"^(?:.*\| )?authz (\w+) ?(\w+)?", text, re.MULTILINE)

    for command, _ in commands(WHY):
        assert f"### `authz {command}" in REFERENCE, command
