"""The demo's cluster: who runs where, and the Envoys in front of them.

    acme-web, acme-db   two namespaces of the tenant acme; acme-db is not public
    initech             granted into acme-db
    globex              a foreign tenant
    umbrella            a tenant in shadow mode
    mallory             a hostile tenant
    activator           the platform hop that every tenant's requests may pass
    gateway             the way in from outside

It is the world of the mesh in a box, and its Envoys are configured with what the real istiod sent
to its proxies, put onto loopback: see `authz.lab.recordings`. Of a tenant's pods there is `hello`,
which answers in place of `idle`, too. Each workload has its own address on the loopback interface,
as a pod has its own IP, and one Envoy for both directions, as a pod has one sidecar.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.domain.identity import SpiffeId
from authz.envoyfilters import Patches, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.envoy import Envoy
from authz.lab.harness.ports import Endpoint, free_ports
from authz.lab.loopback import apps, plain
from authz.lab.recordings import Places, on_loopback, played
from authz.lab.recordings import worlds as recorded
from authz.lab.world.cluster import REVISION, TENANTS
from authz.lab.world.model import DOMAIN, Json
from authz.lab.world.paths import world

WORLD: Final = world()
AUTHZ: Final = WORLD.pods["authz-system/authz"].identity
ACTIVATOR: Final = WORLD.pods["knative-serving/activator"].identity
GATEWAY: Final = WORLD.pods["istio-system/gateway"].identity
AUTHZ_PORT: Final = 9000

_APP: Final = f"hello-{REVISION}"
_ASLEEP: Final = f"idle-{REVISION}"
_QUEUE_PORT: Final = 8012
"""Of a revision's pod, and of the activator."""

_REVISION_HEADER: Final = "knative-serving-revision"
_NAMESPACE_HEADER: Final = "knative-serving-namespace"


@dataclass(frozen=True)
class Workload:
    """A pod: an identity, an address, and its sidecar's two doors."""

    pod: str
    """As the world calls it."""
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
    """Its doors are the public one and, inbound, Knative's local one."""
    authz: Endpoint
    authz_http: Endpoint
    external: Endpoint
    """A server outside the mesh."""


def plan(directory: Path) -> Mesh:
    """Choose addresses and issue certificates."""
    # A network of our own within 127.0.0.0/8: two demos at once do not get into each other's way.
    network = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"
    authority = Authority(directory / "certs")
    pods = [f"{it}/hello" for it in TENANTS] + ["knative-serving/activator", "istio-system/gateway"]
    ports = iter(free_ports([f"{network}.{n}" for n in range(1, len(pods) + 2)], each=3))
    workloads = [_workload(pod, authority, ports) for pod in pods]
    *tenants, activator, gateway = workloads
    # The three ports on the last address: the service, its side port, the server outside.
    by_namespace = {tenant.namespace: tenant for tenant in tenants}
    return Mesh(authority, by_namespace, activator, gateway, *ports)


def _workload(pod: str, authority: Authority, ports: Iterator[Endpoint]) -> Workload:
    identity = WORLD.pods[pod].identity
    return Workload(pod, identity, authority.issue(identity), next(ports), next(ports), next(ports))


# ---- names ----


def host(name: str, namespace: str) -> str:
    """The full DNS name of a Service."""
    return f"{name}.{namespace}.svc.{DOMAIN}"


AUTHZ_HOST: Final = host("authz", AUTHZ.namespace)
AUTHZ_CLUSTER: Final = f"outbound|{AUTHZ_PORT}||{AUTHZ_HOST}"


def app_cluster(namespace: str) -> str:
    """What every sidecar calls the cluster of a tenant's app."""
    return f"outbound|80||{host(_APP, namespace)}"


def app_address(namespace: str) -> str:
    """The cluster IP of a tenant's app."""
    return WORLD.service(_APP, namespace).address


def steering(namespace: str) -> list[tuple[str, str]]:
    """The headers by which the activator finds a tenant's app."""
    return [(_NAMESPACE_HEADER, namespace), (_REVISION_HEADER, _ASLEEP)]


# ---- Envoys ----


def configs(mesh: Mesh, overlay: str = "") -> dict[str, Json]:
    """The configuration of every Envoy, by its name, with an overlay of the shipped filters."""
    documents = [*WORLD.documents, *shipped(overlay)]
    sent, engine = recorded.variant(WORLD, documents), Patches.of(documents)
    endpoints = dict(_endpoints(mesh))

    def config(workload: Workload, places: Places) -> Json:
        files = recorded.secrets(workload.certificate, mesh.gateway.certificate)
        made = played(sent[workload.pod].patched(engine), files)
        return on_loopback(made, places) | {"layered_runtime": recorded.runtime()}

    def sidecar(workload: Workload) -> Json:
        places = Places(
            listeners={"0.0.0.0_80": workload.outbound},
            inbound={_QUEUE_PORT: workload.inbound},
            apps={_QUEUE_PORT: workload.process},
            endpoints=endpoints,
        )
        return config(workload, places)

    doors = {"0.0.0.0_8080": mesh.gateway.outbound, "0.0.0.0_8081": mesh.gateway.inbound}
    return {
        **{namespace: sidecar(it) for namespace, it in mesh.tenants.items()},
        "activator": _with_activator(sidecar(mesh.activator), mesh),
        "gateway": config(mesh.gateway, Places(listeners=doors, endpoints=endpoints)),
    }


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


def _endpoints(mesh: Mesh) -> Iterator[tuple[Endpoint, Endpoint]]:
    """What stands for the pods of the world."""
    for workload in (*mesh.tenants.values(), mesh.activator):
        yield Endpoint(WORLD.pods[workload.pod].address, _QUEUE_PORT), workload.inbound
    yield Endpoint(WORLD.pods[mesh.gateway.pod].address, 8081), mesh.gateway.inbound
    yield Endpoint(WORLD.pods["authz-system/authz"].address, AUTHZ_PORT), mesh.authz


def _with_activator(config: Json, mesh: Mesh) -> Json:
    """The activator's sidecar and, as one more listener, the activator.

    It sends a request to the revision that two headers name, by its sidecar: to the private Service
    of the tenant's pod.
    """
    routes = [
        {
            "match": {
                "prefix": "/",
                "headers": [
                    {"name": name, "string_match": {"exact": value}}
                    for name, value in steering(namespace)
                ],
            },
            "route": {
                "cluster": "sidecar",
                "timeout": "0s",
                "host_rewrite_literal": host(f"{_APP}-private", namespace),
            },
            "request_headers_to_remove": [_REVISION_HEADER, _NAMESPACE_HEADER],
        }
        for namespace in mesh.tenants
    ]
    resources = config["static_resources"]
    resources["listeners"].append(plain.listener("activator", mesh.activator.process, routes))
    resources["clusters"].append(plain.cluster("sidecar", mesh.activator.outbound))
    return config
