"""Mutual TLS and the sidecars of what passes requests on: activator, gateway, Eventing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import CONFIG_MAPS, PEER_AUTHENTICATIONS, Site
from authz.check.things import (
    Object,
    full_name,
    has_proxy,
    mapping,
    namespace,
    part,
    ready,
)
from authz.domain.policy import Role

SERVING: Final = "knative-serving"
_BEFORE: Final = "envoyfilters/README.md#before"
_LOOSE: Final = frozenset({"PERMISSIVE", "DISABLE"})


async def network_config(site: Site) -> dict[str, str]:
    """Knative's `config-network`; empty if there is none.

    Raises:
        KubeError: it cannot be read.
    """
    found = await site.one(CONFIG_MAPS, SERVING, "config-network")
    return dict(mapping(found, "data"))


async def mesh_is_strict(site: Site) -> bool:
    """Whether the whole mesh takes mutual TLS only.

    Raises:
        KubeError: it cannot be read.
    """
    found = [
        it
        for it in await site.all_of(PEER_AUTHENTICATIONS)
        if namespace(it) == site.wanted.root_namespace and not mapping(it, "spec", "selector")
    ]
    return bool(found) and all(part(it, "spec", "mtls", "mode") == "STRICT" for it in found)


async def _mutual(site: Site) -> Answer:
    if await mesh_is_strict(site):
        return ok("STRICT")
    mode = (await network_config(site)).get("mesh-compatibility-mode", "auto")
    if mode == "enabled":
        return warning(
            "PERMISSIVE; Knative's mesh-compatibility-mode is enabled, so that cold starts end",
            "make the mesh STRICT (kubectl apply -k deploy/platform/istio): plaintext proves "
            "nothing and is denied",
        )
    return problem(
        f"the mesh takes plaintext, and mesh-compatibility-mode in config-network is {mode!r}: no "
        "cold start ends",
        "make the mesh STRICT (kubectl apply -k deploy/platform/istio), or set "
        "mesh-compatibility-mode: enabled",
    )


async def _exceptions(site: Site) -> Answer:
    ours = {full_name(it) for it in site.wanted.filters}
    loose = [
        full_name(it)
        for it in await site.all_of(PEER_AUTHENTICATIONS)
        if namespace(it) != site.wanted.root_namespace
        and full_name(it) not in ours
        and any(mode in _LOOSE for mode in _modes(it))
    ]
    if loose:
        return warning(
            f"these take plaintext: {several(loose)}",
            "delete them where a tenant's pods are meant; for a webhook's port it is right",
        )
    return ok("no PeerAuthentication of a namespace takes plaintext")


def _modes(thing: Object) -> Iterator[object]:
    yield part(thing, "spec", "mtls", "mode")
    yield from (part(it, "mode") for it in mapping(thing, "spec", "portLevelMtls").values())


async def _gateway(site: Site) -> Answer:
    wanted = site.wanted.filter("public")
    selector = mapping(wanted, "spec", "workloadSelector", "labels")
    told = ",".join(f"{key}={value}" for key, value in selector.items())
    pods = await site.pods(namespace(wanted), **selector)
    if not pods:
        return problem(
            f"no pod in {namespace(wanted)} has the label {told}",
            "set gateway-namespace and gateway-label in envoyfilters/base/values.yaml, and give "
            "--filters what `kubectl kustomize` then prints",
        )
    if not any(map(ready, pods)):
        return problem(f"none is ready: {several([full_name(pod) for pod in pods])}", "see its log")
    return ok(f"{len(pods)} pods with {told}")


async def _activator(site: Site) -> Answer:
    wanted = site.wanted.filter("transit")
    selector = mapping(wanted, "spec", "workloadSelector", "labels")
    pods = await site.pods(namespace(wanted), **selector)
    if not pods:
        return problem(f"no activator runs in {namespace(wanted)}", "install Knative Serving first")
    if bare := [full_name(pod) for pod in pods if not has_proxy(pod)]:
        return problem(
            f"without a sidecar: {several(bare)}",
            f"label {SERVING} istio-injection=enabled, and restart the Deployment activator",
        )
    return ok(f"{len(pods)} activators with sidecars")


async def _eventing(site: Site) -> Answer:
    holders = {
        (str(who.namespace), who.service_account)
        for who, roles in site.wanted.usual.roles.items()
        if Role.TRANSIT in roles and "eventing" in who.namespace
    }
    pods = [
        pod
        for pod in await site.pods()
        if (namespace(pod), str(part(pod, "spec", "serviceAccountName"))) in holders
    ]
    if bare := [full_name(it) for it in pods if not has_proxy(it)]:
        return problem(
            f"without a sidecar: {several(bare)}",
            "label knative-eventing istio-injection=enabled, and restart its Deployments",
        )
    return ok(f"{len(pods)} hops of Eventing with sidecars" if pods else "no Eventing is installed")


GROUP: Final = Group(
    "Mesh",
    (
        Check("mutual-tls", "mutual TLS is STRICT", _BEFORE, _mutual),
        Check("plaintext", "nothing is excepted from it", _BEFORE, _exceptions),
        Check("gateway", "the ingress gateway is found", "envoyfilters/README.md#values", _gateway),
        Check("activator-sidecar", "the activator has sidecars", _BEFORE, _activator),
        Check("eventing-sidecars", "Eventing has sidecars", _BEFORE, _eventing),
    ),
    before=True,
)
