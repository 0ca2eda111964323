"""The same dump with less of what is alike: quicker to examine, and as sound."""

from __future__ import annotations

from tests.doctor.proxies import Json

_LISTENERS = frozenset({"virtualInbound", "virtualOutbound", "0.0.0.0_80"})
_CLUSTERS = (
    "outbound|9000||authz.authz-system",
    "outbound|80||hello-00001.globex",
    "outbound|80||knative-local-gateway",
)


def small(dump: Json) -> Json:
    """Cut down in place: one outbound listener of each kind, one Service, two hosts a route."""
    _, clusters, listeners, routes = dump["configs"]
    every = listeners["dynamic_listeners"]
    if any(it["name"] == "virtualInbound" for it in every):
        tcp = next(it["name"] for it in every if it["name"].endswith("_443"))
        every[:] = [it for it in every if it["name"] in {*_LISTENERS, tcp}]
    active = clusters["dynamic_active_clusters"]
    active[:] = [
        it
        for it in active
        if not (name := it["cluster"]["name"]).startswith("outbound|") or name.startswith(_CLUSTERS)
    ]
    referred = str(every)
    delivered = routes["dynamic_route_configs"]
    delivered[:] = [it for it in delivered if f"'{it['route_config']['name']}'" in referred]
    for it in delivered:
        hosts = it["route_config"]["virtual_hosts"]
        hosts[:] = hosts[:1] + hosts[-1:]
    return dump
