"""The manifests: Kubernetes takes them, the service takes what they set, and they fit together."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from authz import __version__
from authz.cli import app
from authz.cli.settings import load_settings
from authz.config import Endpoint, KeySettings, Settings
from authz.domain.identity import SpiffeId
from authz.domain.policy import Mode
from authz.lab.loopback.mesh import ACTIVATOR, AUTHZ, AUTHZ_HOST, AUTHZ_PORT, GATEWAY
from authz.policysource.file import parse_policy
from tests.deploy.manifests import (
    DEPLOY,
    INSTALLS,
    ROOT,
    Json,
    bytes_of,
    environment,
    everything,
    kustomizations,
    load,
    one,
    pod,
    rendered,
    server,
    with_component,
    workload,
)

VERSIONS = ("1.30", kubernetes_validate.latest_version())

# Custom resources: what they may have, as far as we use them. A path with [] goes into a list.
CUSTOM = {
    "PeerAuthentication": {"spec.mtls.mode"},
    "Sidecar": {
        "spec.workloadSelector.labels.*",
        *(f"spec.ingress[].port.{name}" for name in ("number", "protocol", "name")),
        "spec.ingress[].defaultEndpoint",
        "spec.egress[].hosts[]",
    },
    "ServiceMonitor": {
        "spec.selector.matchLabels.*",
        "spec.namespaceSelector.matchNames[]",
        *(f"spec.endpoints[].{name}" for name in ("port", "path", "interval", "scrapeTimeout")),
        "spec.endpoints[].honorLabels",
        "spec.endpoints[].relabelings[].sourceLabels[]",
        "spec.endpoints[].relabelings[].targetLabel",
    },
    "PrometheusRule": {
        "spec.groups[].name",
        *(f"spec.groups[].rules[].{name}" for name in ("alert", "record", "expr", "for")),
        "spec.groups[].rules[].labels.*",
        "spec.groups[].rules[].annotations.*",
    },
}


# -- Kubernetes takes them ---------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_expects(version: str) -> None:
    for where, it in everything():
        try:
            kubernetes_validate.validate(it, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            assert it["kind"] in CUSTOM, where
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{where}: {error}")


def test_a_typo_would_be_found() -> None:
    broken = {**workload("base"), "spec": {**workload("base")["spec"], "minReadySecond": 5}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_custom_resources_have_only_the_fields_that_we_looked_up() -> None:
    for where, it in everything():
        if it["kind"] in CUSTOM:
            allowed = CUSTOM[it["kind"]]
            maps = tuple(name.removesuffix("*") for name in allowed if name.endswith("*"))
            for path in _paths(it["spec"], "spec"):
                assert path in allowed or path.startswith(maps), f"{where}: {path}"


def _paths(value: Any, path: str) -> list[str]:
    match value:
        case dict():
            return [found for key, it in value.items() for found in _paths(it, f"{path}.{key}")]
        case list():
            return [found for it in value for found in _paths(it, f"{path}[]")]
        case _:
            return [path]


def test_every_folder_was_looked_at() -> None:
    assert set(INSTALLS) < set(kustomizations())


# -- the service takes what they set -----------------------------------------------------------


def settings(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server has in an install, put together by the service itself."""
    for variable, value in environment(server(name)).items():
        monkeypatch.setenv(variable, value)
    maps = [it for it in rendered(name) if it["kind"] == "ConfigMap"]
    (text,) = [it["data"]["settings.yaml"] for it in maps if "settings.yaml" in it["data"]]
    assert text == (DEPLOY / "base/settings.yaml").read_text()
    return load_settings(Settings, {}, DEPLOY / "base/settings.yaml")


@pytest.mark.parametrize("name", INSTALLS)
def test_the_settings_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(name, monkeypatch)
    assert found.store == "kubernetes:authz-system/tenant-authz-keys"
    assert isinstance(found.listen, Endpoint)
    assert found.listen.port == AUTHZ_PORT
    assert not found.http_listen.is_loopback  # the kubelet comes from outside
    assert (found.identity == "xfcc") == found.listen.is_loopback == (name == "overlays/xfcc")
    if found.own_id is not None:
        assert SpiffeId.parse(found.own_id) == AUTHZ


def test_the_policy_is_the_one_that_the_filters_come_with() -> None:
    """Kustomize reads no file outside of its folder, so there are two copies of one text."""
    shipped = DEPLOY.parent / "envoyfilters/policy.yaml"
    base, same = (it.read_text().partition("\n") for it in (DEPLOY / "base/policy.yaml", shipped))
    assert base[2] == same[2]  # the first line leads from each to the schema


def test_every_variable_is_a_setting() -> None:
    known = {f"AUTHZ_{name}".upper() for name in Settings.model_fields}
    for where, it in everything():
        for container in _containers(it):
            assert set(environment(container)) <= known, where


