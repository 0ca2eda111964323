"""Envoy in the part of an app: listeners and clusters that are none of istiod's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.lab.harness.ports import Endpoint
from authz.lab.world.model import Json

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"


def listener(name: str, at: Endpoint, routes: Sequence[Json], **of_all: object) -> Json:
    """Takes HTTP in plaintext, for any Host; `of_all` are more fields of its virtual host."""
    router = {"@type": f"{_FILTERS}.http.router.v3.Router"}
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": list(routes), **of_all}]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    network_filter = "envoy.filters.network.http_connection_manager"
    chain = {"filters": [{"name": network_filter, "typed_config": manager}]}
    return {"name": name, "address": at.address, "filter_chains": [chain]}


def cluster(name: str, to: Endpoint) -> Json:
    """One endpoint, in plaintext."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": to.address}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}
