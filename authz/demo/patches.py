"""EnvoyFilters, applied to an Envoy's configuration as istiod applies them.

So the demo and the tests run exactly what `kubectl apply -k envoyfilters` installs. The rules are
those of istiod 1.30, pilot/pkg/networking/core/envoyfilter; whatever they know and this file does
not is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ruamel.yaml import YAML

from authz.demo.merge import CannotMerge, Json, merged, merged_any
from authz.demo.processes import CouldNotStart

_VIRTUAL: Final = frozenset({"virtualInbound", "virtualOutbound"})
_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_EVERYWHERE: Final = frozenset({"INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER", "ADD", "REPLACE"})
_OPERATIONS: Final = {
    "HTTP_FILTER": _EVERYWHERE | {"MERGE", "REMOVE"},
    "NETWORK_FILTER": _EVERYWHERE | {"MERGE", "REMOVE"},
    "FILTER_CHAIN": frozenset({"ADD", "MERGE", "REMOVE"}),
    "LISTENER": frozenset({"ADD", "MERGE", "REMOVE"}),
    "CLUSTER": frozenset({"ADD", "MERGE", "REMOVE"}),
}
_CONTEXTS: Final = frozenset({"ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"})


class CannotPatch(CouldNotStart):
    """An EnvoyFilter asks for what istiod refuses, or for what this file does not know."""


@dataclass(frozen=True)
class Proxy:
    """The Envoy whose configuration is patched."""

    kind: Literal["sidecar", "gateway"]
    namespace: str
    labels: Mapping[str, str]
    istio_version: str = "1.30.0"


class _Patch(NamedTuple):
    apply_to: str
    context: str
    version: re.Pattern[str] | None
    listener: Json
    cluster: Json
    operation: str
    value: Json
    where: str
    """For messages: which EnvoyFilter it stands in."""

    @property
    def chain(self) -> Json:
        match: Json = self.listener.get("filterChain", {})
        return match

    @property
    def network_filter(self) -> str | None:
        """The network filter that it refers to."""
        name: str | None = self.chain.get("filter", {}).get("name")
        return name

    @property
    def http_filter(self) -> str | None:
        """The HTTP filter that it refers to."""
        name: str | None = self.chain.get("filter", {}).get("subFilter", {}).get("name")
        return name

    def meant_for(self, context: str) -> bool:
        return self.context in {context, "ANY"}


class _EnvoyFilter(NamedTuple):
    namespace: str
    labels: Mapping[str, str]
    patches: tuple[_Patch, ...]


@dataclass(frozen=True)
class Patches:
    """EnvoyFilters in the order in which istiod applies them."""

    root_namespace: str
    _envoy_filters: tuple[_EnvoyFilter, ...]

    @classmethod
    def of(
        cls, documents: Iterable[Mapping[str, Any]], root_namespace: str = "istio-system"
    ) -> Patches:
        """Take the EnvoyFilters among Kubernetes documents.

        istiod orders them by priority, then the root namespace first, then by age. Documents have
        no age: names stand for it, as in istiod when two are of one second.

        Raises:
            CannotPatch: one uses what is unknown here.
        """
        envoy_filters = [it for it in documents if it["kind"] == "EnvoyFilter"]

        def precedence(it: Mapping[str, Any]) -> tuple[int, bool, str]:
            metadata = it["metadata"]
            name = f"{metadata['name']}.{metadata['namespace']}"
            return it["spec"].get("priority", 0), metadata["namespace"] != root_namespace, name

        return cls(root_namespace, tuple(map(_read, sorted(envoy_filters, key=precedence))))

    def applied(self, proxy: Proxy, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of `proxy` after every patch that is meant for it; `config` stays.

        On a sidecar, a listener's `traffic_direction` tells which patches are; one without it is
        not istiod's and stays as it is.

        Raises:
            CannotPatch: a merge that cannot be told from JSON.
        """
        patches = list(self._meant_for(proxy))
        result: dict[str, Any] = deepcopy(dict(config))
        resources = result["static_resources"]
        try:
            resources["listeners"] = _listeners(proxy, resources.get("listeners", []), patches)
            resources["clusters"] = _clusters(proxy, resources.get("clusters", []), patches)
        except CannotMerge as error:
            raise CannotPatch(str(error)) from None
        return result

    def _meant_for(self, proxy: Proxy) -> Iterator[_Patch]:
        for envoy_filter in self._envoy_filters:
            if envoy_filter.namespace not in {self.root_namespace, proxy.namespace}:
                continue
            if not envoy_filter.labels.items() <= proxy.labels.items():
                continue
            for patch in envoy_filter.patches:
                if patch.version is None or patch.version.search(proxy.istio_version):
                    yield patch


# ---- reading ----


def _read(document: Mapping[str, Any]) -> _EnvoyFilter:
    namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
    where, spec = f"EnvoyFilter {namespace}/{name}", document["spec"]
    _only(spec, {"priority", "workloadSelector", "configPatches"}, where)
    selector = spec.get("workloadSelector", {})
    _only(selector, {"labels"}, where)
    patches = tuple(_read_patch(it, where) for it in spec["configPatches"])
    return _EnvoyFilter(namespace, selector.get("labels", {}), patches)


