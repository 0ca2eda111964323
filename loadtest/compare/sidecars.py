"""Two sidecars for each variant, and one app behind all of them.

    client ──▶ sidecar of team0000-0 ── mTLS ──▶ sidecar of team0000-1 ──▶ app

Between the two stands the shared hop's identity, though not the hop: the second sidecar sees the
activator's certificate, so that only the token tells where a request comes from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.envoyfilters import Patches, Proxy, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import bootstrap
from authz.lab.loopback.bootstrap import Json, Service
from authz.wire import TOKEN_HEADER, inbound_cluster_name
from loadtest import mesh, processes
from loadtest.compare.variants import APP_PORT, Variant
from loadtest.stack import Server, Stack, free_ports

SAW: Final = "x-app-saw"
"""The app's answer repeats in this header what it was given as a token."""

_SOURCE: Final = mesh.workload(mesh.namespace(0))
_DESTINATION: Final = mesh.workload(mesh.sibling(0))
_APP: Final = "app"

HOST: Final = f"web.{_DESTINATION.namespace}.svc.{bootstrap.CLUSTER_DOMAIN}"


@dataclass(frozen=True, slots=True)
class Way:
    """A variant that runs."""

    variant: Variant
    signed: Endpoint
    """Through both sidecars."""
    bare: Endpoint
    """The same, without what the first one adds."""
    client: int
    """Process of the first sidecar."""
    server: int
    """Of the second one."""
    authz: frozenset[int]
    """Of the service that they ask, where it is known."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the sidecars present."""

    source: Certificate
    hop: Certificate
    destination: Certificate

    @classmethod
    def issued(cls, stack: Stack) -> Certificates:
        """New ones."""
        return cls(*map(stack.certificate, (_SOURCE, mesh.ACTIVATOR, _DESTINATION)))


@asynccontextmanager
async def app(directory: Path, host: str) -> AsyncIterator[Endpoint]:
    """Run the app as long as the block lasts: an Envoy that answers by itself."""
    endpoint = Endpoint(host, free_ports(host, 1)[0])
    answer = {
        "name": _APP,
        "domains": ["*"],
        "routes": [
            {
                "match": {"prefix": "/"},
                "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
            }
        ],
        "response_headers_to_add": [{"header": {"key": SAW, "value": f"%REQ({TOKEN_HEADER})%"}}],
    }
    listener = bootstrap.gateway_listener(endpoint, [answer])
    config = bootstrap.envoy_config([listener], [])
    async with envoy.running(_APP, config, directory, envoy.binary()):
        yield endpoint


@asynccontextmanager
async def way(
    variant: Variant,
    directory: Path,
    certificates: Certificates,
    behind: Endpoint,
    server: Server | None,
) -> AsyncIterator[Way]:
    """Run a variant's sidecars as long as the block lasts.

    Raises:
        CouldNotStart: one did not come up.
    """
    host = behind.host
    signed, bare, inbound = (Endpoint(host, port) for port in free_ports(host, 3))
    service = Service("web", _DESTINATION.namespace, inbound, _DESTINATION, "10.96.0.1")
    client = bootstrap.envoy_config(
        [
            _filtered(
                bootstrap.outbound_listener("0.0.0.0_80", signed, [service]),
                variant,
                _SOURCE.namespace,
                variant.outbound,
            ),
            bootstrap.outbound_listener("0.0.0.0_81", bare, [service]),
        ],
        [
            bootstrap.service_cluster(service, certificates.hop),
            bootstrap.passthrough_cluster(),
            *_authz_cluster(variant, certificates.source, server),
        ],
    )
    client["static_resources"]["secrets"] = list(variant.secrets)
    pod = bootstrap.envoy_config(
        [
            _filtered(
                bootstrap.inbound_listener(inbound, APP_PORT, certificates.destination),
                variant,
                _DESTINATION.namespace,
                variant.inbound,
            )
        ],
        [
            bootstrap.static_cluster(inbound_cluster_name(APP_PORT), behind),
            *_authz_cluster(variant, certificates.destination, server),
        ],
    )
    name = "".join(letter if letter.isalnum() else "-" for letter in variant.name)
    executable = envoy.binary()
    async with (
        envoy.running(f"{name}-client", client, directory, executable) as first,
        envoy.running(f"{name}-server", pod, directory, executable) as second,
    ):
        pids = (first.child.process.pid, second.child.process.pid)
        asked = frozenset[int]()
        if server is not None:
            asked = server.processes()
        elif variant.target is not None:
            asked = processes.listening(variant.target.port)  # if it runs here
        yield Way(variant, signed, bare, *pids, asked)


def _filtered(
    listener: Json, variant: Variant, namespace: str, own_filters: Sequence[Json]
) -> Json:
    """A listener with what the variant puts before the router."""
    if variant.asks:
        engine = Patches.of(shipped())
        config = bootstrap.envoy_config([listener], [])
        config = engine.applied(Proxy("sidecar", namespace, {}), config)
        (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    chain.pop("filter_chain_match", None)  # by the port in a cluster, here it is a free one
    manager = chain["filters"][-1]["typed_config"]
    manager["http_filters"] = [*own_filters, *manager["http_filters"]]
    return listener


def _authz_cluster(variant: Variant, certificate: Certificate, server: Server | None) -> list[Json]:
    """The cluster that the filters name."""
    if server is not None:
        endpoint = Endpoint(server.host, server.port)
    elif variant.target is not None:
        endpoint = variant.target
    else:
        return []
    service = Service(
        *("authz", mesh.AUTHZ.namespace, endpoint, mesh.AUTHZ),
        cluster_ip="10.96.0.9",
        port=bootstrap.AUTHZ_PORT,
        http2=True,
    )
    if server is not None:
        return [bootstrap.service_cluster(service, certificate)]
    return [bootstrap.static_cluster(service.cluster, endpoint, http2=True)]
