"""The cluster that is looked at, each part read once, and what should be in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from authz.check.things import Object, labels, lives, name, namespace, part
from authz.domain.policy import PLATFORM, Policy
from authz.errors import BadPolicy
from authz.kube import KubeError, Resource
from authz.kube.forward import Upgrading
from authz.policysource.file import parse_policy
from authz.wire import TENANT_LABEL

PODS: Final = Resource("pods")
NAMESPACES: Final = Resource("namespaces")
SERVICES: Final = Resource("services")
DAEMON_SETS: Final = Resource("daemonsets", "apps")
DEPLOYMENTS: Final = Resource("deployments", "apps")
ENVOY_FILTERS: Final = Resource("envoyfilters", "networking.istio.io", "v1alpha3")
CONFIG_MAPS: Final = Resource("configmaps")
PEER_AUTHENTICATIONS: Final = Resource("peerauthentications", "security.istio.io")

POLICY: Final = ("tenant-authz-policy", "policy.yaml")
"""The policy's ConfigMap and the key in it."""
INJECTION: Final = ("istio-injection", "istio.io/rev")
"""Labels of a namespace by which its pods get sidecars."""


class Server(Upgrading, Protocol):
    """As much of `kube.ApiServer` as checks need."""

    async def version(self) -> Object:
        """What the server says of itself."""

    async def list(self, resource: Resource, keep: Any = ...) -> tuple[list[Object], str]:
        """All objects of a kind."""

    async def create(self, resource: Resource, made: Object) -> Object:
        """Make an object, or ask for a review."""

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        """What a pod answers to a GET, by way of the API server."""


@dataclass(frozen=True)
class Wanted:
    """What should be there, as far as it differs between installs."""

    filters: Sequence[Object]
    """The objects of an overlay; those in force are found by `overlays`, if it is not empty."""
    usual: Policy
    """The policy that ships."""
    policy: Policy | None = None
    """The one to go by, in place of the cluster's own or the one that ships."""
    overlays: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    admission: Sequence[Object] = ()
    version: str = ""
    """Of this program."""
    home: str = "authz-system"
    """The service's own namespace."""
    root_namespace: str = "istio-system"
    platform: frozenset[str] = frozenset()
    """Namespaces of the platform, besides those that the policy knows."""

    def filter(self, kind: str) -> Object:
        """The EnvoyFilter `tenant-authz-<kind>` as it should be; empty if it is not part of it."""
        wanted = f"tenant-authz-{kind}"
        return next(
            (it for it in self.filters if it["kind"] == "EnvoyFilter" and name(it) == wanted), {}
        )


class Site:
    """Reads what checks need, each kind once."""

    def __init__(self, server: Server, wanted: Wanted, *, before: bool) -> None:
        self.server = server
        self.wanted = wanted
        self.before = before
        """Whether the service is not installed yet."""
        self.told: Sequence[Mapping[str, list[float]]] | KubeError | None = None
        """What each server's metrics say, once they were read."""
        self.policy = wanted.policy or wanted.usual
        """The policy in force; before, the one that will be; see `read_policy`."""
        self.bad_policy = ""
        """Why `policy` is not the one in force."""
        self.unread_policy: KubeError | None = None
        """The same, where nobody knows whether it is good."""
        self._read: dict[Resource, list[Object] | KubeError] = {}

    async def all_of(self, resource: Resource) -> list[Object]:
        """All objects of a kind; none, where the kind is not installed.

        Raises:
            KubeError: they cannot be read.
        """
        try:
            return await self._listed(resource)
        except KubeError as error:
            if error.status == 404:
                return []
            raise

    async def serves(self, resource: Resource) -> bool:
        """Whether the kind is installed.

        Raises:
            KubeError: that cannot be read.
        """
        try:
            await self._listed(replace(resource, metadata_only=True))
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def one(self, resource: Resource, place: str, called: str) -> Object | None:
        """An object of this name; `None` if there is none.

        Raises:
            KubeError: it cannot be read.
        """
        found = await self.all_of(replace(resource, namespace=place or None, name=called))
        return found[0] if found else None

    async def pods(self, place: str | None = None, **wanted: str) -> list[Object]:
        """The pods that have not ended, of a namespace and with labels.

        Raises:
            KubeError: they cannot be read.
        """
        return [
            it
            for it in await self.all_of(PODS)
            if lives(it)
            and (place is None or namespace(it) == place)
            and wanted.items() <= labels(it).items()
        ]

    async def tenants(self) -> list[Object]:
        """The namespaces that are not the platform's.

        Raises:
            KubeError: they cannot be read.
        """
        return [it for it in await self.all_of(NAMESPACES) if not self.is_platform(name(it))]

    def is_platform(self, space: str) -> bool:
        """Whether a namespace is the platform's own."""
        own = {self.wanted.home, self.wanted.root_namespace, *self.wanted.platform}
        return space in own or space in self.policy.platform | PLATFORM

    async def read_policy(self) -> None:
        """Take the policy that the cluster has, unless one is given or none is there yet."""
        if self.before or self.wanted.policy is not None:
            return
        place = f"{self.wanted.home}/{POLICY[0]}"
        try:
            found = await self.one(CONFIG_MAPS, self.wanted.home, POLICY[0])
            if found is None:
                self.bad_policy = f"there is no ConfigMap {place}"
            else:
                self.policy = parse_policy(str(part(found, "data", POLICY[1]) or ""))
        except BadPolicy as error:
            self.bad_policy = f"{place}: {error.problems[0]}"
        except KubeError as error:
            self.bad_policy, self.unread_policy = str(error), error

    async def _listed(self, resource: Resource) -> list[Object]:
        if resource not in self._read:
            try:
                keep = (
                    _names
                    if resource.metadata_only
                    else _slim
                    if resource.plural == "pods"
                    else _whole
                )
                self._read[resource] = (await self.server.list(resource, keep))[0]
            except KubeError as error:
                self._read[resource] = error
        found = self._read[resource]
        if isinstance(found, KubeError):
            raise found
        return found


def injected(space: Object) -> bool:
    """Whether a namespace's pods get sidecars, as its labels have it."""
    said = labels(space)
    return said.get(INJECTION[0]) == "enabled" or (
        INJECTION[0] not in said and INJECTION[1] in said
    )


def is_tenant(space: Object) -> bool:
    """Whether a namespace has the label by which admission rules and quotas find it."""
    return bool(labels(space).get(TENANT_LABEL))


def _whole(thing: Object) -> Object:
    return thing


def _names(thing: Object) -> Object:
    """Not its annotations: kubectl writes what it applied into one, a Secret's content, too."""
    metadata = part(thing, "metadata") or {}
    return {"metadata": {it: metadata.get(it) for it in ("name", "namespace", "labels")}}


def _slim(pod: Object) -> Object:
    """Of a pod, what checks read: there may be ten thousand."""
    metadata, spec = part(pod, "metadata") or {}, part(pod, "spec") or {}
    kept = ("name", "image", "env", "ports")

    def short(key: str) -> Object:
        found = spec.get(key) or []
        return {key: [{word: it.get(word) for word in kept} for it in found]}

    status = part(pod, "status") or {}
    return {
        "metadata": {it: metadata.get(it) for it in ("name", "namespace", "labels", "annotations")},
        "spec": {
            "serviceAccountName": spec.get("serviceAccountName"),
            **short("containers"),
            **short("initContainers"),
        },
        "status": {it: status.get(it) for it in ("phase", "conditions")},
    }
