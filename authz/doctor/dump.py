"""Reads Envoy's /config_dump: what a proxy has in force, and for which pod.

Envoy's admin.proto, `ConfigDump`: a list of dumps, each of its own type. Istio's agent writes who
the pod is into `bootstrap.node.metadata` (pkg/bootstrap, pkg/model/proxy.go of istio/istio).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from authz.envoyfilters import Proxy
from authz.errors import AuthzError

Json = dict[str, Any]

AGENT_PORTS: Final = frozenset({15020, 15021, 15090})
"""Metrics and health of Istio's agent."""

MANAGER: Final = "envoy.filters.network.http_connection_manager"
_KINDS: Final = {"sidecar": "sidecar", "router": "gateway"}
_ECDS_DUMP: Final = "EcdsConfigDump"
_READ: Final = frozenset(
    {
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "EcdsConfigDump",
        "EndpointsConfigDump",  # names of clusters decide, and whom they trust
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",  # who uses them says which they are
    }
)

_LONGEST_ERROR: Final = 200  # characters


class CannotRead(AuthzError):
    """This is no config_dump of an Istio proxy, or it cannot be had."""


@dataclass(frozen=True)
class Workload:
    """A pod, by what its proxy says."""

    name: str
    """`namespace/pod`."""
    proxy: Proxy
    listeners: tuple[Json, ...]
    """Those in force; filters that ECDS delivers are written out."""
    clusters: Mapping[str, Json]
    routes: tuple[Json, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    refused: tuple[tuple[str, str], ...] = ()
    """What istiod sent and is not in force: where, and why."""
    bootstrap: Mapping[str, Any] = field(default_factory=dict)
    started_with: tuple[Json, ...] = ()
    """Static listeners of a proxy that istiod feeds: its agent's."""
    unread: tuple[str, ...] = ()
    """Parts of the dump that are not understood."""
    is_static: bool = False
    """Whether no istiod feeds it, as in a box: all that it has is in its bootstrap."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """The pod's, as far as Istio's agent was told."""
        found = self.metadata.get("ANNOTATIONS")
        return found if isinstance(found, dict) else {}


def read_dump(text: str, source: str, *, pod: str = "") -> Workload:
    """What a config_dump says; `source` is what to call it in errors.

    Args:
        text: what the admin endpoint says.
        source: what to call it in errors.
        pod: whose it must be, `namespace/pod`, where that is known.

    Raises:
        CannotRead: it is none, not one of an Istio sidecar or gateway, or another pod's.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise CannotRead(f"{source}: no JSON; give what Envoy says under /config_dump") from None
    with of_the_form(source):
        read = _read(content, source)
    if pod and read.name != pod:
        raise CannotRead(f"{source}: its proxy says that it is {read.name}'s")
    return read


@contextmanager
def of_the_form(source: str) -> Iterator[None]:
    """Around what reads a dump: who owns a proxy may answer with anything.

    Raises:
        CannotRead: something is of another type than Envoy would write.
    """
    try:
        yield
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
        raise CannotRead(f"{source}: not the form of a config_dump ({what})") from None


def _read(content: Any, source: str) -> Workload:
    if not isinstance(content, dict) or not isinstance(content.get("configs"), list):
        raise CannotRead(f"{source}: has no `configs`; give what Envoy says under /config_dump")
    dumps: dict[str, list[Json]] = {}
    for one in content["configs"]:
        kind = str(one["@type"]).rpartition(".")[2]
        dumps.setdefault(kind, []).append(one)
    for kind in ("BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump"):
        if kind not in dumps:
            raise CannotRead(f"{source}: lacks the {kind}; dump all, without `resource` or `mask`")
    node = dumps["BootstrapConfigDump"][0]["bootstrap"].get("node", {})
    metadata = node.get("metadata", {})
    kind = str(node.get("id", "")).partition("~")[0]
    if kind not in _KINDS or "NAMESPACE" not in metadata:
        raise CannotRead(
            f"{source}: node {node.get('id', '')!r} is no sidecar or gateway of Istio; "
            "waypoints and other Envoys are not examined"
        )
    delivered = {
        it["ecds_filter"]["name"]: it["ecds_filter"]["typed_config"]
        for dump in dumps.get(_ECDS_DUMP, ())
        for it in dump.get("ecds_filters", ())
        if "ecds_filter" in it
    }
    refused: list[tuple[str, str]] = []
    dynamic = [it for dump in dumps["ListenersConfigDump"] for it in _dynamic(dump, refused)]
    static = [
        {"name": "", **listener["listener"]}
        for dump in dumps["ListenersConfigDump"]
        for listener in dump.get("static_listeners", ())
    ]
    is_static = not any("dynamic_listeners" in it for it in dumps["ListenersConfigDump"])
    listeners = [_written_out(it, delivered) for it in (static if is_static else dynamic)]
    clusters = [it for dump in dumps["ClustersConfigDump"] for it in _clusters(dump, refused)]
    routes = [it for dump in dumps.get("RoutesConfigDump", ()) for it in _routes(dump, refused)]
    name = metadata.get("NAME") or str(node["id"]).split("~")[2].partition(".")[0]
    proxy = Proxy(
        "sidecar" if kind == "sidecar" else "gateway",
        metadata["NAMESPACE"],
        dict(metadata.get("LABELS") or {}),
        metadata.get("ISTIO_VERSION", Proxy.istio_version),
    )
    return Workload(
        f"{proxy.namespace}/{name}",
        proxy,
        tuple(listeners),
        {cluster["name"]: cluster for cluster in clusters},
        tuple(routes),
        metadata,
        tuple(refused),
        dumps["BootstrapConfigDump"][0]["bootstrap"],
        () if is_static else tuple(static),
        tuple(
            sorted(
                kind
                for kind, several in dumps.items()
                if kind not in _READ and any(it.keys() - {"@type"} for it in several)
            )
        ),
        is_static,
    )


def port_of(listener: Json) -> int:
    """The port on which it listens; 0 where it has none."""
    port: int = listener.get("address", {}).get("socket_address", {}).get("port_value", 0)
    return port


def _dynamic(dump: Json, refused: list[tuple[str, str]]) -> Iterator[Json]:
    for listener in dump.get("dynamic_listeners", ()):
        _note(f"listener {listener.get('name', '')}", listener, refused)
        if "active_state" in listener:
            yield {"name": listener.get("name", ""), **listener["active_state"]["listener"]}
        elif "draining_state" not in listener:
            refused.append((f"listener {listener.get('name', '')}", "never came into force"))


def _clusters(dump: Json, refused: list[tuple[str, str]]) -> Iterator[Json]:
    for it in dump.get("static_clusters", ()):
        yield it["cluster"]
    for it in dump.get("dynamic_active_clusters", ()):
        _note(f"cluster {it['cluster']['name']}", it, refused)
        yield it["cluster"]


def _routes(dump: Json, refused: list[tuple[str, str]]) -> Iterator[Json]:
    for config in dump.get("dynamic_route_configs", ()):  # the static ones stand in listeners, too
        _note(f"routes {config.get('route_config', {}).get('name', '')}", config, refused)
        if "route_config" in config:
            yield config["route_config"]


def _note(where: str, it: Json, refused: list[tuple[str, str]]) -> None:
    if "error_state" in it:
        refused.append((where, str(it["error_state"].get("details", "no reason given"))[:300]))


def _written_out(listener: Json, delivered: Mapping[str, Json]) -> Json:
    """The listener with what ECDS delivers in the place of the reference to it."""

    def filled(one: Json) -> Json:
        if "typed_config" not in one and one.get("name") in delivered:
            one = one | {"typed_config": delivered[one["name"]]}
        typed = one.get("typed_config", {})
        if "http_filters" in typed:
            inner = [filled(it) for it in typed["http_filters"]]
            one = one | {"typed_config": typed | {"http_filters": inner}}
        return one

    def chain(one: Json) -> Json:
        return one | {"filters": [filled(it) for it in one.get("filters", ())]}

    result = listener | {"filter_chains": [chain(it) for it in listener.get("filter_chains", ())]}
    if "default_filter_chain" in listener:
        result["default_filter_chain"] = chain(listener["default_filter_chain"])
    return result
