"""Knative: Serving, its networking layer, Eventing."""

from __future__ import annotations

from typing import Final

from authz.check.hops import SERVING, network_config
from authz.check.lines import Answer, Check, Group, ok, problem, unread
from authz.check.site import DEPLOYMENTS, NAMESPACES, Site
from authz.check.things import labels, number_of

EVENTING: Final = "knative-eventing"
_VERSION: Final = "app.kubernetes.io/version"
_PAGE: Final = "envoyfilters/README.md#compatibility"
_ISTIO: Final = "istio.ingress.networking.knative.dev"


async def _part_of(
    site: Site, place: str, called: str, what: str, oldest: tuple[int, int]
) -> Answer:
    found = await site.one(DEPLOYMENTS, place, called)
    wanted = ".".join(map(str, oldest))
    if found is None:
        return problem(
            f"there is no Deployment {called} in {place}", f"install {what} {wanted} or newer first"
        )
    told = labels(found).get(_VERSION)
    number = number_of(told)
    if number is None:
        return unread(
            f"the label {_VERSION} of {place}/{called} is {told!r}",
            f"see that {what} is {wanted} or newer",
        )
    if number < oldest:
        return problem(f"it is {told}", f"upgrade {what} to {wanted} or newer")
    return ok(str(told))


async def _serving(site: Site) -> Answer:
    return await _part_of(site, SERVING, "controller", "Knative Serving", (1, 21))


async def _net_istio(site: Site) -> Answer:
    return await _part_of(site, SERVING, "net-istio-controller", "net-istio", (1, 12))


async def _class(site: Site) -> Answer:
    said = await network_config(site)
    found = said.get("ingress-class") or said.get("ingress.class") or _ISTIO
    if found != _ISTIO:
        return problem(
            f"ingress-class in config-network is {found!r}",
            f"set it to {_ISTIO}: requests that pass another gateway carry no token",
        )
    return ok("requests pass Istio's gateway")


async def _eventing(site: Site) -> Answer:
    if not await site.one(NAMESPACES, "", EVENTING):
        return ok("not installed: leave its component out of the filters")
    return await _part_of(site, EVENTING, "eventing-controller", "Knative Eventing", (1, 15))


GROUP: Final = Group(
    "Knative",
    (
        Check("serving-version", "Serving is 1.21 or newer", _PAGE, _serving),
        Check("net-istio-version", "net-istio is 1.12 or newer", _PAGE, _net_istio),
        Check("ingress-class", "Knative's routes go through Istio", _PAGE, _class),
        Check("eventing-version", "Eventing is 1.15 or newer", _PAGE, _eventing),
    ),
    before=True,
)
