"""The demo's cluster: who runs where, and the Envoys in front of them.

    acme-web, acme-db   two namespaces of the tenant acme; acme-db is not public
    initech             granted into acme-db
    globex              a foreign tenant
    umbrella            a tenant in shadow mode
    mallory             a hostile tenant
    activator           the platform hop that every tenant's requests may pass
    gateway             the way in from outside

Each workload has its own address on the loopback interface, as a pod has its own IP, and one Envoy
for both directions, as a pod has one sidecar.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.envoyfilters import Patches, Proxy, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.envoy import Envoy
from authz.lab.harness.ports import Endpoint, free_ports
from authz.lab.loopback import apps, bootstrap
from authz.lab.loopback.bootstrap import AUTHZ_PORT, CLUSTER_DOMAIN, EVERY_ADDRESS, Json, Service
from authz.wire import inbound_cluster_name

TENANTS: Final = ("acme-web", "acme-db", "initech", "globex", "umbrella", "mallory")
AUTHZ: Final = SpiffeId(CLUSTER_DOMAIN, Namespace("authz-system"), "authz")
ACTIVATOR: Final = SpiffeId(CLUSTER_DOMAIN, Namespace("knative-serving"), "activator")
GATEWAY: Final = SpiffeId(
    CLUSTER_DOMAIN, Namespace("istio-system"), "istio-ingressgateway-service-account"
)

APP_PORT: Final = 8080
ACTIVATOR_PORT: Final = 8012
GATEWAY_PORT: Final = 8080


@dataclass(frozen=True)
class Workload:
    """A pod: an identity, an address, and its sidecar's two doors."""

    identity: SpiffeId
    certificate: Certificate
    outbound: Endpoint
    inbound: Endpoint
    process: Endpoint
    """What the sidecar stands in front of."""

    @property
    def namespace(self) -> str:
        """The namespace that it runs in."""
        return self.identity.namespace


@dataclass(frozen=True)
class Mesh:
    """Where everything is: fixed before anything starts, because all refer to each other."""

    authority: Authority
    tenants: dict[str, Workload]
    activator: Workload
    gateway: Workload
    authz: Service
    authz_http: Endpoint
    external: Endpoint
    """A server outside the mesh."""

    @property
    def services(self) -> list[Service]:
        """Every tenant's `app`, and `app-idle`, which is scaled to zero.

        The endpoint of the latter is the activator: Knative's proxy mode.
        """
        services = []
        hop = (self.activator.inbound, self.activator.identity)
        for number, (namespace, tenant) in enumerate(self.tenants.items(), start=1):
            pod = (tenant.inbound, tenant.identity)
            services += [
                Service("app", namespace, *pod, cluster_ip=f"10.96.{number}.1"),
                Service("app-idle", namespace, *hop, f"10.96.{number}.2", revision="app"),
            ]
        return services

    def service(self, name: str, namespace: str) -> Service:
        """One of the services."""
        return next(it for it in self.services if (it.name, it.namespace) == (name, namespace))


def plan(directory: Path) -> Mesh:
    """Choose addresses and issue certificates."""
    # A network of our own within 127.0.0.0/8: two demos at once do not get into each other's way.
    network = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"
    authority = Authority(directory / "certs")
    apps_of = [SpiffeId(CLUSTER_DOMAIN, Namespace(name), "app") for name in TENANTS]
    identities = [*apps_of, ACTIVATOR, GATEWAY]
    ports = iter(free_ports([f"{network}.{n}" for n in range(1, len(identities) + 2)], each=3))
    workloads = [
        Workload(identity, authority.issue(identity), next(ports), next(ports), next(ports))
        for identity in identities
    ]
    *tenants, activator, gateway = workloads
    # The three ports on the last address: the service, its side port, the server outside.
    authz = Service(
        *("authz", AUTHZ.namespace, next(ports), AUTHZ),
        cluster_ip="10.96.0.9",
        port=AUTHZ_PORT,
        http2=True,
    )
    by_namespace = {tenant.namespace: tenant for tenant in tenants}
    return Mesh(authority, by_namespace, activator, gateway, authz, next(ports), next(ports))


