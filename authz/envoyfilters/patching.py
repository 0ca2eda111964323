"""istiod's rules: what a list of patches makes of a proxy's listeners and clusters.

Those of istiod 1.30, pilot/pkg/networking/core/envoyfilter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Final

from authz.envoyfilters.envoyfilter import Patch, Proxy
from authz.envoyfilters.merge import CannotMerge, Json, merged, merged_any

_VIRTUAL: Final = frozenset({"virtualInbound", "virtualOutbound"})
_MANAGER: Final = "envoy.filters.network.http_connection_manager"


# ---- listeners ----


def patched_listeners(
    proxy: Proxy, listeners: Iterable[Json], patches: Sequence[Patch]
) -> list[Json]:
    """The listeners after `patches`, with what they add.

    Raises:
        CannotMerge: a merge that cannot be told from JSON.
    """
    patched = (_listener(proxy, listener, patches) for listener in listeners)
    added = [
        deepcopy(patch.value)
        for context in _contexts(proxy)
        for patch in _of("LISTENER", patches)
        if patch.operation == "ADD" and _adds(patch, context)
    ]
    return [listener for listener in patched if listener is not None] + added


def _listener(proxy: Proxy, listener: Json, patches: Sequence[Patch]) -> Json | None:
    """The listener, `None` if it is removed."""
    context = _context_of(proxy, listener)
    if context is None:
        return listener
    here = [it for it in patches if it.meant_for(context) and _matches_listener(it, listener)]
    for patch in _of("LISTENER", here):
        if patch.operation == "REMOVE":
            return None
        if patch.operation == "MERGE":
            listener = merged(listener, patch.value)
    chains = [_chain(listener, chain, here) for chain in listener.get("filter_chains", [])]
    added = [it.value for it in _of("FILTER_CHAIN", here) if it.operation == "ADD"]
    kept = [chain for chain in chains if chain is not None]
    result = {**listener, "filter_chains": [*kept, *deepcopy(added)]}
    if "default_filter_chain" in listener:
        default = _chain(listener, result.pop("default_filter_chain"), here)
        result |= {} if default is None else {"default_filter_chain": default}
    return result


def _chain(listener: Json, chain: Json, patches: Sequence[Patch]) -> Json | None:
    """The filter chain, `None` if it is removed."""
    here = [patch for patch in patches if _matches_chain(patch, listener, chain)]
    for patch in _of("FILTER_CHAIN", here):
        if patch.operation == "REMOVE":
            return None
        if patch.operation == "MERGE":
            chain = _merged_with_socket(chain, patch.value)
    on_network = list(_of("NETWORK_FILTER", here))
    network_filters = _changed(chain.get("filters", []), on_network, lambda it: it.network_filter)
    on_http = list(_of("HTTP_FILTER", here))
    return {**chain, "filters": [_network_filter(it, on_http) for it in network_filters]}


def _network_filter(network_filter: Json, patches: Sequence[Patch]) -> Json:
    """The network filter; if it manages HTTP, with its HTTP filters patched."""
    if network_filter["name"] != _MANAGER:
        return network_filter
    here = [patch for patch in patches if patch.network_filter in {None, _MANAGER}]
    manager = network_filter["typed_config"]
    http_filters = _changed(manager.get("http_filters", []), here, lambda it: it.http_filter)
    return {**network_filter, "typed_config": {**manager, "http_filters": http_filters}}


def _changed(
    filters: Iterable[Json], patches: Sequence[Patch], anchor: Callable[[Patch], str | None]
) -> list[Json]:
    """A list of filters, first inserted into and removed from in order, then merged into."""
    result = list(filters)
    for patch in patches:
        _change(result, patch, anchor(patch))
    for patch in patches:
        if patch.operation == "MERGE":
            wanted = anchor(patch)
            result = [
                _merged_filter(it, patch.value) if wanted in {None, it["name"]} else it
                for it in result
            ]
    return result


def _change(filters: list[Json], patch: Patch, anchor: str | None) -> None:
    """Insert, replace or remove one filter; relative to one that is not there, do nothing."""
    names = [it["name"] for it in filters]
    at = names.index(anchor) if anchor in names else None
    value = deepcopy(patch.value)
    match patch.operation:
        case "INSERT_FIRST":
            filters.insert(0, value)
        case "ADD":  # wherever its match points: behind the last one
            filters.append(value)
        case "INSERT_BEFORE" if anchor is None:
            filters.insert(0, value)
        case "INSERT_AFTER" if anchor is None:
            filters.append(value)
        case "INSERT_BEFORE" if at is not None:
            filters.insert(at, value)
        case "INSERT_AFTER" if at is not None:
            filters.insert(at + 1, value)
        case "REPLACE" if at is not None:
            filters[at] = value
        case "REMOVE" if anchor is not None:
            filters[:] = [it for it in filters if it["name"] != anchor]


def _merged_filter(target: Json, patch: Json) -> Json:
    """Both names and configurations; a filter without a configuration is left alone."""
    if "typed_config" not in target:
        return target
    result = {**target, "name": patch.get("name", target["name"])}
    if "typed_config" in patch:
        result["typed_config"] = merged_any(target["typed_config"], patch["typed_config"])
    return result


def _matches_listener(patch: Patch, listener: Json) -> bool:
    match = patch.listener
    if match.get("name", listener["name"]) != listener["name"]:
        return False
    if patch.apply_to != "LISTENER" and listener["name"] in _VIRTUAL:
        return True  # these two take every port: the filter chain tells which
    port = listener.get("address", {}).get("socket_address", {}).get("port_value")
    return bool(match.get("portNumber", port) == port)


def _matches_chain(patch: Patch, listener: Json, chain: Json) -> bool:
    wanted, found = patch.chain, chain.get("filter_chain_match", {})
    port = found.get("destination_port")
    if listener["name"] in _VIRTUAL and patch.listener.get("portNumber", port) != port:
        return False
    protocols = wanted.get("applicationProtocols")
    return (
        wanted.get("name", chain.get("name")) == chain.get("name")
        and wanted.get("destinationPort", port) == port
        and wanted.get("transportProtocol", found.get("transport_protocol"))
        == found.get("transport_protocol")
        and set(protocols.split(",") if protocols else ())
        <= set(found.get("application_protocols", ()))
    )


# ---- clusters ----


def patched_clusters(
    proxy: Proxy, clusters: Iterable[Json], patches: Sequence[Patch]
) -> list[Json]:
    """The clusters after `patches`, with what they add.

    Raises:
        CannotMerge: a merge that cannot be told from JSON.
    """
    on_clusters = list(_of("CLUSTER", patches))
    patched = (_cluster(proxy, cluster, on_clusters) for cluster in clusters)
    added = [
        deepcopy(patch.value)
        for context in _contexts(proxy)
        for patch in on_clusters
        if patch.operation == "ADD" and _adds(patch, context)
    ]
    return [cluster for cluster in patched if cluster is not None] + added


def _cluster(proxy: Proxy, cluster: Json, patches: Iterable[Patch]) -> Json | None:
    """The cluster, `None` if it is removed."""
    inbound = cluster["name"].startswith(("inbound|", "InboundPassthroughCluster"))
    context = "GATEWAY" if proxy.kind == "gateway" else "SIDECAR_OUTBOUND"
    if inbound:
        context = "SIDECAR_INBOUND"
    for patch in patches:
        if not (patch.meant_for(context) and _matches_cluster(patch, cluster["name"])):
            continue
        if patch.operation == "REMOVE":
            return None
        if patch.operation == "MERGE":
            cluster = _merged_with_socket(cluster, patch.value)
    return cluster


def _matches_cluster(patch: Patch, name: str) -> bool:
    if "name" in patch.cluster:
        return bool(patch.cluster["name"] == name)
    # direction|port|subset|host, or a name that has no parts
    parts = name.split("|") if name.count("|") == 3 else ["", "", "", ""]
    _, port, subset, host = parts
    wanted = patch.cluster
    return (
        str(wanted.get("portNumber", port)) == port
        and wanted.get("subset", subset) == subset
        and wanted.get("service", host) == host
    )


# ---- both ----


def _merged_with_socket(target: Json, patch: Json) -> Json:
    """`patch` merged into a cluster or filter chain.

    If both have a transport socket of one name, these are merged and, as istiod has it, nothing
    else of `patch` is.
    """
    ours, theirs = target.get("transport_socket"), patch.get("transport_socket")
    if ours is None or theirs is None:
        return merged(target, patch)
    if ours["name"] != theirs["name"]:
        raise CannotMerge(f"transport_socket: {theirs['name']} does not fit {ours['name']}")
    config = merged_any(ours["typed_config"], theirs["typed_config"])
    return {**target, "transport_socket": {**ours, "typed_config": config}}


def _of(apply_to: str, patches: Iterable[Patch]) -> Iterator[Patch]:
    return (patch for patch in patches if patch.apply_to == apply_to)


def _context_of(proxy: Proxy, listener: Json) -> str | None:
    if proxy.kind == "gateway":
        return "GATEWAY"
    direction = listener.get("traffic_direction")
    return None if direction is None else f"SIDECAR_{direction}"


def _contexts(proxy: Proxy) -> tuple[str, ...]:
    return ("GATEWAY",) if proxy.kind == "gateway" else ("SIDECAR_OUTBOUND", "SIDECAR_INBOUND")


def _adds(patch: Patch, context: str) -> bool:
    """Whether something new goes into `context`; what is for any goes in once."""
    return patch.context == context or (patch.context == "ANY" and context != "SIDECAR_INBOUND")
