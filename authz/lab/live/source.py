"""The proxies of a box take their configuration from a real istiod, by ADS."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from authz.lab import ads, controlplane, nodes
from authz.lab.box.istio.mesh import Source
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.versions import ISTIO
from authz.lab.harness.certs import Certificate
from authz.lab.live.bootstrap import bootstrap
from authz.lab.live.pushed import pushed
from authz.lab.live.relay import relaying
from authz.lab.live.secrets import serving
from authz.lab.settled import settled
from authz.lab.world import objects
from authz.lab.world.model import ROOT_NAMESPACE, Pod

if TYPE_CHECKING:
    from authz.lab.box.istio.mesh import Mesh

Json = dict[str, Any]

_GATEWAY: Final = "istio-ingressgateway-service-account"


def live(istio: str = ISTIO, tell: Callable[[str], None] = lambda _: None) -> Source:
    """A source: see `authz.lab.box.istio.configurations`.

    Each box has a control plane of its own, whose istiod signs in the name of the box's authority.

    Args:
        istio: one of `versions.ISTIODS`.
        tell: gets a line for each program that has to be built first.
    """

    @asynccontextmanager
    async def source(mesh: Mesh) -> AsyncIterator[Live]:
        async with AsyncExitStack() as stack:
            running = controlplane.running(
                istio=istio,
                environment=controlplane.UPSTREAM_ENVOY,
                authority=mesh.authority,
                tell=tell,
            )
            plane = await stack.enter_async_context(running)
            api = await stack.enter_async_context(plane.api())
            assert plane.istiod is not None  # noqa: S101 - for the type checker
            discovery = await stack.enter_async_context(ads.connected(plane.istiod.ads))
            made = Live(mesh, plane.istiod, api, discovery)
            host, _, port = plane.istiod.secure.rpartition(":")
            await stack.enter_async_context(relaying(made.way, host, int(port)))
            await stack.enter_async_context(serving(made.secrets, discovery, made.certificates))
            await api.apply(_public(mesh.certificate("outside/server")))
            yield made

    return source


class Live:
    """What is in the API server, and how proxies reach istiod."""

    def __init__(
        self, mesh: Mesh, istiod: controlplane.Istiod, api: Api, discovery: ads.Discovery
    ) -> None:
        self._mesh, self._istiod, self._api, self._discovery = mesh, istiod, api, discovery
        self._there: list[Json] = []
        self._number = 0
        self.way = mesh.directory / "istiod.socket"
        self.secrets = mesh.directory / "secrets.socket"
        self.certificates: dict[str, Certificate] = {}
        """By id of a node."""

    async def install(self, documents: Sequence[Json]) -> None:
        """Put the world and these documents into the API server, and wait until all have them.

        Raises:
            Refused: the API server does not take one.
            NotSettled: istiod or a proxy has them not in time.
        """
        filters = [document for document in documents if document["kind"] == "EnvoyFilter"]
        wanted = [*objects.rendered(self._mesh.world, documents), *filters]
        await self._api.replace(self._there, wanted)
        self._there = wanted
        self._number += 1
        await settled(self._api, self._istiod, self._discovery, wanted, self._number)
        if self._mesh.proxies:
            await pushed(self._api, self._mesh.proxies.values(), self._number)

    async def of(self, pod: Pod) -> Json:
        """A bootstrap that leads to istiod."""
        node = nodes.node(pod)
        certificate = self._mesh.certificate(pod.id)
        self.certificates[node["id"]] = certificate
        return bootstrap(self._istiod.name, node, certificate, self.way, self.secrets)


def _public(certificate: Certificate) -> list[Json]:
    """What the gateway shows to clients outside, and its right to read it, as Istio installs it."""
    metadata = {"name": "istio-ingressgateway-sds", "namespace": ROOT_NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch", "list"]}]
    group = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": _GATEWAY, "namespace": ROOT_NAMESPACE}
    content = {
        "tls.crt": base64.b64encode(certificate.cert_file.read_bytes()).decode(),
        "tls.key": base64.b64encode(certificate.key_file.read_bytes()).decode(),
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "public", "namespace": ROOT_NAMESPACE},
            "type": "kubernetes.io/tls",
            "data": content,
        },
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": metadata["name"]},
            "subjects": [account],
        },
    ]