def test_every_flag_and_command_exists() -> None:
    commands: Any = get_command(app)
    for where, it in everything():
        for container in _containers(it):
            if container["name"] == "istio-proxy":
                continue
            command, flags = commands, list(container["args"])
            while flags and not flags[0].startswith("-"):
                command = command.get_command(None, flags.pop(0))
                assert command is not None, where
            known = {name for parameter in command.params for name in parameter.opts}
            assert {flag for flag in flags if flag.startswith("-")} <= known, where


def test_the_job_changes_the_servers_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = load(DEPLOY / "keys/job.yaml")
    (container,) = _containers(job)
    theirs = load_settings(KeySettings, {}, DEPLOY / "base/settings.yaml")
    for variable, value in environment(container).items():
        monkeypatch.setenv(variable, value)
    assert load_settings(KeySettings, {}, None) == theirs
    accounts = {it["metadata"]["name"] for it in rendered("base") if it["kind"] == "ServiceAccount"}
    assert job["spec"]["template"]["spec"]["serviceAccountName"] in accounts


def test_the_policy_is_good_and_begins_by_watching() -> None:
    policy = parse_policy((DEPLOY / "base/policy.yaml").read_text())
    assert policy.default_mode is Mode.SHADOW
    text = (DEPLOY / "base/policy.yaml").read_text()
    assert str(ACTIVATOR) in text
    assert str(GATEWAY) in text


@pytest.mark.parametrize("name", INSTALLS)
def test_every_file_that_is_named_is_mounted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(name, monkeypatch)
    container, spec = server(name), pod(name)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {it["name"] for it in mounts.values()} == set(volumes)
    assert not [it for it in mounts.values() if "subPath" in it]  # such a file never changes
    written = [it["mountPath"] for it in mounts.values() if not it.get("readOnly")]
    assert found.policy_kept_file is not None
    assert written == [str(found.policy_kept_file.parent)]
    assert set(volumes[mounts[written[0]]["name"]]) == {"name", "emptyDir"}
    paths = [*found.kek_files, container["args"][-1]]
    assert {str(path).rpartition("/")[0] for path in paths} <= set(mounts)
    # Where Istio's template grpc-agent mounts the folder into which its agent writes.
    assert str(found.tls_cert_file).startswith("/var/lib/istio/data/")
    # The agent runs only in the installs that end TLS themselves.
    annotations = workload(name)["spec"]["template"]["metadata"]["annotations"]
    uses_agent = annotations.get("inject.istio.io/templates") == "grpc-agent"
    assert uses_agent == (found.identity == "mtls")


def test_the_kek_is_mounted_as_the_service_wants_it() -> None:
    """`read_kek_file` wants mode 0640 or less of a file that belongs to root."""
    (kek,) = [volume for volume in pod("base")["volumes"] if volume["name"] == "kek"]
    assert kek["secret"]["defaultMode"] == 0o440
    assert pod("base")["securityContext"]["fsGroup"] == 65532


# -- they fit together -------------------------------------------------------------------------


@pytest.mark.parametrize("name", INSTALLS)
def test_sidecars_find_the_service_under_the_name_that_the_filters_use(name: str) -> None:
    service = one(rendered(name), "Service", "authz")
    metadata, (port,) = service["metadata"], service["spec"]["ports"]
    assert f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local" == AUTHZ_HOST
    assert (port["port"], port["name"]) == (AUTHZ_PORT, "grpc")
    identity = (AUTHZ.namespace, AUTHZ.service_account)
    assert (metadata["namespace"], pod(name)["serviceAccountName"]) == identity
    filters = "".join(path.read_text() for path in (ROOT / "envoyfilters").rglob("*.yaml"))
    assert f"outbound|{AUTHZ_PORT}||{AUTHZ_HOST}" in filters


@pytest.mark.parametrize("name", INSTALLS)
def test_everything_that_selects_pods_selects_ours(name: str) -> None:
    labels = workload(name)["spec"]["template"]["metadata"]["labels"].items()
    ports = {it["name"] for it in server(name)["ports"]}
    for it in rendered(name):
        spec = it.get("spec", {})
        match it["kind"]:
            case "Service":
                assert spec["selector"].items() <= labels
                assert {port["targetPort"] for port in spec["ports"]} <= ports
            case "PodDisruptionBudget" | "Deployment" | "DaemonSet":
                assert spec["selector"]["matchLabels"].items() <= labels
            case "Sidecar":
                assert spec["workloadSelector"]["labels"].items() <= labels
            case "HorizontalPodAutoscaler":
                target = spec["scaleTargetRef"]
                assert (target["kind"], target["name"]) == (workload(name)["kind"], "authz")


