"""Puts a proxy that is played onto loopback: without root, iptables and a network of its own.

These are all the differences from what `playing` makes:

    in a pod                                    on loopback
    ------------------------------------------  ------------------------------------------------
    listeners that iptables lead to by          those that are wanted, each bound to an address
      original port, and the gateway's            of its own; others are left out
    `virtualInbound`, its chains told apart     a listener for a port's chains, without
      by original port                            `original_dst` and the match of the port
    a gateway's listener takes every name by    the same
      its port
    endpoints' addresses                        those that stand for them; endpoints without
                                                  one are left out
    `inbound|port||` and InboundPassthrough:    STATIC: the app's address
      to the original address, from 127.0.0.6
    PassthroughCluster: to the original         to the address that a header names, since no
      address                                     iptables remember one
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.lab.harness.ports import Endpoint
from authz.lab.recordings.playing import CannotPlay
from authz.lab.recordings.reading import Json

ORIGINAL_DESTINATION: Final = "x-envoy-original-dst-host"
ANY_OTHER: Final = 0
"""In place of a port: those that are in no Service."""

_PASSTHROUGH: Final = "PassthroughCluster"
_INBOUND_PASSTHROUGH: Final = "InboundPassthroughCluster"


@dataclass(frozen=True)
class Places:
    """Where on loopback things of a proxy are."""

    listeners: Mapping[str, Endpoint] = field(default_factory=dict)
    """Outbound listeners and a gateway's, by name, such as `0.0.0.0_80`."""
    inbound: Mapping[int, Endpoint] = field(default_factory=dict)
    """What takes calls to a port of the pod, or to `ANY_OTHER`."""
    apps: Mapping[int, Endpoint] = field(default_factory=dict)
    """What stands behind these."""
    endpoints: Mapping[Endpoint, Endpoint] = field(default_factory=dict)
    """Pods' addresses in the recorded world, and what stands for them."""


def on_loopback(config: Json, places: Places) -> Json:
    """The bootstrap, changed in place.

    Raises:
        CannotPlay: a listener or a port of `places` is not there.
    """
    resources = config["static_resources"]
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    if missing := places.listeners.keys() - listeners.keys():
        raise CannotPlay(f"{config['node']['id']} has no listener {', '.join(sorted(missing))}")
    resources["listeners"] = [
        *(_bound(listeners[name], at) for name, at in places.listeners.items()),
        *(_inbound(listeners["virtualInbound"], *item) for item in places.inbound.items()),
    ]
    for cluster in resources["clusters"]:
        _move(cluster, places)
    return config


def _bound(listener: Json, at: Endpoint) -> Json:
    bound = {"address": at.address, "bind_to_port": True}
    return {k: v for k, v in listener.items() if k != "use_original_dst"} | bound


def _inbound(virtual: Json, port: int, at: Endpoint) -> Json:
    chains = []
    for chain in virtual["filter_chains"]:
        match = dict(chain.get("filter_chain_match", {}))
        if match.pop("destination_port", ANY_OTHER) == port:
            chains.append({**chain, "filter_chain_match": match})
    if not chains:
        raise CannotPlay(f"virtualInbound has no filter chain for port {port}")
    inspectors = [
        it
        for it in virtual["listener_filters"]
        if it["name"] != "envoy.filters.listener.original_dst"
    ]
    taken = {"filter_chains": chains, "listener_filters": inspectors}
    return _bound({**virtual, **taken, "name": f"virtualInbound {port}"}, at)


def _move(cluster: Json, places: Places) -> None:
    name = cluster["name"]
    for locality in cluster.get("load_assignment", {}).get("endpoints", ()):
        locality["lb_endpoints"] = [*_moved(locality.get("lb_endpoints", ()), places)]
    if name == _PASSTHROUGH:
        by_header = {"use_http_header": True, "http_header_name": ORIGINAL_DESTINATION}
        cluster["original_dst_lb_config"] = by_header
    elif name == _INBOUND_PASSTHROUGH or name.startswith("inbound|"):
        port = ANY_OTHER if name == _INBOUND_PASSTHROUGH else int(name.split("|")[1])
        if port in places.apps:
            app = [{"endpoint": {"address": places.apps[port].address}}]
            for gone in ("upstream_bind_config", "cleanup_interval"):
                cluster.pop(gone, None)
            cluster |= {
                "type": "STATIC",
                "lb_policy": "ROUND_ROBIN",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": app}]},
            }


def _moved(endpoints: list[Json], places: Places) -> Iterator[Json]:
    for endpoint in endpoints:
        address = endpoint["endpoint"]["address"].get("socket_address")
        old = address and Endpoint(address["address"], address["port_value"])
        if old in places.endpoints:
            yield endpoint | {"endpoint": {"address": places.endpoints[old].address}}
