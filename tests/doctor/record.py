"""`python -m tests.doctor.record`: what istiod sends in meshes that are set up otherwise, once.

The recordings of `authz.lab` hold worlds that are played. These are only looked at: other modes of
interception, IPv6, dual stack, and objects of Istio that users put beside ours. They take the same
real control plane. Their file is `FILE`, of the form of `authz.lab.recordings`.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from authz.envoyfilters import shipped
from authz.lab import ads, agent, controlplane, nodes
from authz.lab.controlplane.versions import ETCD, ISTIO, ISTIODS, KUBERNETES
from authz.lab.recordings.reading import KINDS, Sent
from authz.lab.recordings.writing import Writer
from authz.lab.settled import settled
from authz.lab.world import attacked as worlds
from authz.lab.world import objects

Json = dict[str, Any]

FILE: Final = Path(__file__).with_name("worlds.json.xz")
COMMAND: Final = "python -m tests.doctor.record"

PODS: Final = (
    "globex/plain",
    "globex/hello",
    "istio-system/gateway",
    "knative-eventing/broker-ingress",
    "knative-eventing/imc-dispatcher",
    "knative-serving/activator",
)
EDGE, EGRESS = "globex/edge", "istio-system/egress"
"""Gateways beside Knative's: a tenant's own, and one by which the mesh is left. See `gateways`."""
_NETWORKING: Final = "networking.istio.io/v1"
_SECURITY: Final = "security.istio.io/v1"
_LOGGING: Final[Json] = {
    "accessLogFile": "/dev/stdout",
    "accessLogEncoding": "JSON",
    "enableTracing": True,
    "pathNormalization": {"normalization": "MERGE_SLASHES"},
    "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
    "h2UpgradePolicy": "UPGRADE",
}
"""Another mesh configuration, with what many have."""


def _made(version: str, kind: str, name: str, spec: Json, namespace: str = "globex") -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def users_objects() -> Iterator[Json]:
    """What tenants and platforms have beside us, and what takes nothing from isolation."""
    plain = "plain.globex.svc.cluster.local"
    yield _made(
        _NETWORKING,
        "VirtualService",
        "retried",
        {
            "hosts": [plain],
            "http": [
                {
                    "name": "old",
                    "match": [{"uri": {"exact": "/old"}, "method": {"exact": "GET"}}],
                    "redirect": {"uri": "/new"},
                },
                {"match": [{"uri": {"prefix": "/up"}}], "directResponse": {"status": 204}},
                {
                    "match": [
                        {"uri": {"regex": "/v[0-9]+/.*"}},
                        {"queryParams": {"a": {"exact": "b"}}},
                    ],
                    "rewrite": {"uri": "/", "authority": "other.example.com"},
                    "timeout": "3s",
                    "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"},
                    "fault": {"delay": {"percentage": {"value": 1}, "fixedDelay": "1s"}},
                    "corsPolicy": {
                        "allowOrigins": [{"exact": "https://a.example"}],
                        "maxAge": "1h",
                    },
                    "headers": {
                        "request": {"set": {"x-mine": "a"}, "remove": ["x-other"]},
                        "response": {"add": {"x-more": "b"}},
                    },
                    "route": [
                        {"destination": {"host": plain, "subset": "one"}, "weight": 20},
                        {"destination": {"host": plain, "subset": "two"}, "weight": 80},
                    ],
                },
                {"route": [{"destination": {"host": plain}}]},
            ],
        },
    )
    yield _made(
        _NETWORKING,
        "DestinationRule",
        "subsets",
        {
            "host": plain,
            "trafficPolicy": {
                "loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}},
                "connectionPool": {"http": {"http2MaxRequests": 100, "idleTimeout": "30s"}},
                "outlierDetection": {"consecutive5xxErrors": 5},
            },
            "subsets": [
                {"name": "one", "labels": {"app": "plain"}},
                {"name": "two", "labels": {"app": "plain"}},
            ],
        },
    )
    yield _made(
        _NETWORKING,
        "DestinationRule",
        "outside",
        {"host": "api.example.com", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}},
    )
    yield _made(
        _SECURITY,
        "AuthorizationPolicy",
        "own",
        {
            "selector": {"matchLabels": {"app": "plain"}},
            "action": "ALLOW",
            "rules": [
                {
                    "from": [{"source": {"namespaces": ["globex", "acme-web"]}}],
                    "to": [{"operation": {"methods": ["GET"], "paths": ["/a*"]}}],
                    "when": [{"key": "request.headers[x-a]", "values": ["b"]}],
                },
                {"to": [{"operation": {"ports": ["8000"]}}]},
            ],
        },
    )
    yield _made(
        _SECURITY,
        "AuthorizationPolicy",
        "never",
        {
            "action": "DENY",
            "rules": [{"to": [{"operation": {"paths": ["/never"]}}]}],
        },
    )
    yield _made(
        _NETWORKING,
        "Sidecar",
        "only",
        {
            "workloadSelector": {"labels": {"app": "plain"}},
            "ingress": [
                {
                    "port": {"number": 8000, "protocol": "HTTP", "name": "http"},
                    "defaultEndpoint": "127.0.0.1:8000",
                },
                {
                    "port": {"number": 7000, "protocol": "TCP", "name": "tcp"},
                    "defaultEndpoint": "127.0.0.1:7000",
                },
            ],
            "egress": [{"hosts": ["./*", "authz-system/*", "istio-system/*", "acme-web/*"]}],
        },
    )


def gateways() -> Iterator[Json]:
    """What makes gateways of `EDGE` and `EGRESS`."""
    plain = "plain.globex.svc.cluster.local"
    yield _made(
        _NETWORKING,
        "Gateway",
        "edge",
        {
            "selector": {"istio": "edge"},
            "servers": [
                {
                    "port": {"number": 8080, "name": "http", "protocol": "HTTP"},
                    "hosts": ["shop.example.net"],
                },
                {
                    "port": {"number": 8443, "name": "https", "protocol": "HTTPS"},
                    "hosts": ["shop.example.net"],
                    "tls": {"mode": "SIMPLE", "credentialName": "shop"},
                },
                {
                    "port": {"number": 8444, "name": "clients", "protocol": "HTTPS"},
                    "hosts": ["clients.example.net"],
                    "tls": {"mode": "MUTUAL", "credentialName": "clients"},
                },
            ],
        },
    )
    yield _made(
        _NETWORKING,
        "VirtualService",
        "edge",
        {
            "hosts": ["shop.example.net", "clients.example.net"],
            "gateways": ["edge"],
            "http": [
                {
                    "match": [{"uri": {"prefix": "/shop"}}],
                    "rewrite": {"uri": "/"},
                    "route": [{"destination": {"host": plain, "port": {"number": 80}}}],
                },
            ],
        },
    )
    yield _made(
        _NETWORKING,
        "Gateway",
        "egress",
        {
            "selector": {"istio": "egress"},
            "servers": [
                {
                    "port": {"number": 8443, "name": "tls", "protocol": "HTTPS"},
                    "hosts": ["api.example.com"],
                    "tls": {"mode": "ISTIO_MUTUAL"},
                },
            ],
        },
        "istio-system",
    )
    yield _made(
        _NETWORKING,
        "VirtualService",
        "egress",
        {
            "hosts": ["api.example.com"],
            "gateways": ["istio-system/egress"],
            "http": [
                {"route": [{"destination": {"host": "api.example.com", "port": {"number": 443}}}]}
            ],
        },
        "istio-system",
    )


def gateway(node: Json, name: str) -> Json:
    """The node of a gateway's proxy at the address of another pod's."""
    namespace, _, short = name.partition("/")
    made = copy.deepcopy(node)
    metadata = made["metadata"]
    metadata |= {"NAME": short, "NAMESPACE": namespace, "WORKLOAD_NAME": short}
    metadata["LABELS"] = {"istio": short, "service.istio.io/canonical-name": short}
    metadata["SERVICE_ACCOUNT"] = short
    metadata.pop("INTERCEPTION_MODE", None)
    address = metadata["INSTANCE_IPS"]
    made["id"] = f"router~{address}~{short}.{namespace}~{namespace}.svc.cluster.local"
    made["cluster"] = f"{short}.{namespace}"
    return made


OUTSIDE: Final = _made(
    _NETWORKING,
    "ServiceEntry",
    "outside",
    {
        "hosts": ["api.example.com"],
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": [
            {"number": 443, "name": "tls", "protocol": "TLS"},
            {"number": 80, "name": "http", "protocol": "HTTP"},
        ],
    },
)
"""Applied last: istiod tells of it as a Service, which `settled` would not expect."""


def changed(node: Json, mode: str) -> Json:
    """The node of a proxy whose pod is set up otherwise."""
    node = copy.deepcopy(node)
    metadata = node["metadata"]
    address = metadata["INSTANCE_IPS"]
    six = "fd00::" + address.replace(".", ":")
    if mode == "TPROXY" and "INTERCEPTION_MODE" in metadata:
        metadata["INTERCEPTION_MODE"] = mode
    elif mode == "IPv6":
        metadata["INSTANCE_IPS"] = six
        node["id"] = node["id"].replace(address, six)
    elif mode == "dual stack":
        metadata["INSTANCE_IPS"] = f"{address},{six}"
    return node


@asynccontextmanager
async def _running() -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    async with AsyncExitStack() as stack:
        metrics, dual = (
            {"defaultProviders": {"metrics": ["prometheus"]}},
            {"ISTIO_DUAL_STACK": "true"},
        )
        plane = await stack.enter_async_context(
            controlplane.running(mesh_config=metrics, environment=dual, tell=_tell)
        )
        logging = plane.another(ISTIO, mesh_config={**metrics, **_LOGGING}, environment=dual)
        istiods = {}
        for name, it in (
            ("as it comes", plane.istiod),
            ("logging", await stack.enter_async_context(logging)),
        ):
            assert it is not None
            istiods[name] = it, await stack.enter_async_context(ads.connected(it.ads))
        yield await stack.enter_async_context(plane.api()), istiods


async def record() -> None:
    """Write `FILE`."""
    about = {
        "istio": ISTIO,
        "module": ISTIODS[ISTIO],
        "kubernetes": KUBERNETES,
        "etcd": ETCD,
        "command": COMMAND,
    }
    writer = Writer(about, await asyncio.to_thread(agent.bootstraps, ISTIO, _tell))
    world, filters = worlds.examined(), [it for it in shipped() if it["kind"] == "EnvoyFilter"]
    there: list[Json] = []
    number = 0
    async with _running() as (api, istiods):
        users = (*users_objects(), *gateways())
        for objects_name, more in (("", ()), (", users' objects", users)):
            plain = objects.rendered(world, (*shipped(), *more))
            wanted = [*plain, *filters]
            await api.replace(there, wanted)
            there = wanted
            for istiod, discovery in istiods.values():
                number += 1
                await settled(api, istiod, discovery, wanted, number)
            if more:
                await api.apply([OUTSIDE])
            for mesh, (_, discovery) in istiods.items():
                if more:
                    probe = nodes.node(world.pods["acme-web/plain"])
                    await discovery.told(probe, "outbound|443||api.example.com")
                for mode in ("REDIRECT", "TPROXY", "IPv6", "dual stack"):
                    sent = {}
                    for name in PODS:
                        node = changed(nodes.node(world.pods[name]), mode)
                        told = await discovery.sent(node)
                        sent[name] = Sent(node, *(tuple(told[kind]) for kind in KINDS))
                    for name in (EDGE, EGRESS) if more else ():
                        node = gateway(nodes.node(world.pods["mallory/plain"]), name)
                        told = await discovery.sent(changed(node, mode))
                        sent[name] = Sent(node, *(tuple(told[kind]) for kind in KINDS))
                    title = f"{mesh}, {mode}{objects_name}"
                    writer.add(title, plain, sent, filters=True, stock=True)
                    _tell(title)
    writer.write(FILE)
    _tell(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    asyncio.run(record())
