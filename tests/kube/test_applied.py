"""Everything that ships is taken by a real API server and a real istiod, as the pages apply it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from authz.wire import APP_CONTAINERS, TENANT_LABEL
from tests.admission.rows import Account, Json, changed, thing
from tests.deploy.manifests import DEPLOY, ROOT, load
from tests.kube.conftest import Installed
from tests.support.processes import authz
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to apply with"),
    pytest.mark.timeout(300),
]
session = pytest.mark.asyncio(loop_scope="session")

OWN: Final = ["--server-side", "--field-manager=tenant-authz"]
HOW: Final[Mapping[str, Sequence[str]]] = {
    "deploy/platform/knative": [*OWN, "--force-conflicts"],
    "deploy/platform/istio": OWN,
    "deploy/platform/eventing": OWN,
    "deploy/tenants": ["--namespace", "shop"],
}
"""How the pages have it applied; all else by `kubectl apply -k`."""

KNOWN: Final = (
    "Warning: EnvoyFilter exposes internal implementation details",
    "Warning: duplicated egress host: istio-system/*",  # sidecars.yaml says why
    "Warning: resource sidecars/default is missing the",  # platform/istio and sidecar-scope have it
)
"""What is warned of anyhow."""

STANDS_ON: Final = {
    "deploy/components/fallback": "deploy/base",
    "deploy/components/openshift": "deploy/base",
    "deploy/components/policy-from-cluster": "deploy/base",
    "envoyfilters/components/cert-manager": "envoyfilters/base",
    "envoyfilters/components/eventing": "envoyfilters/base",
    "envoyfilters/components/reuse": "envoyfilters/base",
    "envoyfilters/components/sidecar-scope": "envoyfilters/base",
    "envoyfilters/components/strict-mtls": "envoyfilters/base",
    "envoyfilters/components/values": "envoyfilters/base",
}
"""What a component is added to."""


ACME: Final = """\
domain: apps.example.com
tenants:
  acme: {namespaces: [acme-web, acme-db], owners: ["user:ann"], domains: [acme.example]}
