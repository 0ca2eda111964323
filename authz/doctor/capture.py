"""Ways into a pod that lead past its proxy, or without proof of who calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.doctor.dump import Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import chains

INBOUND: Final = "virtualInbound"
_PAST_US: Final = (
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/excludeInterfaces",
    "traffic.sidecar.istio.io/includeInboundPorts",
)


def capture(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What of a sidecar's pod is not captured, or is open to callers without an identity."""
    if workload.proxy.kind != "sidecar":
        return
    yield from _intercepted(workload)
    yield from _plaintext(workload, expected)


def _intercepted(workload: Workload) -> Iterator[Finding]:
    inbound = [it for it in workload.listeners if it["name"] == INBOUND]
    if not inbound:
        what = f"there is no listener {INBOUND}: connections go to the app itself"
        yield Finding(workload.name, "listeners", what, Rule.NO_CAPTURE)
    for listener in inbound:
        restores = any("original_dst" in it["name"] for it in listener.get("listener_filters", ()))
        if not (restores or listener.get("use_original_dst")):
            what = "it does not restore the port that was called, so chains by port do not count"
            yield Finding(workload.name, f"listener {INBOUND}", what, Rule.NO_CAPTURE)
    mode = workload.metadata.get("INTERCEPTION_MODE")
    if mode == "NONE" or workload.annotations.get("sidecar.istio.io/interceptionMode") == "NONE":
        what = "its interception mode is NONE"
        yield Finding(workload.name, "pod", what, Rule.NO_CAPTURE)
    for name in _PAST_US:
        value = workload.annotations.get(name, "").strip()
        if value and value != "*":
            yield Finding(workload.name, "pod", f"annotation {name}: {value}", Rule.EXCLUDED_PORT)


def _plaintext(workload: Workload, expected: Expected) -> Iterator[Finding]:
    if workload.proxy.namespace in expected.plaintext:
        return
    on_purpose = {
        int(port)
        for policy in expected.selected("PeerAuthentication", workload.proxy)
        for port, mtls in policy["spec"].get("portLevelMtls", {}).items()
        if mtls["mode"] in {"PERMISSIVE", "DISABLE"}
    }
    for listener in workload.listeners:
        if listener.get("traffic_direction") != "INBOUND":
            continue
        for label, chain in chains(listener):
            port = chain.get("filter_chain_match", {}).get("destination_port")
            if "transport_socket" in chain or port in on_purpose or _is_black_hole(chain):
                continue
            what = "it takes callers that prove no identity of the mesh"
            where = f"listener {listener['name']}, {label}"
            yield Finding(workload.name, where, what, Rule.PLAINTEXT)


def _is_black_hole(chain: Json) -> bool:
    clusters = [it.get("typed_config", {}).get("cluster") for it in chain.get("filters", ())]
    return "BlackHoleCluster" in clusters