def test_a_node_asks_itself_only_where_there_is_a_pod_on_every_node() -> None:
    for name in INSTALLS:
        local = one(rendered(name), "Service", "authz")["spec"].get("internalTrafficPolicy")
        assert (local == "Local") == (workload(name)["kind"] == "DaemonSet"), name


def test_a_node_is_never_without_a_pod_that_answers() -> None:
    assert workload("base")["spec"]["updateStrategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert {"operator": "Exists"} in pod("base")["tolerations"]


def test_only_the_mesh_and_prometheus_are_let_in_and_each_to_its_port() -> None:
    (policy,) = [
        it for it in rendered("base")
        if it["kind"] == "NetworkPolicy" and it["metadata"]["name"] == "authz"
    ]  # fmt: skip
    labels = workload("base")["spec"]["template"]["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert {rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]} == {9000, 9001}
    assert all(rule["from"] for rule in policy["spec"]["ingress"])
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_tenants_ports_without_a_filter_are_closed() -> None:
    (policy,) = [it for it in rendered("tenants") if it["kind"] == "NetworkPolicy"]
    to_all = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert [[port["port"] for port in rule["ports"]] for rule in to_all] == [[8012, 8013]]
    assert policy["spec"]["podSelector"] == {}


@pytest.mark.parametrize("name", INSTALLS)
def test_there_is_time_to_drain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(name, monkeypatch)
    patience = pod(name)["terminationGracePeriodSeconds"]
    assert patience >= found.drain_seconds + found.grace_seconds + 10  # a spare for the start of it
    # Unready, until the last sidecar knows it.
    probe = server(name)["readinessProbe"]
    assert found.drain_seconds > probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("name", INSTALLS)
def test_the_memory_is_enough_for_all_connections(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sizes of deploy/README.md: 49 KB a connection, 0.9 KB an answer, 100 MB before.

    There are up to 24,576 answers. And 120 MB for the process that reads a policy of 1 MiB, as
    much as a ConfigMap holds.
    """
    found = settings(name, monkeypatch)
    held = found.max_connections * 49e3 + found.max_buffered_bytes
    needed = 100e6 + 120e6 + 24_576 * 0.9e3 + held
    limits = server(name)["resources"]["limits"]
    assert needed * 1.2 < bytes_of(limits["memory"])
    assert "cpu" not in limits  # a throttled server denies


def test_the_image_is_this_version() -> None:
    images = {
        container["image"]
        for _, it in everything()
        for container in _containers(it)
        if container["name"] != "istio-proxy"
    }
    assert images == {f"tenant-authz:{__version__}"}
    assert f"ARG VERSION={__version__}\n" in (ROOT / "Dockerfile").read_text()


def test_no_node_needs_the_registry_for_an_image_that_it_has() -> None:
    """Kubernetes pulls an image without a tag, such as the injector's `auto`, at each start."""
    for where, it in everything():
        for container in _containers(it):
            policy = container.get("imagePullPolicy")
            assert policy == "IfNotPresent" or (policy is None and ":" in container["image"]), where


def test_a_daemonset_that_is_still_there_forbids_no_eviction() -> None:
    """Its pods count for no disruption budget, and with them among its pods none is allowed."""
    (budget,) = [
        it for it in rendered("overlays/deployment") if it["kind"] == "PodDisruptionBudget"
    ]
    selector = budget["spec"]["selector"]
    labels = workload("overlays/deployment")["spec"]["template"]["metadata"]["labels"]
    assert selector["matchLabels"].items() <= labels.items()
    # What every ReplicaSet gives its pods, and no DaemonSet.
    assert selector["matchExpressions"] == [{"key": "pod-template-hash", "operator": "Exists"}]


def test_with_fallback_a_sidecar_may_ask_another_node_s_pod_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    base = list(rendered("base"))
    service = one(tuple(base), "Service", "authz")
    changed = with_component("base", "fallback", tmp_path)
    fallback = one(tuple(changed), "Service", "authz")
    assert [it for it in changed if it not in base] == [fallback]
    assert service["spec"].pop("internalTrafficPolicy") == "Local"
    assert fallback["spec"] == service["spec"]
    preferred = {"networking.istio.io/traffic-distribution": "PreferSameNode"}
    assert fallback["metadata"]["annotations"] == preferred


@pytest.mark.parametrize("name", INSTALLS)
def test_on_openshift_no_pod_asks_for_a_user_or_group(name: str, tmp_path: Path) -> None:
    """Its `restricted-v2` admits those of the namespace's own range only, and fills them in."""
    numbers = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"}

    def asked(objects: list[Any]) -> set[str]:
        return {
            path for it in objects for path in _paths(it, "") if path.rpartition(".")[2] in numbers
        }

    assert asked(list(rendered(name)))
    changed = with_component(name, "openshift", tmp_path)
    assert not asked(changed)
    for version in VERSIONS:
        for it in changed:
            if it["kind"] not in CUSTOM:
                kubernetes_validate.validate(it, version, strict=True)


def test_the_documented_command_takes_them_out_of_the_job_too(tmp_path: Path) -> None:
    text = (DEPLOY / "components/openshift/kustomization.yaml").read_text()
    (command,) = re.findall(r"^#   (sed .*job\.yaml) \|", text, re.MULTILINE)
    done = subprocess.run(command, shell=True, cwd=DEPLOY.parent, capture_output=True, check=True)  # noqa: S602
    (tmp_path / "job.yaml").write_bytes(done.stdout)
    (job,) = load(tmp_path / "job.yaml")
    (before,) = load(DEPLOY / "keys/job.yaml")
    context = before["spec"]["template"]["spec"]["securityContext"]
    assert [context.pop(name) for name in ("runAsUser", "runAsGroup", "fsGroup")] == [65532] * 3
    assert job == before


def test_the_label_by_which_prometheus_selects_goes_where_the_comment_is(tmp_path: Path) -> None:
    """Without it, the Prometheus of its most used chart takes neither monitor nor rules."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl to render with")
    folder = shutil.copytree(DEPLOY / "observability", tmp_path / "observability")
    file = folder / "kustomization.yaml"
    text = file.read_text()
    line = "# release: kube-prometheus-stack"
    assert text.count(line) == 1
    file.write_text(text.replace(line, line.removeprefix("# ")))
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = list(YAML(typ="safe", pure=True).load_all(done.stdout))
    assert {it["kind"] for it in found} == {"ServiceMonitor", "PrometheusRule"}
    assert all(it["metadata"]["labels"]["release"] == "kube-prometheus-stack" for it in found)


# -- they are safe -----------------------------------------------------------------------------


def test_every_pod_may_run_where_pod_security_is_restricted() -> None:
    for where, it in everything():
        for spec in _pods(it):
            of_pod = spec["securityContext"]
            assert of_pod["runAsNonRoot"] is True, where
            assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
            kinds = {key for volume in spec["volumes"] for key in volume} - {"name"}
            assert kinds <= {"configMap", "secret", "projected", "emptyDir"}, where
            for container in spec["containers"]:
                context = {**of_pod, **container["securityContext"]}
                assert context["allowPrivilegeEscalation"] is False, where
                assert context["capabilities"] == {"drop": ["ALL"]}, where
                assert context["readOnlyRootFilesystem"] is True, where
                assert context["runAsUser"] > 0, where
                assert "limits" in container["resources"], where
                assert "hostPort" not in str(container.get("ports", ""))
    assert (
        one(rendered("base"), "Namespace", "authz-system")["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ]
        == "restricted"
    )


def test_no_secret_has_a_value() -> None:
    for where, it in everything():
        if it["kind"] == "Secret":
            assert not {"data", "stringData"} & set(it), where
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            assert "PRIVATE KEY-----" not in file.read_text(), file


def test_nobody_may_do_more_than_read_the_policy_and_read_or_change_the_one_secret() -> None:
    verbs = {}
    for it in rendered("base"):
        assert it["kind"] not in {"ClusterRole", "ClusterRoleBinding"}
        if it["kind"] == "Role":
            for rule in it["rules"]:
                (kind,), (name,) = rule["resources"], rule["resourceNames"]
                verbs[it["metadata"]["name"], kind, name] = set(rule["verbs"])
    assert verbs == {
        ("authz", "secrets", "tenant-authz-keys"): {"list", "watch"},
        ("authz", "configmaps", "tenant-authz-policy"): {"list", "watch"},
        ("authz-keys", "secrets", "tenant-authz-keys"): {"list", "watch", "update"},
    }


def test_the_policy_that_is_watched_is_the_one_that_is_installed() -> None:
    theirs = load_settings(Settings, {}, DEPLOY / "base/settings.yaml").policy_configmap
    assert theirs is not None
    (found,) = [it for it in rendered("base") if it["metadata"]["name"] == theirs.name]
    assert (found["kind"], found["metadata"]["namespace"]) == ("ConfigMap", theirs.namespace)
    assert theirs.key in found["data"]


def test_only_our_container_gets_a_token_of_kubernetes() -> None:
    for name in INSTALLS:
        assert pod(name)["automountServiceAccountToken"] is False
        mounted = {
            container["name"]
            for container in pod(name)["containers"]
            if "api" in {mount["name"] for mount in container.get("volumeMounts", ())}
        }
        assert mounted == {"authz"}


def _pods(it: Json) -> list[Json]:
    template = it.get("spec", {}).get("template")
    return [template["spec"]] if template else []


def _containers(it: Json) -> list[Json]:
    return [container for spec in _pods(it) for container in spec["containers"]]
