"""Istio: kinds, version, injector, what istiod watches and what it sends to gateways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.check.lines import Answer, Check, Group, ok, problem, several, unread, warning
from authz.check.site import (
    CONFIG_MAPS,
    ENVOY_FILTERS,
    NAMESPACES,
    PEER_AUTHENTICATIONS,
    Site,
    injected,
)
from authz.check.things import (
    Object,
    containers,
    full_name,
    items,
    labels,
    name,
    number_of,
    part,
    ready,
    selects,
    tag_of,
)
from authz.kube import KubeError, Resource

OLDEST: Final = (1, 24)
READS_ANNOTATION: Final = (1, 26)
"""The first istiod that sends a gateway the clusters that an EnvoyFilter's annotation names."""
KINDS: Final = (
    ENVOY_FILTERS,
    Resource("destinationrules", "networking.istio.io"),
    Resource("gateways", "networking.istio.io"),
    PEER_AUTHENTICATIONS,
)
HOOKS: Final = Resource("mutatingwebhookconfigurations", "admissionregistration.k8s.io")
_FILTERED: Final = "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG"
_PAGE: Final = "envoyfilters/README.md#compatibility"


async def istiods(site: Site) -> list[Object]:
    """Pods of istiod.

    Raises:
        KubeError: they cannot be read.
    """
    return await site.pods(site.wanted.root_namespace, app="istiod")


async def mesh_configs(site: Site) -> list[Mapping[str, Any]]:
    """Istio's MeshConfigs, one for each revision, as their ConfigMaps have them.

    Raises:
        KubeError: they cannot be read.
    """
    found = [
        (name(it), str(part(it, "data", "mesh")))
        for it in await site.all_of(replace(CONFIG_MAPS, namespace=site.wanted.root_namespace))
        if (name(it) == "istio" or name(it).startswith("istio-")) and part(it, "data", "mesh")
    ]
    if not found:
        raise KubeError(
            f"there is no ConfigMap istio in {site.wanted.root_namespace}: name Istio's root "
            "namespace by --root-namespace"
        )
    return [_parsed(called, text) for called, text in found]


def _parsed(called: str, text: str) -> Mapping[str, Any]:
    try:
        said = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise KubeError(f"the ConfigMap {called} has a key `mesh` that is not YAML") from None
    return said if isinstance(said, dict) else {}


def versions(pods: list[Object]) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """What each istiod is, by its image's tag or its labels."""
    for pod in pods:
        images = [it.get("image") for it in containers(pod) if it.get("name") == "discovery"]
        told = [tag_of(it) for it in images] + [str(labels(pod).get("app.kubernetes.io/version"))]
        number = next((it for it in map(number_of, told) if it), None)
        yield next((it for it in told if number_of(it)), str(told[0])), number


async def _kinds(site: Site) -> Answer:
    missing = [f"{kind.plural}.{kind.group}" for kind in KINDS if not await site.serves(kind)]
    if missing:
        return problem(f"there is no {several(missing)}", "install Istio 1.24 or newer first")
    return ok("its kinds are there")


async def _version(site: Site) -> Answer:
    pods = await istiods(site)
    if not pods:
        return problem(
            f"no pod in {site.wanted.root_namespace} has the label app=istiod",
            "install Istio, or name its root namespace by --root-namespace",
        )
    if late := [full_name(pod) for pod in pods if not ready(pod)]:
        return problem(f"not ready: {several(late)}", "`kubectl logs` of it says why")
    found = dict(versions(pods))
    if unknown := [text for text, number in found.items() if number is None]:
        return unread(
            f"istiod's image does not tell its version: {several(unknown)}",
            "ask `istioctl version`: it must be 1.24 or newer",
        )
    if old := [text for text, number in found.items() if number and number < OLDEST]:
        return problem(f"istiod is {several(old)}", "upgrade Istio to 1.24 or newer")
    return ok(several(sorted(found)))


async def _injector(site: Site) -> Answer:
    hooks = [
        it
        for it in await site.all_of(HOOKS)
        if labels(it).get("app") == "sidecar-injector" or name(it).startswith("istio-sidecar-")
    ]
    if not hooks:
        return problem(
            "no MutatingWebhookConfiguration is an injector's (label app=sidecar-injector)",
            "install Istio with its injector: without sidecars nobody is asked",
        )
    open_ones = [
        f"{name(it)} {part(hook, 'name')}"
        for it in hooks
        for hook in items(it, "webhooks")
        if part(hook, "failurePolicy") != "Fail"
    ]
    if open_ones:
        return problem(
            f"failurePolicy is not Fail: {several(open_ones)}",
            "set it to Fail, or pods come up without a sidecar while istiod is away",
        )
    return ok(f"it injects sidecars: {several([name(it) for it in hooks])}")


