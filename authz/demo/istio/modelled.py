"""Configurations as our own model of istiod writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from authz import envoyfilters
from authz.demo.certs import Certificate
from authz.demo.istio.istiod import Istiod
from authz.demo.istio.mesh import Mesh
from authz.demo.istio.objects import Objects
from authz.demo.istio.routes import Routes
from authz.demo.istio.world import DOMAIN, Json, Pod


@asynccontextmanager
async def modelled(mesh: Mesh) -> AsyncIterator[Modelled]:
    """A source: see `configurations`."""
    yield Modelled(mesh)


class Modelled:
    """Written from the world, without an istiod."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._public: Certificate = mesh.certificate("outside/server")

    async def install(self, documents: Sequence[Json]) -> None:
        """Configure proxies by these."""
        self._control = Istiod(self._mesh.world, Objects(documents), self._public, Routes())
        self._engine = envoyfilters.Patches.of(documents)

    async def of(self, pod: Pod) -> Json:
        """What its proxy is told."""
        assert pod.proxy != "none"  # noqa: S101 - for the type checker
        who = envoyfilters.Proxy(pod.proxy, pod.namespace, pod.labels)
        config = self._control.config(pod, self._mesh.certificate(pod.id))
        told = self._control.routes.written_into(self._engine.applied(who, config))
        return told | {"node": node(pod, who.istio_version)}


def node(pod: Pod, istio_version: str) -> Json:
    """What Istio's agent tells Envoy about its pod: `bootstrap.node` in a config_dump."""
    kind = "router" if pod.proxy == "gateway" else "sidecar"
    place = f"{pod.name}.{pod.namespace}~{pod.namespace}.svc.{DOMAIN}"
    return {
        "id": f"{kind}~{pod.address}~{place}",
        "cluster": f"{pod.name}.{pod.namespace}",
        "metadata": {
            "NAME": pod.name,
            "NAMESPACE": pod.namespace,
            "SERVICE_ACCOUNT": pod.service_account,
            "ISTIO_VERSION": istio_version,
            "INTERCEPTION_MODE": "REDIRECT",
            "LABELS": dict(pod.labels),
            "ANNOTATIONS": {},
        },
    }
