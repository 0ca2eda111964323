"""Ways into a pod that lead past its proxy, or without proof of who calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from authz.doctor.dump import AGENT_PORTS, Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import INBOUND, labelled

_HARMLESS: Final = {
    "traffic.sidecar.istio.io/excludeInboundPorts": {"", *map(str, AGENT_PORTS)},
    "traffic.sidecar.istio.io/excludeInterfaces": {""},
    "traffic.sidecar.istio.io/includeInboundPorts": {"*"},  # nothing at all means no port
    # Of such an interface iptables take what arrives for what leaves: it passes no filter chain of
    # what arrives (istio/istio tools/istio-iptables/pkg/capture/run.go).
    "istio.io/reroute-virtual-interfaces": {""},
    "traffic.sidecar.istio.io/kubevirtInterfaces": {""},  # its older name
}
"""What may stand there: the injector itself writes that all is captured but the agent."""
_MODE: Final = "sidecar.istio.io/interceptionMode"
_REVISION: Final = "serving.knative.dev/revision"
_QUEUE_PORTS: Final = frozenset({8012, 8013})


def capture(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What of a sidecar's pod is not captured, or is open to callers without an identity."""
    if workload.proxy.kind != "sidecar":
        return
    yield from _intercepted(workload, expected)
    yield from _plaintext(workload, expected)
    yield from _cold_start(workload, expected)


def _intercepted(workload: Workload, expected: Expected) -> Iterator[Finding]:
    inbound = [listener for listener in workload.listeners if listener["name"] == INBOUND]
    if not inbound:
        what = f"there is no listener {INBOUND}: connections go to the app itself"
        yield Finding(workload.name, "listeners", what, Rule.NO_CAPTURE)
    said = dict(workload.annotations)
    if workload.metadata.get("INTERCEPTION_MODE") == "NONE":
        said[_MODE] = "NONE"
    yield from annotated(workload.name, said, expected)


def annotated(name: str, annotations: Mapping[str, str], expected: Expected) -> Iterator[Finding]:
    """What a pod's annotations lead past its proxy, be it by its proxy or by the API server."""
    if annotations.get(_MODE) == "NONE":
        yield Finding(name, "pod", "its interception mode is NONE", Rule.NO_CAPTURE)
    if name.partition("/")[0] in expected.own_namespaces:
        return  # our pods shut what they let past the proxy themselves
    for key in sorted(_HARMLESS.keys() & annotations.keys()):
        values = map(str.strip, str(annotations[key]).split(","))
        if past := [value for value in values if value not in _HARMLESS[key]]:
            what = f"annotation {key}: {', '.join(past)}"
            yield Finding(name, "pod", what, Rule.EXCLUDED_PORT)


def _plaintext(workload: Workload, expected: Expected) -> Iterator[Finding]:
    if workload.proxy.namespace in expected.plaintext:
        return
    on_purpose = {
        int(port)
        for policy in expected.selected("PeerAuthentication", workload.proxy)
        for port, mtls in policy["spec"].get("portLevelMtls", {}).items()
        if mtls["mode"] in {"PERMISSIVE", "DISABLE"}
    }
    for where, port in _open(workload):
        if port not in on_purpose:
            what = "it takes callers that prove no identity of the mesh"
            yield Finding(workload.name, where, what, Rule.PLAINTEXT)


def _cold_start(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """Whether Knative's activator is misled by a pod that takes plaintext and answers 403."""
    if _REVISION not in workload.proxy.labels or expected.mesh_mode == "enabled":
        return
    if ports := sorted({port for _, port in _open(workload) if port in _QUEUE_PORTS}):
        mode = expected.mesh_mode or "not known here"
        what = f"ports {ports} take plaintext, and Knative's mesh-compatibility-mode is {mode}"
        yield Finding(workload.name, "pod", what, Rule.COLD_START)


def _open(workload: Workload) -> Iterator[tuple[str, int | None]]:
    """Chains that take callers without an identity of the mesh: where, and for which port."""
    for listener in workload.listeners:
        if listener.get("traffic_direction") != "INBOUND":
            continue
        for label, chain in labelled(listener):
            if "transport_socket" not in chain and not _is_black_hole(chain):
                port = chain.get("filter_chain_match", {}).get("destination_port")
                yield f"listener {listener['name']}, {label}", port


def _is_black_hole(chain: Json) -> bool:
    clusters = [it.get("typed_config", {}).get("cluster") for it in chain.get("filters", ())]
    return "BlackHoleCluster" in clusters
