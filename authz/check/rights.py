"""Who may write what the service trusts, by reading RBAC as the API server does.

Source: kubernetes.io/docs/reference/access-authn-authz/rbac. Someone with a right in every
namespace by a ClusterRoleBinding, or in a namespace of the platform's, is the platform, unless it
is given to everybody or to a tenant's accounts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from authz.check.admission import missing_rules
from authz.check.lines import Answer, Check, Group, ok, problem, several, warning
from authz.check.site import Site, is_tenant
from authz.check.things import items, name, namespace, part
from authz.kube import Resource

_GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = Resource("roles", _GROUP)
CLUSTER_ROLES: Final = Resource("clusterroles", _GROUP)
ROLE_BINDINGS: Final = Resource("rolebindings", _GROUP)
CLUSTER_ROLE_BINDINGS: Final = Resource("clusterrolebindings", _GROUP)

_WRITES: Final = frozenset({"create", "update", "patch"})
_DELETES: Final = frozenset({"delete", "deletecollection"})
_ACCOUNT: Final = "system:serviceaccount:"  # NAMESPACE:NAME, a user
_ACCOUNTS: Final = "system:serviceaccounts:"  # NAMESPACE, the group of all its accounts
_EVERYBODY: Final = frozenset(
    {"system:authenticated", "system:unauthenticated", "system:serviceaccounts", "system:anonymous"}
)


class Right(NamedTuple):
    """To write a kind, or a part of it."""

    group: str
    resource: str
    verbs: frozenset[str] = _WRITES

    def given_by(self, rule: Any) -> bool:
        """Whether a rule of a role gives it, be it for some names only."""
        plural, _, subresource = self.resource.partition("/")
        resources = set(items(rule, "resources"))
        wanted = {"*", self.resource} | ({f"*/{subresource}"} if subresource else set())
        if plural == "*":  # of any kind
            wanted = {it for it in resources if it == "*" or it.endswith(f"/{subresource}")}
        return (
            bool({"*", self.group} & set(items(rule, "apiGroups")))
            and bool(wanted & resources)
            and bool(({"*"} | self.verbs) & set(items(rule, "verbs")))
        )


ISTIO: Final = tuple(
    Right(group, kind, _WRITES | _DELETES)
    for group, kinds in (
        ("networking.istio.io", ("envoyfilters", "virtualservices", "sidecars", "gateways")),
        ("networking.istio.io", ("destinationrules", "serviceentries", "workloadentries")),
        ("security.istio.io", ("peerauthentications", "authorizationpolicies")),
    )
    for kind in kinds
)
"""What of Istio's no tenant may write or delete: with it, sidecars stop asking."""
INGRESS: Final = (
    Right("networking.k8s.io", "ingresses"),
    Right("gateway.networking.k8s.io", "httproutes"),
    Right("serving.knative.dev", "domainmappings"),
)
ALIASES: Final = (Right("", "services"),)
STATUS: Final = tuple(
    Right(f"{it}.knative.dev", "*/status")
    for it in ("serving", "eventing", "messaging", "networking.internal", "sinks", "flows")
)
LABELS: Final = (Right("", "namespaces"), Right("", "namespaces/status"))


class Holder(NamedTuple):
    """Someone who is not the platform, and where he has a right; everywhere, if that is empty."""

    who: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.who} in {self.namespace}" if self.namespace else f"{self.who} everywhere"


async def holders(site: Site, rights: tuple[Right, ...]) -> list[Holder]:
    """Who has one of these rights, and is not the platform.

    Raises:
        KubeError: RBAC cannot be read.
    """
    giving: set[tuple[str, str]] = {
        (namespace(role), name(role))
        for role in (*await site.all_of(ROLES), *await site.all_of(CLUSTER_ROLES))
        if any(right.given_by(rule) for rule in items(role, "rules") for right in rights)
    }
    found: set[Holder] = set()
    for binding in (*await site.all_of(ROLE_BINDINGS), *await site.all_of(CLUSTER_ROLE_BINDINGS)):
        place = namespace(binding)
        of = part(binding, "roleRef", "kind"), str(part(binding, "roleRef", "name"))
        if (place if of[0] == "Role" else "", of[1]) in giving:
            found.update(_subjects(site, binding, place))
    return sorted(found)


