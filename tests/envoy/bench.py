"""One Envoy with one shipped filter, a scripted service to ask, and an app that echoes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import randrange

import httpx

from authz.demo import apps, bootstrap, envoy, filters
from authz.demo.bootstrap import Endpoint, Service
from authz.demo.mesh import AUTHZ
from tests.envoy.scripted import ScriptedAuthz

AUTHZ_CLUSTER = "outbound|9000||authz.authz-system.svc.cluster.local"

SIGN = filters.Chain("SIDECAR_OUTBOUND", "acme-web", 80)
VERIFY = filters.Chain("SIDECAR_INBOUND", "acme-web", 8080)
TRANSIT = filters.Chain("SIDECAR_INBOUND", "knative-serving", 8012, {"app": "activator"})
PUBLIC = filters.Chain("GATEWAY", "istio-system", 8080, {"istio": "ingressgateway"})


@dataclass(frozen=True)
class Proxy:
    """The Envoy, with an app behind it."""

    address: Endpoint
    service: Service
    envoy: envoy.Envoy

    async def get(self, headers: Sequence[tuple[str, str]] = ()) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            request = httpx.Request("GET", f"http://{self.address}/path?query=1", headers=headers)
            return await client.send(request)


@dataclass(frozen=True)
class Workbench:
    """Makes proxies that ask `authz`."""

    authz: ScriptedAuthz
    executable: Path
    directory: Path

    @asynccontextmanager
    async def proxy(self, chain: filters.Chain) -> AsyncIterator[Proxy]:
        address, app = free_port(), free_port()
        service = Service("app", "acme-web", app, AUTHZ, "10.96.1.1")
        hosts = [bootstrap.gateway_host("*", service)]
        http_filters = filters.patched([bootstrap.ROUTER], chain)
        config = bootstrap.envoy_config(
            [bootstrap.gateway_listener(address, chain.port, hosts, http_filters)],
            [
                bootstrap.static_cluster(service.cluster, app),
                bootstrap.static_cluster(AUTHZ_CLUSTER, self.authz.endpoint, http2=True),
            ],
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(apps.echo("app", app))
            started = envoy.running("bench", config, self.directory, self.executable)
            yield Proxy(address, service, await stack.enter_async_context(started))


def seen_by_app(response: httpx.Response) -> list[tuple[str, str]]:
    """The request headers that reached the app."""
    assert response.status_code == 200, response.text
    return [(name, value) for name, value in response.json()["headers"]]


def values(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in headers if key == name]


def free_port() -> Endpoint:
    """A port that nobody uses, on an address from which no connection goes out.

    On 127.0.0.1, a connection that is made meanwhile could take it for its own end.
    """
    with socket.socket() as bound:
        bound.bind((f"127.{randrange(1, 255)}.{randrange(255)}.{randrange(1, 255)}", 0))
        return Endpoint(*bound.getsockname())
