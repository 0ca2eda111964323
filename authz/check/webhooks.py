"""Webhooks that the API server calls, and whether it gets in where their pods have sidecars.

The API server has no identity of the mesh: `tcp` denies it, unless a filter lets that port be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from authz.check.hops import mesh_is_strict
from authz.check.lines import Answer, Check, Group, ok, problem, several
from authz.check.site import ENVOY_FILTERS, PEER_AUTHENTICATIONS, SERVICES, Site
from authz.check.things import (
    Object,
    containers,
    has_proxy,
    items,
    labels,
    mapping,
    name,
    namespace,
    notes,
    part,
)
from authz.kube import Resource

_ADMISSION: Final = "admissionregistration.k8s.io"
_WITH_HOOKS: Final = (
    Resource("validatingwebhookconfigurations", _ADMISSION),
    Resource("mutatingwebhookconfigurations", _ADMISSION),
)
_CRDS: Final = Resource("customresourcedefinitions", "apiextensions.k8s.io")
_API_SERVICES: Final = Resource("apiservices", "apiregistration.k8s.io")
_EXCLUDED: Final = "traffic.sidecar.istio.io/excludeInboundPorts"


class Called(NamedTuple):
    """A Service that the API server calls."""

    namespace: str
    name: str
    port: int


async def called(site: Site) -> set[Called]:
    """Every Service that the API server calls.

    Raises:
        KubeError: they cannot be read.
    """
    found: list[object] = []
    for kind in _WITH_HOOKS:
        for it in await site.all_of(kind):
            found += [part(hook, "clientConfig", "service") for hook in items(it, "webhooks")]
    path = ("spec", "conversion", "webhook", "clientConfig", "service")
    found += [part(it, *path) for it in await site.all_of(_CRDS)]
    found += [part(it, "spec", "service") for it in await site.all_of(_API_SERVICES)]
    return {
        Called(str(it["namespace"]), str(it["name"]), int(it.get("port") or 443))
        for it in found
        if isinstance(it, dict) and "namespace" in it and "name" in it
    }


async def _reachable(site: Site) -> Answer:
    services = {(namespace(it), name(it)): it for it in await site.all_of(SERVICES)}
    filters, exceptions = await _in_force(site)
    strict = await mesh_is_strict(site)
    denied, looked = [], 0
    for hook in sorted(await called(site)):
        service = services.get((hook.namespace, hook.name))
        selector = mapping(service, "spec", "selector")
        if service is None or not selector:
            continue
        for pod in await site.pods(hook.namespace, **selector):
            port = _port_of(service, hook.port, pod)
            if not has_proxy(pod) or port is None or _excludes(pod, port):
                continue
            looked += 1
            let_be = any(_lets_be(it, pod, port) for it in filters)
            takes = not strict or any(_takes_plaintext(it, pod, port) for it in exceptions)
            if not (let_be and takes):
                denied.append(f"{hook.namespace}/{hook.name} port {port}")
                break
    if denied:
        return problem(
            f"the API server will be denied at {several(denied)}",
            "give each an EnvoyFilter and a PeerAuthentication, as the others have in "
            "envoyfilters/base/webhooks.yaml",
        )
    return ok(f"{looked} pods of webhooks have sidecars, and let the API server in")


async def _in_force(site: Site) -> tuple[list[Object], list[Object]]:
    """EnvoyFilters and PeerAuthentications: of the cluster, and before, what will be there."""
    filters = await site.all_of(ENVOY_FILTERS)
    exceptions = await site.all_of(PEER_AUTHENTICATIONS)
    if site.before:
        filters = [*filters, *(it for it in site.wanted.filters if it["kind"] == "EnvoyFilter")]
        kind = "PeerAuthentication"
        exceptions = [*exceptions, *(it for it in site.wanted.filters if it["kind"] == kind)]
    return filters, exceptions


def _port_of(service: Object, port: int, pod: Object) -> int | None:
    """The port of the pod to which a Service's port leads."""
    for item in items(service, "spec", "ports"):
        if part(item, "port") == port:
            target = part(item, "targetPort") or port
            if isinstance(target, int):
                return target
            return next((number for word, number in _ports(pod) if word == target), None)
    return None


def _ports(pod: Object) -> Iterator[tuple[str, int]]:
    for one in containers(pod):
        for item in items(one, "ports"):
            yield str(part(item, "name")), int(part(item, "containerPort") or 0)


def _excludes(pod: Object, port: int) -> bool:
    return str(port) in str(notes(pod).get(_EXCLUDED, "")).split(",")


def _meant(thing: Object, pod: Object, selector: Iterable[tuple[str, object]]) -> bool:
    return namespace(thing) == namespace(pod) and set(selector) <= set(labels(pod).items())


def _lets_be(thing: Object, pod: Object, port: int) -> bool:
    selector = mapping(thing, "spec", "workloadSelector", "labels").items()
    return _meant(thing, pod, selector) and any(
        part(item, "patch", "operation") == "REMOVE"
        and part(item, "match", "listener", "portNumber") == port
        and part(item, "match", "listener", "filterChain", "filter", "name") == "tenant-authz.tcp"
        for item in items(thing, "spec", "configPatches")
    )


def _takes_plaintext(thing: Object, pod: Object, port: int) -> bool:
    selector = mapping(thing, "spec", "selector", "matchLabels").items()
    mode = part(thing, "spec", "portLevelMtls", str(port), "mode")
    return _meant(thing, pod, selector) and mode in {"PERMISSIVE", "DISABLE"}


GROUP: Final = Group(
    "Webhooks",
    (
        Check(
            "webhooks",
            "the API server reaches every webhook",
            "envoyfilters/README.md#webhooks",
            _reachable,
        ),
    ),
    before=True,
)
