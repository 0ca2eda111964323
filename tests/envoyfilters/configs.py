"""Listeners and chains as istiod would send them, as small as can be."""

from __future__ import annotations

from typing import Any

MANAGER = "envoy.filters.network.http_connection_manager"

TCP = "envoy.filters.network.tcp_proxy"

Json = dict[str, Any]


def named(name: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": "type", **config}}


def http_chain(*names: str, **rest: Any) -> Json:
    manager = {"@type": "manager", "http_filters": [named(name) for name in names]}
    return {"filters": [{"name": MANAGER, "typed_config": manager}], **rest}


def tcp_chain(**rest: Any) -> Json:
    return {"filters": [named(TCP, stat_prefix="x")], **rest}


def listener(name: str, *chains: Json, port: int = 15006, direction: str = "INBOUND") -> Json:
    address = {"socket_address": {"address": "0.0.0.0", "port_value": port}}  # noqa: S104
    found = {"name": name, "address": address, "filter_chains": list(chains)}
    return found | ({"traffic_direction": direction} if direction else {})


def config(*listeners: Json, clusters: tuple[Json, ...] = ()) -> Json:
    return {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}