def _subjects(site: Site, binding: Mapping[str, Any], place: str) -> Iterator[Holder]:
    in_a_tenants = bool(place) and not site.is_platform(place)
    for subject in items(dict(binding), "subjects"):
        called = str(part(subject, "name"))
        if part(subject, "kind") == "ServiceAccount":
            home = str(part(subject, "namespace") or place)
            if not site.is_platform(home):
                yield Holder(f"{home}/{called}", place)
        elif called.startswith((_ACCOUNT, _ACCOUNTS)):
            if not site.is_platform(called.split(":")[2]):
                yield Holder(called, place)
        elif called in _EVERYBODY or (in_a_tenants and not called.startswith("system:")):
            yield Holder(called, place)


async def _istio(site: Site) -> Answer:
    if found := await holders(site, ISTIO):
        return problem(
            f"these may write Istio's objects: {several([str(it) for it in found])}",
            "take networking.istio.io and security.istio.io out of their roles (`kubectl get "
            "rolebindings,clusterrolebindings -A`), or name the platform's own by --platform",
        )
    return ok("no tenant may write Istio's objects")


async def _labels(site: Site) -> Answer:
    if found := await holders(site, LABELS):
        return problem(
            f"these may change namespaces' labels: {several([str(it) for it in found])}",
            "take `namespaces` out of their roles, for labels say whose a namespace is; or name "
            "the platform's own by --platform",
        )
    return ok("no tenant may label namespaces")


async def _guarded(
    site: Site, rights: tuple[Right, ...], rules: tuple[str, ...], does: str
) -> Answer:
    found = await holders(site, rights)
    if not found:
        return ok("no tenant may")
    told = several([str(it) for it in found])
    if site.before:
        return warning(
            f"these may: {told}",
            "install deploy/platform/admission before the filters enforce, and label their "
            "namespaces tenant-authz.dev/tenant",
        )
    if missing := await missing_rules(site, rules):
        return problem(
            f"these may {does}, and {several(missing)} is not in force: {told}",
            "kubectl apply -k deploy/platform/admission",
        )
    spaces = {name(tenant): tenant for tenant in await site.tenants()}
    bare = [str(it) for it in found if it.namespace and not is_tenant(spaces.get(it.namespace, {}))]
    everywhere = [str(it) for it in found if not it.namespace]
    if bare or everywhere:
        return problem(
            f"these may {does} where no admission rule looks: {several(bare + everywhere)}",
            "label their namespaces tenant-authz.dev/tenant, or take the right away",
        )
    return ok(f"the admission rules judge what they make: {told}")


async def _ingress(site: Site) -> Answer:
    return await _guarded(site, INGRESS, ("tenant-authz-hosts",), "make Ingresses and routes")


async def _aliases(site: Site) -> Answer:
    return await _guarded(site, ALIASES, ("tenant-authz-services",), "make ExternalNames")


async def _status(site: Site) -> Answer:
    return await _guarded(site, STATUS, ("tenant-authz-controllers",), "write status of Knative's")


_PAGE: Final = "deploy/platform/README.md#admission"
GROUP: Final = Group(
    "Tenants' rights",
    (
        Check("may-istio", "no tenant may write Istio's objects", "SECURITY.md", _istio),
        Check("may-label", "no tenant may label namespaces", "SECURITY.md", _labels),
        Check("may-ingress", "Ingresses of tenants are judged", _PAGE, _ingress),
        Check("may-alias", "ExternalNames of tenants are judged", _PAGE, _aliases),
        Check("may-status", "no tenant writes `*/status` of Knative", _PAGE, _status),
    ),
    before=True,
)
