"""Nobody but the platform gets what its probes get, and no app sees one."""

from __future__ import annotations

import pytest

from authz.lab.box.istio import agent
from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.mesh import Mesh
from authz.lab.box.paths import probes
from authz.lab.box.paths.probes import PROBES, Probe
from tests.paths.conftest import in_the_box

pytestmark = in_the_box

OWN = {probe.name: probe for probe in PROBES}
EXEMPT = [
    OWN[it] for it in ("activator", "scale-to-zero", "scrape", "prometheus-9090", "prometheus-9091")
]
GOOD = {"ready", "metrics", "up"}


@pytest.mark.parametrize("probe", EXEMPT, ids=lambda it: it.name)
@pytest.mark.parametrize("who", ["globex/hello", "knative-eventing/pingsource"])
async def test_another_who_sends_the_same_is_denied(mesh: Mesh, probe: Probe, who: str) -> None:
    await mesh.forget(probe.to)
    assert await probes.made(mesh, probe, who) not in GOOD
    assert await mesh.seen(probe.to) == []


@pytest.mark.parametrize("who", ["knative-serving/activator", "monitoring/prometheus"])
async def test_an_exempt_peer_gets_nothing_else(mesh: Mesh, who: str) -> None:
    """Not the app, by no path and on no port that an app could have."""
    pod = mesh.address("hello-00001-private.acme-db")
    await mesh.forget("acme-db/hello")
    for url in (f"http://{pod}/", f"http://{pod}/healthz", f"http://{pod}:8012/metrics"):
        answer = await mesh.call(who, url)
        assert (answer.status, answer.reason) in {(403, "token-missing"), (403, "not-allowed")}
    assert await mesh.seen("acme-db/hello") == []


async def test_the_activator_found_every_revision_by_its_probes(mesh: Mesh) -> None:
    revisions = await mesh.revisions()
    assert {"acme-db/hello-00001", "globex/idle-00001"} <= revisions.keys()
    for revision in revisions.values():
        assert revision["ready"]
        assert "403" not in revision["probes"]


async def test_a_tag_probe_of_the_activator_is_only_the_gateways(mesh: Mesh) -> None:
    """What the gateway may ask of the activator, a tenant may not, though the activator answers."""
    headers = [("k-network-probe", "probe"), ("k-network-hash", "x")]
    headers.append(("user-agent", "Knative-Ingress-Probe"))
    answer = await mesh.call("globex/hello", "http://idle.acme-db/healthz", headers=headers)
    assert (answer.status, answer.reason) == (403, "not-allowed")


@pytest.mark.parametrize(
    ("path", "probe", "body"),
    [
        ("/healthz", "queue", b""),
        ("/healthz", ",activator", b""),
        ("/healthz", "activator, activator", b""),
        ("/", "activator", b""),
        ("/v2/", "", b""),
    ],
)
async def test_the_autoscalers_probe_is_that_one_and_no_other(
    mesh: Mesh, path: str, probe: str, body: bytes
) -> None:
    """Its account also asks registries, whose names a tenant chooses."""
    headers = [("user-agent", "Knative-Autoscaling-Probe"), ("k-network-probe", probe)]
    url = f"http://idle-00001.acme-db.svc.cluster.local{path}"
    await mesh.forget("acme-db/idle")
    answer = await mesh.call("knative-serving/autoscaler", url, headers=headers, body=body)
    assert (answer.status, answer.reason) == (403, "not-allowed")
    assert await mesh.seen("acme-db/idle") == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_the_autoscalers_probe_is_no_other_method_and_has_no_body(
    mesh: Mesh, method: str
) -> None:
    headers = [("user-agent", "Knative-Autoscaling-Probe"), ("k-network-probe", "activator")]
    headers += [
        ("knative-serving-namespace", "acme-db"),
        ("knative-serving-revision", "idle-00001"),
    ]
    url = "http://idle-00001.acme-db.svc.cluster.local/healthz"
    await mesh.forget("acme-db/idle")
    answer = await mesh.call(
        "knative-serving/autoscaler", url, method=method, headers=headers, body=b"something"
    )
    assert (answer.status, answer.reason) == (403, "not-allowed")
    assert await mesh.seen("acme-db/idle") == []


async def test_the_agents_port_is_not_captured_and_answers_nothing_of_the_apps(mesh: Mesh) -> None:
    before = await mesh.checks("acme-db/hello")
    await mesh.forget("acme-db/hello")
    answer = await mesh.call(
        probes.NODE, f"http://{mesh.address('acme-db/hello')}:{agent.PORT}/app-health/other"
    )
    assert answer.status == 404
    with pytest.raises(NoAnswer, match="Refused"):  # 15090: nobody listens here, and no Envoy does
        await mesh.call(probes.NODE, f"http://{mesh.address('acme-db/hello')}:15090/stats")
    assert await mesh.checks("acme-db/hello") == before
    assert await mesh.seen("acme-db/hello") == []
