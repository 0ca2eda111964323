"""What the platform asks of a pod besides its tenants' requests, and that no app ever sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from authz.lab.box.istio import agent
from authz.lab.box.istio.client import Answer, NoAnswer
from authz.lab.box.istio.mesh import GATEWAY, Mesh
from authz.lab.box.knative.callers import CALLERS
from authz.lab.box.knative.messages import Response
from authz.lab.box.paths.table import ACTIVATOR, asked_of
from authz.lab.world import cluster
from authz.lab.world.model import DOMAIN
from authz.testing import Outcome

POD: Final = "acme-db/hello"
NODE: Final = "istio-system/prober"
"""Where the kubelet and net-istio's controller call from: no sidecar, no identity."""


@dataclass(frozen=True)
class Probe:
    """A request of the platform to a pod."""

    name: str
    what: str
    """In words."""
    port: str
    caller: str
    """The pod that makes it."""
    headers: str
    """Whose headers it has, of those that `CALLERS` knows."""
    url: Callable[[Mesh], str]
    passes: str
    """Why it passes, in words."""
    expected: str
    host: str = ""
    to: str = POD
    """The pod that is asked."""


def _fixed(url: str) -> Callable[[Mesh], str]:
    return lambda _mesh: url


def _at(pod: str, rest: str) -> Callable[[Mesh], str]:
    return lambda mesh: f"http://{mesh.address(pod)}{rest}"


_QUEUE: Final = "queue-proxy answers it itself, to the activator alone"
_GATEWAYS: Final = "queue-proxy answers it itself, to the gateway alone"
_PRIVATE: Final = "hello-00001-private.acme-db"

PROBES: Final = (
    Probe(
        "readiness",
        "kubelet: readiness, by Istio's agent",
        "15020",
        NODE,
        "kubelet",
        _at(POD, f":{agent.PORT}{agent.READINESS}"),
        "not captured",
        "success",
    ),
    Probe(
        "pre-stop",
        "kubelet: preStop, by Istio's agent (1.25)",
        "15020",
        NODE,
        "kubelet",
        _at(POD, f":{agent.PORT}{agent.PRE_STOP}"),
        "not captured",
        "success",
    ),
    Probe(
        "activator",
        "activator: is the revision ready?",
        "8012",
        ACTIVATOR,
        "activator",
        lambda mesh: f"http://{mesh.address(_PRIVATE)}/healthz",
        _QUEUE,
        "ready; verify",
    ),
    Probe(
        "status",
        "net-istio: is the route ready? To the pod",
        "8080, 8012",
        NODE,
        "prober",
        _at(GATEWAY, ":8080/healthz"),
        _GATEWAYS,
        "ready; public, verify",
        host=f"hello.acme-web.{cluster.PUBLIC_DOMAIN}",
        to="acme-web/hello",
    ),
    Probe(
        "status-activator",
        "the same, to the activator",
        "8080, 8012",
        NODE,
        "prober",
        _at(GATEWAY, ":8080/healthz"),
        "the activator answers it itself, to the gateway alone",
        "ready; public, transit",
        host=f"idle.acme-web.{cluster.PUBLIC_DOMAIN}",
        to="acme-web/idle",
    ),
    Probe(
        "scale-to-zero",
        "autoscaler: is the activator in the way?",
        "8012",
        "knative-serving/autoscaler",
        "scaler",
        _fixed(f"http://idle-00001.acme-db.svc.{DOMAIN}:80/healthz"),
        "the activator answers it itself, to the autoscaler alone",
        "ready; transit",
        to="acme-db/idle",
    ),
    Probe(
        "scrape",
        "autoscaler: how many requests?",
        "9090",
        "knative-serving/autoscaler",
        "autoscaler",
        _fixed(f"http://{_PRIVATE}.svc.{DOMAIN}:9090/metrics"),
        "Envoy knows the peer and the path; nobody is asked",
        "metrics",
    ),
    Probe(
        "prometheus-9090",
        "Prometheus: the same",
        "9090",
        "monitoring/prometheus",
        "prometheus",
        _fixed(f"http://{_PRIVATE}:9090/metrics"),
        "Envoy knows the peer and the path; nobody is asked",
        "up",
    ),
    Probe(
        "prometheus-9091",
        "Prometheus: a revision's requests",
        "9091",
        "monitoring/prometheus",
        "prometheus",
        _fixed(f"http://{_PRIVATE}:9091/metrics"),
        "an exemption in the policy",
        "up; verify",
    ),
)
"""Each by knative/serving, networking and net-istio; see `authz.lab.box.knative.callers`."""


async def played(mesh: Mesh, probe: Probe) -> Outcome:
    """Make the request; say what its sender took the answer for, and who was asked about it."""
    pods = (GATEWAY, ACTIVATOR, probe.to)
    kept = probe.port != "9090"  # there, Envoy counts as kept what needs no answer
    await mesh.forget(probe.to)
    before = await asked_of(mesh, pods, kept=kept)
    came = await made(mesh, probe, probe.caller)
    after = await asked_of(mesh, pods, kept=kept)
    asked = {key: number - before.get(key, 0) for key, number in after.items()}
    way = [
        *(["public"] * asked.get((GATEWAY, "public"), 0)),
        *(["transit"] * asked.get((ACTIVATOR, "transit"), 0)),
        *(["verify"] * asked.get((probe.to, "verify"), 0)),
    ]
    more = ["BUT THE APP SAW IT"] if await mesh.seen(probe.to) else []
    return Outcome(came).also(*more, asked=way)


async def made(mesh: Mesh, probe: Probe, caller: str) -> str:
    """The same request, from any pod; what the sender takes the answer for."""
    sent = CALLERS[probe.headers]
    host = [("host", probe.host)] if probe.host else []
    try:
        answer: Answer = await mesh.call(caller, probe.url(mesh), headers=[*sent.headers, *host])
    except NoAnswer:
        return "no answer"
    return sent.verdict(Response(answer.status, answer.headers), answer.body)
