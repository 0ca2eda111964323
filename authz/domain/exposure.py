"""Who may let the outside world into a namespace: asked of each request at the public gateway.

Where a request goes does not say who wanted it there. Whoever may write an Ingress and a Service
can lead a route to anybody: a gateway follows an ExternalName to the Service that it names. So the
route must be of somebody who may open the destination, and so must the name that was called.
"""

import re
from typing import Final

from authz.domain.facts import Facts
from authz.domain.names import (
    Namespace,
    namespace_of_virtual_service,
    normal_host,
    service_of_cluster,
)
from authz.domain.policy import Policy
from authz.domain.reason import Reason

_revision: Final = re.compile(r"(.+)-[0-9]{5,}")


def owner_of_route(facts: Facts) -> Namespace | None:
    """The namespace whose VirtualService, or what istiod made one of, a request came in by."""
    return namespace_of_virtual_service(facts.virtual_service)


def refusal(destination: Namespace, facts: Facts, policy: Policy, now: float) -> Reason | None:
    """Why a request from outside may not go to `destination`; `None`: it may.

    `public: false` is no reason here but where the platform's own namespaces are closed: the pod
    denies then, and Knative's probes, of which nothing is known here, must reach it.
    """
    # Outside Istio, the routes of a gateway are written by whoever runs it.
    if facts.upstream is not None or facts.virtual_service:
        owner = owner_of_route(facts)
        if owner is None:
            return Reason.ROUTE_UNOWNED
        if owner not in policy.route_owners and not _may_open(owner, destination, policy, now):
            return Reason.ROUTE_FOREIGN
    name = normal_host(facts.host) if policy.tells_names else None
    of_host = None if name is None else policy.namespace_of_name(name)
    if of_host is not None and not _may_open(of_host, destination, policy, now):
        return Reason.HOST_FOREIGN
    accepted = policy.accepts_public(destination)
    if not isinstance(accepted, bool) and not is_open(accepted, called_service(facts, policy)):
        return Reason.NOT_PUBLIC
    return None


def called_service(facts: Facts, policy: Policy) -> str | None:
    """The name of the Service that a gateway sends a request to.

    `None` if that is a relay, behind which it is seen; empty where it cannot be told.
    """
    service = service_of_cluster(facts.upstream or "", policy.cluster_domains)
    if service is None:
        return ""
    return None if service in policy.relays else service.name


def is_open(accepted: bool | frozenset[str], service: str | None) -> bool:
    """Whether a Service is among those that the outside world may call; `None`: whether any is.

    A list that names a Knative Service means its revisions, too, as Knative calls them by default:
    `hello` stands for `hello-00001`. Source: knative/serving pkg/reconciler/configuration/
    resources/revision.go.
    """
    if isinstance(accepted, bool):
        return accepted
    if service is None:
        return bool(accepted)
    if service in accepted:
        return True
    revision = _revision.fullmatch(service)
    return revision is not None and revision[1] in accepted


def _may_open(owner: Namespace, destination: Namespace, policy: Policy, now: float) -> bool:
    """Whether `destination` is its tenant's, or grants it all: for nobody is asked again.

    A grant to everybody is none to the outside world.
    """
    return policy.same_tenant(owner, destination) or policy.granted_as_a_whole(
        owner, destination, now
    )