"""


def folders() -> list[str]:
    """Every folder with a kustomization, what others stand on first."""
    found = [
        str(file.parent.relative_to(ROOT))
        for top in ("deploy", "envoyfilters")
        for file in (ROOT / top).rglob("kustomization.yaml")
    ]
    return sorted(found, key=lambda it: (not it.endswith("/base"), it))


def test_every_component_stands_on_something() -> None:
    components = {folder for folder in folders() if _kind(folder) == "Component"}
    assert components == STANDS_ON.keys()
    assert HOW.keys() <= {*folders()}


@session
@pytest.mark.parametrize("folder", folders())
async def test_a_folder_is_applied(installed: Installed, folder: str, tmp_path: Path) -> None:
    place = _buildable(folder, tmp_path)
    done = await installed.kubectl(
        *("apply", "--validate=strict", *HOW.get(folder, ()), "-k", str(place))
    )
    assert done.returncode == 0, done.stderr
    assert _unknown(done.stderr) == []  # what is deprecated or misspelled is told there
    for given in await _rendered(installed, place):
        if folder == "deploy/tenants":
            given["metadata"]["namespace"] = "shop"
        assert [*_lost(given, await installed.get(given))] == []
    if folder.startswith("envoyfilters/overlays/"):
        file = ROOT / "envoyfilters" / "rendered" / f"{place.name}.yaml"
        again = await installed.kubectl("apply", "--validate=strict", "-f", file)
        assert again.returncode == 0
        assert [line for line in again.stdout.splitlines() if not line.endswith(" unchanged")] == []


@session
async def test_the_admission_policies_can_be_taken_back(installed: Installed) -> None:
    """And are, or other tests here would meet them; `tests/admission` is about them."""
    done = await installed.kubectl("delete", "-k", str(DEPLOY / "platform" / "admission"))
    assert (done.returncode, done.stderr) == (0, "")
    space = thing("v1", "Namespace", "refused-before", None)
    labelled = changed(space, {"metadata labels": {TENANT_LABEL: "another"}})

    async def taken() -> bool:
        return not await installed.create(labelled)

    assert await eventually(taken, "no policy counts any more")


@session
async def test_what_knative_says_itself_stays_beside_what_the_platform_sets(
    installed: Installed,
) -> None:
    folder = "deploy/platform/knative"
    done = await installed.kubectl("apply", *HOW[folder], "-k", str(ROOT / folder))
    assert done.returncode == 0, done.stderr
    for name in ("controller", "activator"):
        found = await installed.get(thing("apps/v1", "Deployment", name, "knative-serving"))
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert container["image"].startswith("ko://knative.dev/serving/cmd/")
        assert "SYSTEM_NAMESPACE" in {it["name"] for it in container["env"]}
    config = await installed.get(thing("v1", "ConfigMap", "config-autoscaler", "knative-serving"))
    assert config["data"].keys() > {"_example", "target-burst-capacity"}


@session
async def test_a_tenant_that_is_rendered_is_taken(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(ACME)
    given = authz("tenant", "render", "acme", "--file", str(tmp_path / "tenants.yaml"))
    assert given.returncode == 0, given.stderr
    done = await installed.kubectl(
        *("apply", "--validate=strict", *OWN, "--force-conflicts", "-f", "-"), given=given.stdout
    )
    assert done.returncode == 0, done.stderr
    assert _unknown(done.stderr) == []
    kinds = {it["kind"] for it in YAML(typ="safe", pure=True).load_all(given.stdout)}
    assert kinds >= {"Namespace", "ResourceQuota", "Role", "Sidecar", "Gateway", "Certificate"}


@session
async def test_the_filters_can_be_uninstalled(installed: Installed) -> None:
    folder = ROOT / "envoyfilters" / "overlays" / "enforce"
    await installed.kubectl("apply", "-k", str(folder))
    done = await installed.kubectl("delete", "-k", str(folder))
    assert (done.returncode, _unknown(done.stderr)) == (0, [])
    for it in await _rendered(installed, folder):
        assert not await installed.there(it)


# ---- pods ----

CONTROLLER: Final = Account("system:masters-controller", ("system:masters",))


@session
@pytest.mark.parametrize(
    "folder", ["deploy/base", "deploy/overlays/deployment", "deploy/overlays/xfcc"]
)
async def test_its_pods_are_admitted_and_have_what_the_injector_adds(
    installed: Installed, folder: str
) -> None:
    """The namespace is `restricted`: what the injector makes of the pod must be so, too."""
    pod = await _pod(installed, folder)
    answer = await installed.send("POST", _PODS, CONTROLLER, pod, params={"dryRun": "All"})
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    containers = {it["name"]: it for it in (*spec["containers"], *spec.get("initContainers", ()))}
    agent = containers["istio-proxy"]
    assert agent["image"] == "registry.test/istio/proxyv2:dev"
    if folder != "deploy/overlays/xfcc":  # there, the injector's own container is Envoy
        assert agent["imagePullPolicy"] == "IfNotPresent"
        assert "sidecar" not in agent["args"] or "istio-init" not in containers


@session
async def test_the_injector_tells_a_sidecar_the_containers_of_its_pod(
    installed: Installed,
) -> None:
    """By which `verify` tells a pod with queue-proxy, which answers probes itself."""
    pod = await _pod(installed, "deploy/overlays/xfcc")
    (ours,) = (it for it in pod["spec"]["containers"] if it["name"] != "istio-proxy")
    names = "user-container", "queue-proxy"
    pod["spec"]["containers"] = [{**ours, "name": name, "ports": []} for name in names]
    answer = await installed.send("POST", _PODS, CONTROLLER, pod, params={"dryRun": "All"})
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    containers = {it["name"]: it for it in (*spec["containers"], *spec.get("initContainers", ()))}
    told = {it["name"]: it.get("value") for it in containers["istio-proxy"]["env"]}
    assert told[APP_CONTAINERS] == ",".join(names)


@session
async def test_a_pod_that_may_do_more_is_not_admitted(installed: Installed) -> None:
    pod = await _pod(installed, "deploy/base")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    answer = await installed.send("POST", _PODS, CONTROLLER, pod, params={"dryRun": "All"})
    assert answer.status_code == 403
    assert 'violates PodSecurity "restricted' in answer.json()["message"]


# ---- the tests above can fail ----


@session
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failure_mode_alow": True}, 'unknown field "failure_mode_alow"'),
        ({"failure_mode_allow": "often"}, "ExtAuthz: json: cannot unmarshal string"),
    ],
)
async def test_istiod_reads_what_a_filter_puts_in(
    installed: Installed, change: Json, said: str
) -> None:
    sign = _document("sign.yaml")
    sign["spec"]["configPatches"][0]["patch"]["value"]["typed_config"] |= change
    done = await installed.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(sign))
    assert said in "".join(_unknown(done.stderr))


@session
async def test_a_misspelled_field_is_refused(installed: Installed) -> None:
    sign = _document("sign.yaml")
    sign["spec"]["priorty"] = 10
    done = await installed.kubectl(
        *("create", "--validate=strict", "--dry-run=server", "-f", "-"), given=json.dumps(sign)
    )
    assert done.returncode == 1
    assert 'unknown field "spec.priorty"' in done.stderr


def test_what_the_server_lost_is_seen() -> None:
    given = {"a": {"b": [1, {"c": 2}]}, "d": 1}
    assert [*_lost(given, {"a": {"b": [1, {"c": 2, "e": 3}]}, "d": 1, "f": 1})] == []
    assert [*_lost(given, {"a": {"b": [1, {}]}, "d": 2})] == ["a.b.1.c", "d"]


# ---- helpers ----


def _unknown(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith(KNOWN)]


_PODS: Final = "/api/v1/namespaces/authz-system/pods"


def _kind(folder: str) -> str:
    (it,) = load(ROOT / folder / "kustomization.yaml")
    return str(it["kind"])


def _buildable(folder: str, tmp_path: Path) -> Path:
    """The folder, or one that adds it to what it stands on."""
    if _kind(folder) != "Component":
        return ROOT / folder
    for top in ("deploy", "envoyfilters"):
        shutil.copytree(ROOT / top, tmp_path / top)
    own = tmp_path / "own"
    own.mkdir()
    lines = f"resources: [../{STANDS_ON[folder]}]\ncomponents: [../{folder}]\n"
    (own / "kustomization.yaml").write_text(lines)
    return own


async def _rendered(installed: Installed, folder: Path) -> list[Json]:
    done = await installed.kubectl("kustomize", str(folder))
    return [it for it in YAML(typ="safe", pure=False).load_all(done.stdout) if it]


def _lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where what was given is not there; what the server adds is no loss."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from _lost(value, kept.get(key), f"{path}.{key}".removeprefix("."))
    elif _named(given) and _named(kept):  # applied by the server, they are merged
        names = {it["name"]: it for it in kept}
        for it in given:
            yield from _lost(it, names.get(it["name"]), f"{path}.{it['name']}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, pair in enumerate(zip(given, kept, strict=True)):
            yield from _lost(*pair, f"{path}.{number}")
    elif given != kept and not (given in ({}, [], None) and kept is None):
        yield path


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(it, dict) and "name" in it for it in value)


async def _pod(installed: Installed, folder: str) -> Json:
    """A pod as a controller makes it of the workload's template."""
    objects = await _rendered(installed, ROOT / folder)
    (workload,) = (it for it in objects if it["kind"] in {"DaemonSet", "Deployment"})
    made: Json = {"apiVersion": "v1", "kind": "Pod", **workload["spec"]["template"]}
    made["metadata"] |= {"name": "authz-1", "namespace": "authz-system"}
    return made


def _document(name: str) -> Json:
    (it,) = load(ROOT / "envoyfilters" / "base" / name)
    return it