def configs(mesh: Mesh) -> dict[str, Json]:
    """The configuration of every Envoy, by its name."""
    sidecars = {namespace: _sidecar(mesh, it) for namespace, it in mesh.tenants.items()}
    return {**sidecars, "activator": _activator(mesh), "gateway": _gateway(mesh)}


@asynccontextmanager
async def running(
    mesh: Mesh, directory: Path, changed: Mapping[str, Json] | None = None
) -> AsyncIterator[list[Envoy]]:
    """Run the apps and all Envoys as long as the block lasts; `changed` in place of `configs`."""
    executable = envoy.binary()
    async with AsyncExitStack() as stack:
        for namespace, tenant in mesh.tenants.items():
            await stack.enter_async_context(apps.echo(namespace, tenant.process))
        await stack.enter_async_context(apps.echo("external", mesh.external))
        try:
            async with asyncio.TaskGroup() as group:
                starts = [
                    group.create_task(
                        stack.enter_async_context(
                            envoy.running(name, config, directory, executable)
                        )
                    )
                    for name, config in (changed or configs(mesh)).items()
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        yield [start.result() for start in starts]


def _sidecar(mesh: Mesh, tenant: Workload) -> Json:
    """A tenant's Envoy."""
    config = bootstrap.envoy_config(
        [_outbound(mesh, tenant), _inbound(tenant, APP_PORT)],
        [
            *_mesh_clusters(mesh, tenant),
            bootstrap.static_cluster(inbound_cluster_name(APP_PORT), tenant.process),
        ],
    )
    return _patched(config, Proxy("sidecar", tenant.namespace, {}))


def _activator(mesh: Mesh) -> Json:
    """The activator's sidecar and, as a third listener, the activator."""
    activator = mesh.activator
    pods = [service for service in mesh.services if not service.revision]
    config = bootstrap.envoy_config(
        [
            _inbound(activator, ACTIVATOR_PORT),
            bootstrap.activator_listener(activator.process, pods, next_hop="sidecar"),
            _outbound(mesh, activator),
        ],
        [
            *_mesh_clusters(mesh, activator),
            bootstrap.static_cluster(inbound_cluster_name(ACTIVATOR_PORT), activator.process),
            bootstrap.static_cluster("sidecar", activator.outbound),
        ],
    )
    return _patched(config, Proxy("sidecar", activator.namespace, {"app": "activator"}))


def _gateway(mesh: Mesh) -> Json:
    """The public gateway: `<namespace>.example.com`, and `idle.` before it for what sleeps."""
    gateway = mesh.gateway
    hosts = [
        bootstrap.gateway_host(f"{prefix}{it.namespace}.example.com", it)
        for it in mesh.services
        for prefix in ("idle." if it.revision else "",)
    ]
    listener = bootstrap.gateway_listener(Endpoint(EVERY_ADDRESS, GATEWAY_PORT), hosts)
    config = bootstrap.envoy_config([listener], _mesh_clusters(mesh, gateway))
    config = _patched(config, Proxy("gateway", gateway.namespace, {"istio": "ingressgateway"}))
    config["static_resources"]["listeners"][0]["address"] = bootstrap.socket_address(
        gateway.outbound
    )
    return config


def _patched(config: Json, proxy: Proxy) -> Json:
    """What ships, applied as istiod does: by the ports that things have in a cluster.

    There, iptables remember to which port a client went. Here everything takes a free one, so
    that no filter chain may ask for another.
    """
    config = Patches.of(shipped()).applied(proxy, config)
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            chain.pop("filter_chain_match", None)
    return config


def _outbound(mesh: Mesh, workload: Workload) -> Json:
    return bootstrap.outbound_listener("0.0.0.0_80", workload.outbound, mesh.services)


def _inbound(workload: Workload, port: int) -> Json:
    return bootstrap.inbound_listener(workload.inbound, port, workload.certificate)


def _mesh_clusters(mesh: Mesh, workload: Workload) -> list[Json]:
    """Every service, as this workload reaches it: with its own certificate."""
    services = [mesh.authz, *mesh.services]
    clusters = [bootstrap.service_cluster(service, workload.certificate) for service in services]
    return [*clusters, bootstrap.passthrough_cluster()]
