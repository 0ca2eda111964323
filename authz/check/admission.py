"""The admission rules: there, current, and in force."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import Site
from authz.check.things import Object, items, mapping, name, part, same
from authz.kube import Resource

_GROUP: Final = "admissionregistration.k8s.io"
KINDS: Final = {
    "ValidatingAdmissionPolicy": Resource("validatingadmissionpolicies", _GROUP),
    "ValidatingAdmissionPolicyBinding": Resource("validatingadmissionpolicybindings", _GROUP),
    "MutatingAdmissionPolicy": Resource("mutatingadmissionpolicies", _GROUP),
    "MutatingAdmissionPolicyBinding": Resource("mutatingadmissionpolicybindings", _GROUP),
}
_PAGE: Final = "deploy/platform/README.md#admission"
_APPLY: Final = "kubectl apply -k deploy/platform/admission"


async def _there(site: Site) -> dict[tuple[str, str], Object]:
    return {
        (kind, name(it)): it
        for kind, resource in KINDS.items()
        for it in await site.all_of(resource)
    }


async def missing_rules(site: Site, wanted: Iterable[str]) -> list[str]:
    """Which of these rules refuse nothing.

    Raises:
        KubeError: they cannot be read.
    """
    there = await _there(site)
    return [it for it in wanted if not _refuses(there, it)]


def _refuses(there: dict[tuple[str, str], Object], rule: str) -> bool:
    bindings = [
        it
        for (kind, _), it in there.items()
        if kind == "ValidatingAdmissionPolicyBinding" and part(it, "spec", "policyName") == rule
    ]
    return ("ValidatingAdmissionPolicy", rule) in there and any(
        "Deny" in items(binding, "spec", "validationActions") for binding in bindings
    )


async def _in_force(site: Site) -> Answer:
    there = await _there(site)
    wanted = [name(it) for it in site.wanted.admission if it["kind"] == "ValidatingAdmissionPolicy"]
    if lacking := [it for it in wanted if ("ValidatingAdmissionPolicy", it) not in there]:
        return problem(f"missing: {several(lacking)}", f"{_APPLY}, if tenants may make objects")
    if idle := [it for it in wanted if not _refuses(there, it)]:
        return problem(
            f"they refuse nothing: {several(idle)}",
            "set validationActions: [Deny] in their bindings, when nothing warns any more",
        )
    mutating = [name(it) for it in site.wanted.admission if it["kind"] == "MutatingAdmissionPolicy"]
    if lacking := [it for it in mutating if ("MutatingAdmissionPolicy", it) not in there]:
        return warning(
            f"missing: {several(lacking)}: a tenant may run pods of its own without a sidecar",
            f"{_APPLY}, on Kubernetes 1.36 or newer",
        )
    return ok(f"{len(wanted)} rules refuse")


async def _current(site: Site) -> Answer:
    there = await _there(site)
    other, own = [], []
    for it in site.wanted.admission:
        found = there.get((it["kind"], name(it)))
        if found is None:
            continue
        wanted, is_there = dict(mapping(it, "spec")), dict(mapping(found, "spec"))
        variables = wanted.pop("variables", None), is_there.pop("variables", None)
        wanted.pop("validationActions", None)  # which the line `admission` is about
        is_there.pop("validationActions", None)
        if not same(wanted, is_there):
            other.append(name(it))
        elif not same(*variables):
            own.append(name(it))
    if other:
        return problem(f"not this version's: {several(other)}", _APPLY)
    if own:
        return warning(
            f"variables differ from what ships: {several(own)}",
            "fine, if you set them: the cluster's domain, aliases, controllers",
        )
    return ok("as this version has them")


async def _typed(site: Site) -> Answer:
    wrong = [
        name(it)
        for it in (await _there(site)).values()
        if name(it).startswith("tenant-authz-")
        and items(it, "status", "typeChecking", "expressionWarnings")
    ]
    if wrong:
        return problem(
            f"Kubernetes cannot type an expression of {several(wrong)}",
            "kubectl get validatingadmissionpolicy NAME -o jsonpath={.status.typeChecking}",
        )
    return ok("Kubernetes reads every expression")


GROUP: Final = Group(
    "Admission",
    (
        Check("admission", "the admission rules refuse", _PAGE, _in_force),
        Check("admission-current", "they are this version's", _PAGE, _current),
        Check("admission-types", "their expressions are sound", _PAGE, _typed),
    ),
    before=False,
)
