"""Policy: who belongs together, who may reach whom, and which peers play a platform part.

A `Policy` is a value, computed when it is loaded so that every question costs a look-up or two,
however many tenants there are. Tokens and keys know namespaces only; tenants exist here alone.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Final

from authz.domain.hosts import HostTemplate
from authz.domain.identity import SpiffeId, short_account
from authz.domain.names import Namespace, Service


class Mode(enum.StrEnum):
    """What happens where a destination namespace would deny."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    """Allow, and record what would have been denied."""
    OFF = "off"
    """Allow, record nothing."""


class Role(enum.StrEnum):
    """A part that a platform workload plays. It is trusted for this part and no other."""

    TRANSIT = "transit"
    """Passes other namespaces' requests on: the activator, the local gateway."""
    GATEWAY = "gateway"
    """Lets the outside world in: the public gateway."""
    ON_BEHALF_OF = "on-behalf-of"
    """Sends events for the namespace that it names in `Kn-Namespace`: Knative Eventing."""


RELAYING: Final = frozenset({Role.TRANSIT, Role.GATEWAY})
"""Roles whose holders pass on what tenants send, so that their identity proves nothing."""

EVERYONE: Final = Namespace("*")
"""In a grant's `source`: every namespace, but not the outside world."""

NO_ROLES: Final[frozenset[Role]] = frozenset()

PLATFORM: Final = frozenset(
    map(
        Namespace,
        (
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "istio-system",
            "knative-serving",
            "knative-eventing",
            "authz-system",
        ),
    )
)
"""Namespaces that are the platform's wherever they are called as their own makers call them."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A destination namespace lets another one in, like Gateway API's ReferenceGrant.

    A field that is `None` does not narrow the grant. `until` is in seconds since the epoch.
    """

    destination: Namespace
    source: Namespace
    service_account: str | None = None
    port: int | None = None
    until: int | None = None

    def __str__(self) -> str:
        account = "" if self.service_account is None else f"/{self.service_account}"
        port = "" if self.port is None else f", port {self.port}"
        return f"{self.destination} from {self.source}{account}{port}"

    def covers(self, service_account: str, port: int | None, now: float) -> bool:
        """Whether it counts for a source's account (short form) at `now`.

        `port` is where the request arrives; `None` if that is not known yet, as at a gateway; 0 if
        it never will be.
        """
        return (
            (self.service_account is None or short_account(self.service_account) == service_account)
            and (self.port is None or port is None or self.port == port)
            and (self.until is None or now < self.until)
        )


@dataclass(frozen=True, slots=True)
class Exemption:
    """Lets a peer in without a token. Every field that is not `None` must match.

    `path` is the raw path before `?`, compared whole; `user_agent` is a prefix, case-sensitive;
    `network_probe` is the whole value of K-Network-Probe, of a GET without a body.
    """

    port: int
    path: str | None = None
    user_agent: str | None = None
    network_probe: str | None = None

    def covers(
        self, *, port: int, path: str, user_agent: str, network_probe: str, method: str
    ) -> bool:
        """Whether a request with these attributes is exempt; absent headers are empty."""
        return (
            self.port == port
            and (self.path is None or self.path == path.partition("?")[0])
            and (self.user_agent is None or user_agent.startswith(self.user_agent))
            and self.network_probe in {None, network_probe}
            and (self.network_probe is None or method == "GET")
        )


_PROBED: Final = "/healthz"


def _probes(user_agent: str, network_probe: str) -> tuple[Exemption, ...]:
    return tuple(Exemption(port, _PROBED, user_agent, network_probe) for port in (8012, 8013))


ROLE_EXEMPTIONS: Final[Mapping[Role, tuple[Exemption, ...]]] = MappingProxyType(
    {
        # Peers that relay are exempt for nothing but these, each of which Knative's queue-proxy
        # answers itself on its own ports: the app never sees such a request. What they send:
        # knative/serving pkg/activator/net/revision_backends.go, probe; knative/networking
        # pkg/status/status.go, processWorkItem.
        Role.TRANSIT: _probes("Knative-Activator-Probe", "queue"),
        Role.GATEWAY: _probes("Knative-Ingress-Probe", "probe"),
    }
)


ANSWERED_BY_THE_ACTIVATOR: Final = frozenset({"probe", "activator"})
"""Values of K-Network-Probe that Knative's activator answers itself, whatever else is sent.

Source: knative/serving cmd/activator/main.go, the chain of handlers.
"""


@dataclass(frozen=True, slots=True)
class NamespacePolicy:
    """What differs from the default for one namespace."""

    tenant: str | None = None
    """`None`: the namespace is a tenant of its own."""
    mode: Mode | None = None
    accepts_public: bool | frozenset[str] | None = None
    """Whether the outside world may call it, or which of its Services; `None`: see
    `Policy.accepts_public`."""
    plaintext_peers: bool = False
    """Its pods accept plaintext, so a token counts although nobody proves who presents it."""
    reuse: bool = True
    """Whether proxies may give answers about its requests again by themselves."""


