"""Tenants' namespaces and pods: what is not in the mesh lets everybody in."""

from __future__ import annotations

from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import Site, injected, is_tenant
from authz.check.things import full_name, has_proxy, name, namespace

_PAGE: Final = "deploy/OPERATIONS.md#onboard-a-tenant"


async def _injected(site: Site) -> Answer:
    spaces = await site.tenants()
    used = {namespace(pod) for pod in await site.pods()}
    bare = [name(it) for it in spaces if not injected(it) and (is_tenant(it) or name(it) in used)]
    if tenants := [name(space) for space in spaces if name(space) in bare and is_tenant(space)]:
        return problem(
            f"tenants' namespaces without injection: {several(tenants)}",
            "kubectl label namespace NAME istio-injection=enabled, and restart their pods",
        )
    if bare:
        return warning(
            f"not in the mesh, so that anybody reaches their pods: {several(bare)}",
            "inject them, or say by --platform that they are the platform's",
        )
    return ok(f"{len(spaces)} namespaces of tenants, all injected")


async def _sidecars(site: Site) -> Answer:
    mine = {name(tenant) for tenant in await site.tenants() if injected(tenant)}
    bare = [
        full_name(pod) for pod in await site.pods() if namespace(pod) in mine and not has_proxy(pod)
    ]
    if bare:
        return problem(
            f"pods without a sidecar: {several(bare)}",
            "restart them; `authz doctor --cluster` says why they have none",
        )
    return ok("every pod has a sidecar")


GROUP: Final = Group(
    "Tenants",
    (
        Check("injection", "their namespaces are injected", _PAGE, _injected),
        Check("sidecars", "their pods have sidecars", _PAGE, _sidecars),
    ),
    before=False,
)
