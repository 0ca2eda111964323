"""One Envoy with one shipped filter, a scripted service to ask, and an app that echoes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import randrange

import httpx

from authz import envoyfilters
from authz.envoyfilters import Patches, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import apps, bootstrap
from authz.lab.loopback.bootstrap import EVERY_ADDRESS, Json, Service
from authz.lab.loopback.mesh import AUTHZ
from tests.envoy.scripted import ScriptedAuthz

AUTHZ_CLUSTER = "outbound|9000||authz.authz-system.svc.cluster.local"


@dataclass(frozen=True)
class Door:
    """What istiod compares an EnvoyFilter with: one listener, or filter chain, of one proxy."""

    proxy: envoyfilters.Proxy
    port: int
    direction: str = ""
    """Of a sidecar's listener: INBOUND or OUTBOUND."""

    def listener(
        self,
        address: Endpoint,
        hosts: Sequence[Json],
        overlay: str = "",
        cert: Certificate | None = None,
        others: Sequence[Json] = (),
    ) -> Json:
        """A listener at `address`, patched as the one behind this door is in a cluster.

        With `cert`, it takes mutual TLS only. `others` are EnvoyFilters beside ours.
        """
        made = bootstrap.gateway_listener(Endpoint(EVERY_ADDRESS, self.port), hosts)
        (chain,) = made["filter_chains"]
        if self.direction:
            made["traffic_direction"] = self.direction
        if self.direction == "INBOUND":  # behind one port: the chain tells to which the client went
            made["name"] = "virtualInbound"
            chain |= {
                "name": f"0.0.0.0_{self.port}",
                "filter_chain_match": {"destination_port": self.port},
            }
        config = bootstrap.envoy_config([made], [])
        config = Patches.of([*shipped(overlay), *others]).applied(self.proxy, config)
        listener: Json
        (listener,) = config["static_resources"]["listeners"]
        (chain,) = listener["filter_chains"]
        chain.pop("filter_chain_match", None)  # in a cluster, iptables remember the port
        if cert is not None:
            chain["transport_socket"] = bootstrap.downstream_tls(cert)
        return listener | {"address": bootstrap.socket_address(address)}

    def http_filters(self, overlay: str = "", others: Sequence[Json] = ()) -> list[Json]:
        """The HTTP filters behind it, but for the router."""
        (chain,) = self.listener(Endpoint("", 0), [], overlay, None, others)["filter_chains"]
        http_filters: list[Json]
        *http_filters, router = chain["filters"][0]["typed_config"]["http_filters"]
        assert router == bootstrap.ROUTER
        return http_filters


def sidecar(namespace: str, direction: str, port: int, app: str = "app") -> Door:
    return Door(envoyfilters.Proxy("sidecar", namespace, {"app": app}), port, direction)


def gateway(port: int, istio: str = "ingressgateway") -> Door:
    return Door(envoyfilters.Proxy("gateway", "istio-system", {"istio": istio}), port)


SIGN = sidecar("acme-web", "OUTBOUND", 80)
VERIFY = sidecar("acme-web", "INBOUND", 8080)
TRANSIT = sidecar("knative-serving", "INBOUND", 8012, "activator")
SCRAPED = sidecar("acme-web", "INBOUND", 9090)
PUBLIC = gateway(8080)
LOCAL = gateway(8081)
BROKER = Door(
    envoyfilters.Proxy(
        "sidecar", "knative-eventing", {"eventing.knative.dev/brokerRole": "ingress"}
    ),
    *(8080, "INBOUND"),
)
FILTER = Door(
    envoyfilters.Proxy(
        "sidecar", "knative-eventing", {"eventing.knative.dev/brokerRole": "filter"}
    ),
    *(8080, "INBOUND"),
)
CHANNEL = Door(
    envoyfilters.Proxy(
        *("sidecar", "knative-eventing"),
        {
            "messaging.knative.dev/channel": "in-memory-channel",
            "messaging.knative.dev/role": "dispatcher",
        },
    ),
    *(8080, "INBOUND"),
)

ISTIO = {"1.36": "1.28.9", "1.37": "1.29.0", "1.38": "1.30.0", "1.39": "1.31.0", "1.40": "1.32.0"}
"""The Istio release that each Envoy came with; the last two are guesses by Istio's rhythm."""


@dataclass(frozen=True)
class Proxy:
    """The Envoy, with an app behind it."""

    address: Endpoint
    service: Service
    envoy: envoy.Envoy

    async def get(
        self,
        headers: Sequence[tuple[str, str]] = (),
        *,
        path: str = "/path?query=1",
        cert: Certificate | None = None,
    ) -> httpx.Response:
        """Send a request, with `cert` over mutual TLS."""
        scheme, tls = ("http", True) if cert is None else ("https", cert.client_context())
        async with httpx.AsyncClient(trust_env=False, verify=tls) as client:
            request = httpx.Request("GET", f"{scheme}://{self.address}{path}", headers=headers)
            return await client.send(request)


@dataclass(frozen=True)
class Workbench:
    """Makes proxies that ask `authz`."""

    authz: ScriptedAuthz
    executable: Path
    directory: Path

    @asynccontextmanager
    async def proxy(
        self, door: Door, overlay: str = "", cert: Certificate | None = None, without: str = ""
    ) -> AsyncIterator[Proxy]:
        address, app = free_port(), free_port()
        service = Service("app", "acme-web", app, AUTHZ, "10.96.1.1")
        hosts = [bootstrap.gateway_host("*", service)]
        config = bootstrap.envoy_config(
            [_without(without, door.listener(address, hosts, overlay, cert))],
            [
                bootstrap.static_cluster(service.cluster, app),
                bootstrap.static_cluster(AUTHZ_CLUSTER, self.authz.endpoint, http2=True),
            ],
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(apps.echo("app", app))
            started = envoy.running("bench", config, self.directory, self.executable)
            yield Proxy(address, service, await stack.enter_async_context(started))


def _without(name: str, listener: Json) -> Json:
    """The listener, but for one HTTP filter."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [it for it in manager["http_filters"] if it["name"] != name]
    return listener


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
