"""The filters: there, this version's, and enforcing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import ENVOY_FILTERS, PEER_AUTHENTICATIONS, Site
from authz.check.things import Object, full_name, mapping, name, namespace, same
from authz.kube import Resource

KINDS: Final = {
    "EnvoyFilter": ENVOY_FILTERS,
    "PeerAuthentication": PEER_AUTHENTICATIONS,
    "AuthorizationPolicy": Resource("authorizationpolicies", "security.istio.io"),
    "DestinationRule": Resource("destinationrules", "networking.istio.io"),
    "Gateway": Resource("gateways", "networking.istio.io"),
    "Sidecar": Resource("sidecars", "networking.istio.io"),
}
_PAGE: Final = "envoyfilters/README.md#install-watch-then-enforce"
_REFERENCED: Final = "envoyfilter.istio.io/referenced-services"


async def _there(site: Site) -> dict[tuple[str, str, str], Object]:
    return {
        (kind, namespace(it), name(it)): it
        for kind, resource in KINDS.items()
        for it in await site.all_of(resource)
    }


def _key(thing: Object) -> tuple[str, str, str]:
    return thing["kind"], namespace(thing), name(thing)


def _same(wanted: Object, there: Object | None) -> bool:
    annotation = mapping(wanted, "metadata", "annotations").get(_REFERENCED)
    told = mapping(there, "metadata", "annotations").get(_REFERENCED)
    return same(mapping(wanted, "spec"), mapping(there, "spec")) and annotation in (None, told)


async def installed(site: Site) -> tuple[str, Sequence[Object]]:
    """The overlay that is most like what is there, and its objects.

    Raises:
        KubeError: they cannot be read.
    """
    if not site.wanted.overlays:
        return "", site.wanted.filters
    there, same = await _there(site), Counter[str]()
    for overlay, objects in site.wanted.overlays.items():
        same[overlay] = sum(_same(it, there.get(_key(it))) for it in objects)
    overlay = same.most_common(1)[0][0]
    return overlay, site.wanted.overlays[overlay]


def _optional(thing: Object) -> bool:
    """Whether it is for something that need not be there: Eventing, cert-manager."""
    return namespace(thing) in {"knative-eventing", "cert-manager"}


async def _missing(site: Site) -> Answer:
    there = await _there(site)
    overlay, wanted = await installed(site)
    spaces = {name(it) for it in await site.all_of(Resource("namespaces"))}
    lacking = [
        f"{it['kind']} {full_name(it)}"
        for it in wanted
        if it["kind"] in KINDS
        and _key(it) not in there
        and not (_optional(it) and namespace(it) not in spaces)
    ]
    if lacking:
        return problem(
            f"missing: {several(lacking)}",
            f"kubectl apply -k envoyfilters/overlays/{overlay or 'enforce'}",
        )
    return ok("all are there")


async def _current(site: Site) -> Answer:
    there = await _there(site)
    overlay, wanted = await installed(site)
    other = [
        f"{it['kind']} {full_name(it)}"
        for it in wanted
        if _key(it) in there and not _same(it, there[_key(it)])
    ]
    if other:
        return problem(
            f"not as this version has them: {several(other)}",
            f"apply envoyfilters/overlays/{overlay or 'enforce'} again; if you changed values, "
            "give --filters what `kubectl kustomize` prints",
        )
    return ok("they are this version's")


async def _enforcing(site: Site) -> Answer:
    overlay, wanted = await installed(site)
    there = await _there(site)
    if overlay and not any(_key(it) in there for it in wanted):
        return problem("no filter is there", "kubectl apply -k envoyfilters/overlays/shadow")
    if overlay == "break-glass":
        return problem(
            "the overlay break-glass is installed: nobody is asked, tenants are open to each other",
            "kubectl apply -k envoyfilters/overlays/enforce, as soon as servers answer",
        )
    if overlay == "shadow":
        return warning(
            "the overlay shadow is installed: nobody is denied while no server answers",
            "kubectl apply -k envoyfilters/overlays/enforce, when `authz report` has nothing left",
        )
    return ok("no answer is a denial")


async def _others(site: Site) -> Answer:
    _, wanted = await installed(site)
    ours = {_key(it) for it in wanted}
    shipped = {_key(it) for objects in (site.wanted.overlays or {}).values() for it in objects}
    others = [
        it
        for it in await site.all_of(ENVOY_FILTERS)
        if ("EnvoyFilter", namespace(it), name(it)) not in ours
    ]
    left = [it for it in others if ("EnvoyFilter", namespace(it), name(it)) in shipped]
    if left:
        return warning(
            f"another overlay's are still there: {several([full_name(it) for it in left])}",
            "; ".join(f"kubectl -n {namespace(it)} delete envoyfilter {name(it)}" for it in left),
        )
    if others:
        return warning(
            f"others are there, too: {several([full_name(it) for it in others])}",
            "`authz doctor --cluster` says whether they change what ours do",
        )
    return ok("no others are there")


GROUP: Final = Group(
    "Filters",
    (
        Check("filters", "all filters are there", _PAGE, _missing),
        Check("filters-current", "they are this version's", _PAGE, _current),
        Check("filters-enforce", "they enforce", _PAGE, _enforcing),
        Check("filters-others", "no EnvoyFilter of others", _PAGE, _others),
    ),
    before=False,
)
