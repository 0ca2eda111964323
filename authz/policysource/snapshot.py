"""What the cluster says of policy, read once and written nowhere: for the command line."""

from typing import Any

from authz.domain.names import Namespace
from authz.domain.policy import Policy
from authz.errors import BadPolicy
from authz.kube import ApiServer, KubeError, Resource
from authz.policysource.cluster_objects import (
    CLAIMS,
    GRANTS,
    NAMESPACES,
    claim_of,
    grant_name,
    grant_of,
    labels_of,
)
from authz.policysource.file import parse_policy
from authz.policysource.location import ConfigMapKey
from authz.policysource.merge import Merged, merge


async def policy_in(where: ConfigMapKey) -> Policy:
    """The policy in a ConfigMap.

    Raises:
        KubeError: the API server cannot be asked.
        BadPolicy: it is not there, or not a policy.
    """
    api = ApiServer()
    try:
        found = await _listed(api, Resource("configmaps", namespace=where[0], name=where[1]))
    finally:
        await api.close()
    data = found[0].get("data") if found else None
    text = data.get(where.key) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise BadPolicy([f"configmap:{where}: there is no such ConfigMap, or it lacks the key"])
    return parse_policy(text)


async def with_cluster(base: Policy) -> Merged:
    """A policy with the labels of namespaces, the Grants and the domain claims of the cluster.

    It is what a server with `policy_from_cluster` makes of them.

    Raises:
        KubeError: the API server cannot be asked.
    """
    api = ApiServer()
    try:
        namespaces = await _listed(api, NAMESPACES)
        grants = await _listed(api, GRANTS)
        claims = await _listed(api, CLAIMS)
    finally:
        await api.close()
    labels = {}
    for thing in namespaces:
        metadata = thing.get("metadata") or {}
        if (said := labels_of(metadata)) is not None:
            labels[Namespace(str(metadata.get("name")))] = said
    named = {
        where: grant_of(thing, where.namespace)
        for thing in sorted(grants, key=_age)
        if (where := grant_name(thing.get("metadata") or {})) is not None
    }
    return merge(base, labels, named, dict(filter(None, map(claim_of, claims))))


async def _listed(api: ApiServer, resource: Resource) -> list[dict[str, Any]]:
    try:
        objects, _ = await api.list(resource)
    except KubeError as error:
        if error.status != 404 or resource not in {GRANTS, CLAIMS}:
            raise
        if resource is GRANTS:
            hint = "install deploy/crds, or leave --cluster out"
            raise KubeError(f"{error}; {hint}", status=error.status) from None
        return []  # Knative Serving is not there
    return objects


def _age(thing: dict[str, Any]) -> tuple[str, ...]:
    """The oldest comes first, as in a server."""
    metadata = thing.get("metadata") or {}
    names = ("creationTimestamp", "uid", "namespace", "name")
    return tuple(str(metadata.get(name, "")) for name in names)
