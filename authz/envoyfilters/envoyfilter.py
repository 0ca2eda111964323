"""An EnvoyFilter as this project reads it: every field that it knows, an error for all others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from authz.envoyfilters.merge import Json
from authz.errors import AuthzError

_EVERYWHERE: Final = frozenset({"INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER", "ADD", "REPLACE"})
_OPERATIONS: Final = {
    "HTTP_FILTER": _EVERYWHERE | {"MERGE", "REMOVE"},
    "NETWORK_FILTER": _EVERYWHERE | {"MERGE", "REMOVE"},
    "FILTER_CHAIN": frozenset({"ADD", "MERGE", "REMOVE"}),
    "LISTENER": frozenset({"ADD", "MERGE", "REMOVE"}),
    "CLUSTER": frozenset({"ADD", "MERGE", "REMOVE"}),
}
_CONTEXTS: Final = frozenset({"ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"})


class CannotPatch(AuthzError):
    """An EnvoyFilter is not there, asks for what istiod refuses, or for what we do not know."""


@dataclass(frozen=True)
class Proxy:
    """The Envoy whose configuration is patched."""

    kind: Literal["sidecar", "gateway"]
    namespace: str
    labels: Mapping[str, str]
    istio_version: str = "1.30.0"


class Patch(NamedTuple):
    """One of an EnvoyFilter's patches, checked."""

    apply_to: str
    context: str
    version: re.Pattern[str] | None
    listener: Json
    cluster: Json
    operation: str
    value: Json

    @property
    def chain(self) -> Json:
        """What it wants of a filter chain."""
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
        """Whether it applies to what has this context."""
        return self.context in {context, "ANY"}


class EnvoyFilter(NamedTuple):
    """One object: where it counts, for which workloads, and what it does."""

    namespace: str
    labels: Mapping[str, str]
    patches: tuple[Patch, ...]


def read(document: Mapping[str, Any]) -> EnvoyFilter:
    """Read a Kubernetes document.

    Raises:
        CannotPatch: it has a field, operation or context that is unknown here.
    """
    namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
    where, spec = f"EnvoyFilter {namespace}/{name}", document["spec"]
    _only(spec, {"priority", "workloadSelector", "configPatches"}, where)
    selector = spec.get("workloadSelector", {})
    _only(selector, {"labels"}, where)
    patches = tuple(_read_patch(patch, where) for patch in spec["configPatches"])
    return EnvoyFilter(namespace, selector.get("labels", {}), patches)


def _read_patch(item: Mapping[str, Any], where: str) -> Patch:
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
    return Patch(
        item["applyTo"],
        match.get("context", "ANY"),
        None if version is None else re.compile(version),
        listener,
        match.get("cluster", {}),
        patch["operation"],
        patch.get("value", {}),
    )


def _only(found: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := found.keys() - known:
        raise CannotPatch(f"{where}: unknown field {', '.join(sorted(unknown))}")