def _read_patch(item: Mapping[str, Any], where: str) -> _Patch:
    _only(item, {"applyTo", "match", "patch"}, where)
    match, patch = item.get("match", {}), item["patch"]
    _only(match, {"context", "proxy", "listener", "cluster"}, where)
    _only(match.get("proxy", {}), {"proxyVersion"}, where)
    listener = match.get("listener", {})
    _only(listener, {"name", "portNumber", "filterChain"}, where)
    chain = listener.get("filterChain", {})
    known = {"name", "destinationPort", "transportProtocol", "applicationProtocols", "filter"}
    _only(chain, known, where)
    _only(chain.get("filter", {}), {"name", "subFilter"}, where)
    _only(chain.get("filter", {}).get("subFilter", {}), {"name"}, where)
    _only(match.get("cluster", {}), {"name", "service", "portNumber", "subset"}, where)
    _only(patch, {"operation", "value"}, where)  # istiod does not implement filterClass
    if match.get("context", "ANY") not in _CONTEXTS:
        raise CannotPatch(f"{where}: unknown context {match['context']}")
    if patch["operation"] not in _OPERATIONS.get(item["applyTo"], ()):
        raise CannotPatch(f"{where}: cannot {patch['operation']} a {item['applyTo']}")
    version = match.get("proxy", {}).get("proxyVersion")
    return _Patch(
        item["applyTo"],
        match.get("context", "ANY"),
        None if version is None else re.compile(version),
        listener,
        match.get("cluster", {}),
        patch["operation"],
        patch.get("value", {}),
        where,
    )


def _only(found: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := found.keys() - known:
        raise CannotPatch(f"{where}: unknown field {', '.join(sorted(unknown))}")


# ---- listeners ----


def _listeners(
    proxy: Proxy, listeners: Iterable[Json], patches: Sequence[_Patch]
) -> list[dict[str, Any]]:
    patched = (_listener(proxy, listener, patches) for listener in listeners)
    added = [
        deepcopy(patch.value)
        for context in _contexts(proxy)
        for patch in _of("LISTENER", patches)
        if patch.operation == "ADD" and _adds(patch, context)
    ]
    return [listener for listener in patched if listener is not None] + added


def _listener(proxy: Proxy, listener: Json, patches: Sequence[_Patch]) -> Json | None:
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


def _chain(listener: Json, chain: Json, patches: Sequence[_Patch]) -> Json | None:
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


def _network_filter(network_filter: Json, patches: Sequence[_Patch]) -> Json:
    """The network filter; if it manages HTTP, with its HTTP filters patched."""
    if network_filter["name"] != _MANAGER:
        return network_filter
    here = [it for it in patches if it.network_filter in {None, _MANAGER}]
    manager = network_filter["typed_config"]
    http_filters = _changed(manager.get("http_filters", []), here, lambda it: it.http_filter)
    return {**network_filter, "typed_config": {**manager, "http_filters": http_filters}}


def _changed(
    filters: Iterable[Json], patches: Sequence[_Patch], anchor: Callable[[_Patch], str | None]
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


def _change(filters: list[Json], patch: _Patch, anchor: str | None) -> None:
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


def _matches_listener(patch: _Patch, listener: Json) -> bool:
    match = patch.listener
    if match.get("name", listener["name"]) != listener["name"]:
        return False
    if patch.apply_to != "LISTENER" and listener["name"] in _VIRTUAL:
        return True  # these two take every port: the filter chain tells which
    port = listener.get("address", {}).get("socket_address", {}).get("port_value")
    return bool(match.get("portNumber", port) == port)


def _matches_chain(patch: _Patch, listener: Json, chain: Json) -> bool:
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


def _clusters(proxy: Proxy, clusters: Iterable[Json], patches: Sequence[_Patch]) -> list[Json]:
    on_clusters = list(_of("CLUSTER", patches))
    patched = (_cluster(proxy, cluster, on_clusters) for cluster in clusters)
    added = [
        deepcopy(patch.value)
        for context in _contexts(proxy)
        for patch in on_clusters
        if patch.operation == "ADD" and _adds(patch, context)
    ]
    return [cluster for cluster in patched if cluster is not None] + added


def _cluster(proxy: Proxy, cluster: Json, patches: Iterable[_Patch]) -> Json | None:
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


def _matches_cluster(patch: _Patch, name: str) -> bool:
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


def _of(apply_to: str, patches: Iterable[_Patch]) -> Iterator[_Patch]:
    return (patch for patch in patches if patch.apply_to == apply_to)


def _context_of(proxy: Proxy, listener: Json) -> str | None:
    if proxy.kind == "gateway":
        return "GATEWAY"
    direction = listener.get("traffic_direction")
    return None if direction is None else f"SIDECAR_{direction}"


def _contexts(proxy: Proxy) -> tuple[str, ...]:
    return ("GATEWAY",) if proxy.kind == "gateway" else ("SIDECAR_OUTBOUND", "SIDECAR_INBOUND")


def _adds(patch: _Patch, context: str) -> bool:
    """Whether something new goes into `context`; what is for any goes in once."""
    return patch.context == context or (patch.context == "ANY" and context != "SIDECAR_INBOUND")


# ---- what ships ----


def directory() -> Path:
    """Where the manifests are: at the root of a clone, or packed into the wheel."""
    package = Path(str(files("authz")))
    for candidate in (package / "_envoyfilters", package.parent / "envoyfilters"):
        if candidate.is_dir():
            return candidate
    raise CouldNotStart(f"no manifests beside {package}: install from a wheel or a clone")


@cache
def shipped(overlay: str = "") -> tuple[dict[str, Any], ...]:
    """Every Kubernetes document that `envoyfilters`, or one of its overlays, installs.

    They are read as rendered, see `envoyfilters/render.py`: no kustomize is needed.

    Raises:
        CouldNotStart: there is no such overlay.
    """
    file = directory() / "rendered" / f"{overlay or 'enforce'}.yaml"
    if not file.is_file():
        raise CouldNotStart(f"no overlay {overlay!r} in {directory() / 'overlays'}")
    return tuple(YAML(typ="safe").load_all(file))
