"""Wait until istiod knows what is in the API server, by asking it.

First it must name every object in the version that the API server has, and every endpoint with the
account of its pod. Then one more object is applied, which only one namespace sees: once istiod
tells a proxy of that namespace, whatever it tells anybody is made of all that was there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import httpx

from authz.demo.istio.world import DOMAIN, Pod
from authz.lab import ads, nodes, objects
from authz.lab.controlplane import Istiod
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import namespace

Json = dict[str, Any]
Versions = dict[tuple[str, str, str], str]
"""By kind, namespace and name."""

_NAMESPACE: Final = "settled"
_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_OWN: Final = {"GatewayClass"}
"""What istiod itself puts into the API server."""
_CORE: Final = {"Namespace", "ServiceAccount", "Pod", "EndpointSlice", "Service"}


class NotSettled(TimeoutError):
    """istiod did not come to know something in time."""


async def settled(
    api: Api, istiod: Istiod, discovery: ads.Discovery, there: Iterable[Json], number: int
) -> None:
    """Wait until istiod knows all that is `there`, and nothing else.

    Args:
        api: the API server that it watches.
        istiod: whom to ask.
        discovery: its client.
        there: what has been applied, as `objects.rendered` has it.
        number: another one each time.

    Raises:
        NotSettled: it does not in a minute.
    """
    there = list(there)
    versions = await _versions(api, there)
    async with httpx.AsyncClient(base_url=istiod.http, trust_env=False, timeout=_SECONDS) as http:
        missing: Any = "everything"
        try:
            async with asyncio.timeout(_SECONDS):
                while True:
                    if not (missing := await _missing(http, versions, there)):
                        break
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NotSettled(f"{istiod.name} does not know: {missing}") from None
    host = f"number-{number}.settled.invalid"
    await api.apply([namespace(_NAMESPACE), _sentinel(host)])
    proxy = nodes.node(Pod(_NAMESPACE, "sentinel", "10.244.255.1"))
    await discovery.told(proxy, f"outbound|80||{host}")


async def _missing(http: httpx.AsyncClient, versions: Versions, there: list[Json]) -> Any:
    """What istiod does not know yet, or still; empty if it knows what is there."""
    known: Versions = {}
    for it in (await http.get("/debug/configz")).json():
        if it["metadata"].get("namespace") != _NAMESPACE and it["kind"] not in _OWN:
            known[objects.key(it)] = it["metadata"].get("resourceVersion")
    for it in (await http.get("/debug/registryz")).json():
        name = ("Service", it["Attributes"]["Namespace"], it["Attributes"]["Name"])
        if name[1] not in {_NAMESPACE, "default"} and "ResourceVersion" in it:
            known[name] = it["ResourceVersion"]
    if known != versions:
        return sorted(set(versions.items()) ^ set(known.items()))
    shards = (await http.get("/debug/endpointShardz")).json()
    return _endpoints(there) - _known_endpoints(shards)


async def _versions(api: Api, there: list[Json]) -> Versions:
    """Which version the API server has of each object that istiod tells of."""
    told = [it for it in there if it["kind"] not in _CORE - {"Service"}]
    kinds = {(it["apiVersion"], it["kind"]) for it in told}
    names = {objects.key(it) for it in told}
    found: Versions = {}
    for version, kind in kinds:
        example = next(it for it in told if (it["apiVersion"], it["kind"]) == (version, kind))
        path = await api.path(example)
        plural = path.rstrip("/").split("/")[-2]
        base = path.split("/namespaces/")[0]
        for it in (await api.read(f"{base}/{plural}"))["items"]:
            name = kind, it["metadata"].get("namespace", ""), it["metadata"]["name"]
            if name in names:
                found[name] = it["metadata"]["resourceVersion"]
    return found


def _endpoints(there: list[Json]) -> set[tuple[str, str, int, bool]]:
    """Host, address and port of each endpoint, and whether a pod of its namespace is behind it."""
    services = {objects.key(it) for it in there if it["kind"] == "Service"}
    found = set()
    for it in there:
        space, name = it["metadata"].get("namespace"), it["metadata"]["name"]
        if it["kind"] == "EndpointSlice" and ("Service", space, name) in services:
            for endpoint in it["endpoints"]:
                near = endpoint["targetRef"]["namespace"] == space
                for address in endpoint["addresses"]:
                    for port in it["ports"]:
                        host = f"{name}.{space}.svc.{DOMAIN}"
                        found.add((host, address, port["port"], near))
    return {it for it in found if it[3]}


def _known_endpoints(shards: Json) -> set[tuple[str, str, int, bool]]:
    return {
        (host, address, endpoint["EndpointPort"], True)
        for host, spaces in shards.items()
        for space in spaces.values()
        for endpoints in space["Shards"].values()
        for endpoint in endpoints or ()
        if endpoint["ServiceAccount"]
        for address in endpoint["Addresses"]
    }


def _sentinel(host: str) -> Json:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "sentinel", "namespace": _NAMESPACE},
        "spec": {
            "hosts": [host],
            "exportTo": ["."],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "NONE",
        },
    }