async def _discovery(site: Site) -> Answer:
    selectors = [items(config, "discoverySelectors") for config in await mesh_configs(site)]
    spaces = await site.all_of(NAMESPACES)
    left_out = [
        name(space)
        for space in spaces
        if (injected(space) or name(space) == site.wanted.home)
        and not any(
            not one_of or any(selects(one, labels(space)) for one in one_of) for one_of in selectors
        )
    ]
    if left_out:
        return problem(
            f"istiod does not watch {several(sorted(left_out))}",
            "add them to meshConfig.discoverySelectors, as in "
            "deploy/platform/istio/istiod-values.yaml",
        )
    return ok("istiod watches every namespace that is injected")


async def _ambient(site: Site) -> Answer:
    label = "istio.io/dataplane-mode"
    found = [name(it) for it in await site.all_of(NAMESPACES) if labels(it).get(label) == "ambient"]
    found += [full_name(pod) for pod in await site.pods() if labels(pod).get(label) == "ambient"]
    if found:
        return problem(
            f"in ambient mode, where nobody asks: {several(found)}",
            f"take the label {label} away and use sidecars, or keep tenants out of them",
        )
    return ok("nothing is in ambient mode")


async def _gateway_clusters(site: Site) -> Answer:
    pods = await istiods(site)
    if not pods:
        return unread("no istiod runs, so none tells", "see the line `istio-version`")
    filtered = any(
        part(env, "name") == _FILTERED and str(part(env, "value")).lower() == "true"
        for pod in pods
        for one in containers(pod)
        for env in items(one, "env")
    )
    if not filtered:
        return ok("a gateway is sent every cluster, the service's among them")
    service = f"{site.wanted.home}/authz.{site.wanted.home}.svc."
    configs = await mesh_configs(site)
    providers = [item for config in configs for item in items(config, "extensionProviders")]
    if any(str(part(it, "envoyExtAuthzGrpc", "service")).startswith(service) for it in providers):
        return ok("an extension provider names the service")
    found = [number for _, number in versions(pods)]
    if None in found:
        return unread(
            f"{_FILTERED} is true, and istiod's version is unknown",
            "see that it is 1.26 or newer, or add deploy/platform/istio/istiod-1.25-values.yaml",
        )
    if any(number is not None and number < READS_ANNOTATION for number in found):
        return problem(
            f"{_FILTERED} is true, and this istiod does not send gateways the service's cluster",
            "add deploy/platform/istio/istiod-1.25-values.yaml to istiod's values, or every "
            "request from outside is 503",
        )
    return ok("the filters' annotation names the service")


async def _trust_domain(site: Site) -> Answer:
    domains = {str(it.get("trustDomain") or "cluster.local") for it in await mesh_configs(site)}
    policy = site.policy
    if site.bad_policy:
        return unread("the policy cannot be used", "see the line `policy`")
    if other := sorted(domains - policy.trust_domains):
        trusted = several(sorted(policy.trust_domains))
        text = f"the mesh's trust domain is {several(other)}; the policy accepts {trusted}"
        if site.before:
            return warning(text, "write yours into trust_domains, roles and exemptions")
        return problem(text, "write it into the policy's trust_domains, roles and exemptions")
    return ok(several(sorted(domains)))


async def _cni(site: Site) -> Answer:
    found = await site.all_of(Resource("daemonsets", "apps"))
    if any(name(it) == "istio-cni-node" for it in found):
        return ok("Istio's CNI plugin is there")
    return warning(
        "there is no DaemonSet istio-cni-node: tenants' pods need NET_ADMIN to get a sidecar",
        "install Istio with its CNI plugin: overlays/xfcc and Pod Security `baseline` need it",
    )


GROUP: Final = Group(
    "Istio",
    (
        Check("istio-kinds", "Istio's kinds are installed", _PAGE, _kinds),
        Check("istio-version", "istiod runs, 1.24 or newer", _PAGE, _version),
        Check(
            "istio-injector", "sidecars are injected", "envoyfilters/README.md#before", _injector
        ),
        Check("istio-cni", "redirection needs no rights", "deploy/platform/README.md", _cni),
        Check("istio-ambient", "no ambient mode", _PAGE, _ambient),
        Check(
            "istio-discovery",
            "istiod watches who is injected",
            "deploy/platform/README.md",
            _discovery,
        ),
        Check(
            "istio-gateway-clusters",
            "gateways know the service",
            "deploy/platform/istio/istiod-values.yaml",
            _gateway_clusters,
        ),
        Check(
            "istio-trust-domain",
            "the policy accepts the trust domain",
            "deploy/base/policy.yaml",
            _trust_domain,
        ),
    ),
    before=True,
)
