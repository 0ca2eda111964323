"""Proxies without Envoys: what istiod and the filters make of a pod, as Envoy would dump it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from authz.doctor import Expected, Finding, examine, read_dump
from authz.envoyfilters import Patches, Proxy, shipped
from authz.lab.box.istio import cluster
from authz.lab.box.istio.box import node
from authz.lab.box.istio.istiod import Istiod
from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.world import Pod, Port, Service, World
from authz.lab.harness.certs import Authority

Json = dict[str, Any]

PLAINTEXT = ("knative-serving",)
ADMIN = "type.googleapis.com/envoy.admin.v3."


def world() -> World:
    """The box's, with what it leaves out: a webhook, and the service with a sidecar."""
    made = cluster.standard(("acme-web", "globex"))
    webhook = Pod("knative-serving", "webhook", "10.244.1.1", "controller", {"app": "webhook"})
    pods = {
        **made.pods,
        webhook.id: replace(webhook, listens=(8443,)),
        "authz-system/authz": replace(made.pods["authz-system/authz"], proxy="sidecar"),
    }
    ports = (Port(443, 8443, "tcp"),)
    service = Service("knative-serving", "webhook", "10.96.1.1", ports, (webhook.id,))
    return replace(made, pods=pods, services=(*made.services, service))


WORLD = world()


class Bench:
    """Makes dumps."""

    def __init__(self, directory: Path) -> None:
        self._sound: dict[str, Json] = {}
        self._certificate = Authority(directory).issue(WORLD.pods["outside/server"].identity)

    def dump(
        self,
        pod: str,
        documents: Iterable[Json] | None = None,
        *,
        version: str = "1.30.0",
        dynamic: bool = False,
    ) -> Json:
        """What the proxy of `pod` has in force where `documents` are installed."""
        if documents is None:
            documents = shipped()
            key = f"{pod} {version} {dynamic}"
            if key not in self._sound:
                self._sound[key] = self._made(pod, documents, version, dynamic=dynamic)
            return deepcopy(self._sound[key])
        return self._made(pod, documents, version, dynamic=dynamic)

    def _made(self, pod: str, documents: Iterable[Json], version: str, *, dynamic: bool) -> Json:
        documents = [*WORLD.documents, *documents]
        who = WORLD.pods[pod]
        routes = Routes()
        control = Istiod(WORLD, Objects(documents), self._certificate, routes)
        config = control.config(who, self._certificate)
        assert who.proxy != "none"
        proxy = Proxy(who.proxy, who.namespace, who.labels, version)
        told = Patches.of(documents).applied(proxy, config)
        resources = deepcopy(routes.written_into(told)["static_resources"])
        return as_dump(node(who, version), resources, dynamic=dynamic)


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
    made = _dump(
        who,
        {
            "static_listeners": [{"listener": _agents(port)} for port in (15090, 15021)],
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
            "dynamic_active_clusters": [
                {"cluster": {"@type": f"{typed}cluster.v3.Cluster", **it}} for it in clusters
            ]
        },
    )
    delivered: list[Json] = []
    kind = f"{ADMIN}RoutesConfigDump"
    made["configs"].append({"@type": kind, "dynamic_route_configs": delivered})
    for manager in managers(made):
        if "route_config" in manager:
            config = manager.pop("route_config")
            manager["rds"] = {"route_config_name": config["name"]}
            delivered.append({"route_config": config})
    return made


def _agents(port: int) -> Json:
    """A listener that Istio's agent puts into the bootstrap."""
    return {
        "address": {"socket_address": {"address": "::", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager"}]}],
    }


def _dump(who: Json, listeners: Json, clusters: Json) -> Json:
    return {
        "configs": [
            {"@type": f"{ADMIN}BootstrapConfigDump", "bootstrap": {"node": who}},
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
    both = [it["listener"] for it in configs.get("static_listeners", ())]
    both += [it["active_state"]["listener"] for it in configs.get("dynamic_listeners", ())]
    for it in both:
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
    every: list[Json] = [it["cluster"] for it in dump["configs"][1]["static_clusters"]]
    [found] = [it for it in every if it["name"] == name]
    return found


def examined(dump: Json, expected: Expected | None = None) -> list[Finding]:
    """What the doctor says."""
    expected = expected or Expected(shipped(), plaintext=PLAINTEXT)
    return examine(read_dump(json.dumps(dump), "a test"), expected)