_DEFAULT = NamespacePolicy()


@dataclass(frozen=True)
class Policy:
    """The whole policy. What it does not mention is a tenant of its own without any grant."""

    cluster_domains: tuple[str, ...] = ("cluster.local",)
    trust_domains: frozenset[str] = frozenset({"cluster.local"})
    relays: frozenset[Service] = frozenset()
    default_mode: Mode = Mode.ENFORCE
    default_public: bool = True
    namespaces: Mapping[Namespace, NamespacePolicy] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    roles: Mapping[SpiffeId, frozenset[Role]] = field(default_factory=dict)
    exemptions: Mapping[SpiffeId, tuple[Exemption, ...]] = field(default_factory=dict)
    hosts: Mapping[str, Namespace] = field(default_factory=dict)
    host_templates: tuple[HostTemplate, ...] = ()
    """Names that tell their namespace, such as Knative gives to services."""
    claims: Mapping[str, Namespace] = field(default_factory=dict)
    """Names that the cluster says are a namespace's: Knative's ClusterDomainClaims."""
    route_owners: frozenset[Namespace] = frozenset()
    """Namespaces whose routes may lead from outside into any other."""
    platform: frozenset[Namespace] = field(init=False, repr=False, compare=False)
    """Namespaces of the platform's own: `PLATFORM`, and where relays and holders of roles are."""
    _grants_by_pair: dict[tuple[Namespace, Namespace], list[Grant]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    _exempt_principals: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        principals = frozenset(str(peer) for peer in self.exemptions)
        object.__setattr__(self, "_exempt_principals", principals)
        known = {*(peer.namespace for peer in self.roles), *(it.namespace for it in self.relays)}
        object.__setattr__(self, "platform", PLATFORM | known)
        for grant in self.grants:
            pair = grant.source, grant.destination
            self._grants_by_pair.setdefault(pair, []).append(grant)

    def next_change(self, now: float) -> float:
        """When a grant next ends, in seconds since the epoch; infinity if none does."""
        ends = (grant.until for grant in self.grants)
        return min((end for end in ends if end is not None and end > now), default=inf)

    def reads_path_of(self, principal: str) -> bool:
        """Whether any rule looks at the paths that this peer asks for."""
        return principal in self._exempt_principals

    def of(self, namespace: Namespace) -> NamespacePolicy:
        """What the policy says of one namespace."""
        return self.namespaces.get(namespace, _DEFAULT)

    def mode_of(self, namespace: Namespace) -> Mode:
        """The mode that rules requests to `namespace`."""
        return self.of(namespace).mode or self.default_mode

    def accepts_public(self, namespace: Namespace) -> bool | frozenset[str]:
        """Whether the outside world may call `namespace`, or which of its Services.

        A namespace of the platform's own is open only where it is said, and no Service of a closed
        one is.
        """
        said = self.of(namespace).accepts_public
        if namespace in self.platform:
            return said or frozenset()
        return self.default_public if said is None else said

    @property
    def tells_names(self) -> bool:
        """Whether any name is known to be somebody's."""
        return bool(self.hosts or self.host_templates or self.claims)

    def namespace_of_name(self, host: str) -> Namespace | None:
        """Whose a host is, in its normal form; `None` where nothing tells."""
        if (listed := self.hosts.get(host)) is not None:
            return listed
        for template in self.host_templates:
            if (told := template.namespace_of(host)) is not None:
                return told
        return self.claims.get(host)

    def roles_of(self, workload: SpiffeId) -> frozenset[Role]:
        """The platform parts that `workload` plays; none for a tenant's."""
        return self.roles.get(workload, NO_ROLES)

    def same_tenant(self, one: Namespace, other: Namespace) -> bool:
        """Whether two namespaces belong together."""
        if one == other:
            return True
        tenant = self.of(one).tenant
        return tenant is not None and tenant == self.of(other).tenant

    def granted(
        self,
        source: Namespace,
        service_account: str,
        destination: Namespace,
        port: int | None,
        now: float,
    ) -> Grant | None:
        """The grant of the destination that gives the source access, see `Grant.covers`."""
        for allowed in (source, EVERYONE):
            for grant in self._grants_by_pair.get((allowed, destination), ()):
                if grant.covers(service_account, port, now):
                    return grant
        return None

    def granted_as_a_whole(self, source: Namespace, destination: Namespace, now: float) -> bool:
        """Whether a grant names the source and neither an account nor a port."""
        return any(
            grant.covers("", 0, now)
            for grant in self._grants_by_pair.get((source, destination), ())
        )
