"""The service in its namespace: workload, pods, endpoints, secrets."""

from __future__ import annotations

from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import DAEMON_SETS, DEPLOYMENTS, NAMESPACES, SERVICES, Site, injected
from authz.check.things import (
    Object,
    full_name,
    has_proxy,
    items,
    labels,
    mapping,
    part,
    ready,
)
from authz.kube import Resource

NAME: Final = "authz"
SERVER: Final = {"app.kubernetes.io/component": "server"}
SECRETS: Final = Resource("secrets", metadata_only=True)
"""Of a Secret its metadata only: no check needs to know one."""
SLICES: Final = Resource("endpointslices", "discovery.k8s.io")
_INSTALL: Final = "deploy/README.md#install"
_APPLY: Final = "kubectl apply -k mine"


async def servers(site: Site) -> list[Object]:
    """The servers' pods.

    Raises:
        KubeError: they cannot be read.
    """
    return await site.pods(site.wanted.home, **SERVER)


async def _namespace(site: Site) -> Answer:
    found = await site.one(NAMESPACES, "", site.wanted.home)
    if found is None:
        return problem(f"there is no namespace {site.wanted.home}", _APPLY)
    if not injected(found):
        return problem(
            "it is not injected, so that servers get no certificate",
            f"kubectl label namespace {site.wanted.home} istio-injection=enabled",
        )
    if labels(found).get("pod-security.kubernetes.io/enforce") != "restricted":
        return warning("Pod Security does not enforce `restricted`", "apply deploy/base again")
    return ok("injected and restricted")


async def _secrets(site: Site) -> Answer:
    missing = [
        it
        for it in ("tenant-authz-kek", "tenant-authz-keys")
        if await site.one(SECRETS, site.wanted.home, it) is None
    ]
    if missing:
        return problem(
            f"missing: {several(missing)}",
            "make the KEK as deploy/README.md has it, and keep a copy; deploy/base has the other",
        )
    return ok("KEK and key store are there")


async def _workload(site: Site) -> Answer:
    kinds = {"DaemonSet": DAEMON_SETS, "Deployment": DEPLOYMENTS}
    found = {
        kind: it
        for kind, resource in kinds.items()
        if (it := await site.one(resource, site.wanted.home, NAME)) is not None
    }
    if not found:
        return problem(f"neither DaemonSet nor Deployment {NAME} is there", _APPLY)
    if len(found) > 1:
        return problem(
            "DaemonSet and Deployment are both there",
            f"delete the one that you do not want: kubectl -n {site.wanted.home} delete "
            f"daemonset/{NAME}",
        )
    [(kind, thing)] = found.items()
    wanted, there, fresh = (
        ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled")
        if kind == "DaemonSet"
        else ("replicas", "readyReplicas", "updatedReplicas")
    )
    status = mapping(thing, "status")
    number = status.get(wanted) or 0
    told = f"{status.get(there) or 0} of {number} ready, {status.get(fresh) or 0} of this version"
    if part(thing, "metadata", "generation") != status.get("observedGeneration"):
        return problem("the last change has not been taken up yet", "wait, or use --wait")
    if not number:
        return problem(f"the {kind} wants no pod", "see its nodeSelector and replicas")
    if (status.get(there) or 0) < number or (status.get(fresh) or 0) < number:
        return problem(
            f"{told}: on a node without a ready pod nothing gets in",
            f"kubectl -n {site.wanted.home} rollout status {kind.lower()}/{NAME}; its pods' logs "
            "say what they wait for",
        )
    return ok(f"{kind}: {told}")


async def _pods(site: Site) -> Answer:
    pods = await servers(site)
    if not pods:
        return problem("no server runs", f"kubectl -n {site.wanted.home} get pods")
    if bare := [full_name(pod) for pod in pods if not has_proxy(pod)]:
        return problem(
            f"without Istio's agent, hence without a certificate: {several(bare)}",
            "see the line `istio-injector`, then delete these pods",
        )
    if late := [full_name(it) for it in pods if not ready(it)]:
        return problem(
            f"not ready: {several(late)}",
            f"kubectl -n {site.wanted.home} logs POD -c authz says what they wait for",
        )
    return ok(f"{len(pods)} ready")


async def _endpoints(site: Site) -> Answer:
    service = await site.one(SERVICES, site.wanted.home, NAME)
    if service is None or not any(part(item, "port") for item in items(service, "spec", "ports")):
        return problem(f"there is no Service {NAME}", _APPLY)
    slices = await site.all_of(
        Resource("endpointslices", "discovery.k8s.io", namespace=site.wanted.home)
    )
    ready_ones = [
        address
        for it in slices
        if labels(it).get("kubernetes.io/service-name") == NAME
        for end in items(it, "endpoints")
        if part(end, "conditions", "ready") is not False
        for address in items(end, "addresses")
    ]
    if not ready_ones:
        return problem(
            f"the Service {NAME} has no endpoint: sidecars reach nobody",
            "see its selector, and the lines `workload` and `servers`",
        )
    return ok(f"{len(ready_ones)} endpoints")


GROUP: Final = Group(
    "Service",
    (
        Check("namespace", "its namespace", _INSTALL, _namespace),
        Check("secrets", "its Secrets", _INSTALL, _secrets),
        Check("workload", "a server wherever one is wanted", _INSTALL, _workload),
        Check("servers", "its pods", _INSTALL, _pods),
        Check("endpoints", "sidecars find it", _INSTALL, _endpoints),
    ),
    before=False,
)
