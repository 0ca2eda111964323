"""Proxies without Envoys: what istiod sent to them, as Envoy would dump it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from authz.doctor import Expected, Finding, examine, read_dump
from authz.envoyfilters import Patches, shipped
from authz.lab.recordings import Files, Recordings, played
from authz.lab.recordings import worlds as recorded
from authz.lab.world import attacked as worlds

Json = dict[str, Any]

PLAINTEXT = ("knative-serving",)
ADMIN = "type.googleapis.com/envoy.admin.v3."
WORLD = worlds.examined()
_FILES = Files(Path("/etc/certs/cert.pem"), Path("/etc/certs/key.pem"))
_SECRETS = {
    "default": _FILES,
    "ROOTCA": Files(authority=Path("/etc/certs/ca.pem")),
    "kubernetes://public": _FILES,
}


class Bench:
    """Makes dumps."""

    def __init__(self) -> None:
        self._sound: dict[str, Json] = {}

    def dump(
        self,
        pod: str,
        documents: Iterable[Json] | None = None,
        *,
        version: str = "",
        dynamic: bool = False,
    ) -> Json:
        """What the proxy of `pod` has in force where `documents` are installed."""
        if documents is None:
            key = f"{pod} {version} {dynamic}"
            if key not in self._sound:
                self._sound[key] = self._made(pod, shipped(), version, dynamic=dynamic)
            return deepcopy(self._sound[key])
        return self._made(pod, [*documents], version, dynamic=dynamic)

    def _made(self, pod: str, documents: Iterable[Json], version: str, *, dynamic: bool) -> Json:
        """As xDS delivers it, or static, as it is played."""
        sent = recorded.variant(WORLD, documents)[pod]
        if version:
            metadata = {**sent.node["metadata"], "ISTIO_VERSION": version}
            sent = replace(sent, node={**sent.node, "metadata": metadata})
        sent = sent.patched(Patches.of(documents))
        if dynamic:
            kinds = {"listeners": sent.listeners, "clusters": sent.clusters, "routes": sent.routes}
            return deepcopy(as_dump(sent.node, kinds, dynamic=True))
        config = played(sent, _SECRETS)
        return deepcopy(as_dump(config["node"], config["static_resources"]))


def as_dump(who: Json, resources: Json, *, dynamic: bool = False) -> Json:
    """In the form of /config_dump: all static, or as xDS delivers it."""
    listeners, clusters = resources["listeners"], resources["clusters"]
    if not dynamic:
        return _dump(
            who,
            {"static_listeners": [{"listener": it} for it in listeners]},
            {"static_clusters": [{"cluster": it} for it in clusters]},
        )
    typed = "type.googleapis.com/envoy.config."
    kind = "router" if who["id"].startswith("router~") else "sidecar"
    started = Recordings.of().bootstraps[kind]
    static = started["static_resources"]
    made = _dump(
        who,
        {
            "static_listeners": [{"listener": it} for it in static["listeners"]],
            "dynamic_listeners": [
                {
                    "name": it["name"],
                    "active_state": {
                        "version_info": "1",
                        "listener": {"@type": f"{typed}listener.v3.Listener", **it},
                    },
                }
                for it in listeners
            ],
        },
        {
            "static_clusters": [{"cluster": cluster} for cluster in static["clusters"]],
            "dynamic_active_clusters": [
                {"cluster": {"@type": f"{typed}cluster.v3.Cluster", **it}} for it in clusters
            ],
        },
        started,
    )
    delivered = [{"route_config": route} for route in resources["routes"]]
    kind = f"{ADMIN}RoutesConfigDump"
    made["configs"].append({"@type": kind, "dynamic_route_configs": delivered})
    return made


def _dump(who: Json, listeners: Json, clusters: Json, started: Json | None = None) -> Json:
    bootstrap = {**(started or {"admin": {"address": {"pipe": {"path": "/box"}}}}), "node": who}
    return {
        "configs": [
            {"@type": f"{ADMIN}BootstrapConfigDump", "bootstrap": bootstrap},
            {"@type": f"{ADMIN}ClustersConfigDump", **clusters},
            {"@type": f"{ADMIN}ListenersConfigDump", **listeners},
        ]
    }


# ---- looking into dumps, to break them ----


def listeners(dump: Json) -> list[Json]:
    """Static ones."""
    return [it["listener"] for it in dump["configs"][2]["static_listeners"]]


def listener(dump: Json, name: str) -> Json:
    """By name."""
    [found] = [it for it in listeners(dump) if it["name"] == name]
    return found


def chains(dump: Json) -> Iterator[Json]:
    """All filter chains."""
    configs = dump["configs"][2]
    dynamic = [it["active_state"]["listener"] for it in configs.get("dynamic_listeners", ())]
    for it in dynamic or [it["listener"] for it in configs["static_listeners"]]:
        yield from it["filter_chains"]
        if "default_filter_chain" in it:
            yield it["default_filter_chain"]


def managers(dump: Json) -> Iterator[Json]:
    """All configurations that manage HTTP."""
    for chain in chains(dump):
        for it in chain["filters"]:
            if "http_filters" in it.get("typed_config", {}):
                yield it["typed_config"]


def lists(dump: Json) -> Iterator[list[Json]]:
    """All lists of filters."""
    for chain in chains(dump):
        yield chain["filters"]
    for manager in managers(dump):
        yield manager["http_filters"]


def named(dump: Json, name: str) -> list[Json]:
    """All filters of a name."""
    found = [it for several in lists(dump) for it in several if it["name"] == name]
    assert found, f"no {name} to break"
    return found


def service_cluster(dump: Json) -> Json:
    """The way to the service."""
    name = "outbound|9000||authz.authz-system.svc.cluster.local"
    every: list[Json] = [cluster["cluster"] for cluster in dump["configs"][1]["static_clusters"]]
    [found] = [it for it in every if it["name"] == name]
    return found


def examined(dump: Json, expected: Expected | None = None) -> list[Finding]:
    """What the doctor says."""
    expected = expected or Expected(shipped(), plaintext=PLAINTEXT)
    return examine(read_dump(json.dumps(dump), "a test"), expected)
