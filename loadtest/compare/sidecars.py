"""Two sidecars for each variant, and one app behind all of them.

    client ──▶ sidecar of acme-web/hello ── mTLS ──▶ sidecar of acme-db/plain ──▶ app

Both are configured with what istiod sent to them in the world of the demo, put onto loopback.
Between the two stands the shared hop's identity, though not the hop: the second sidecar sees the
activator's certificate, so that only the token tells where a request comes from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from authz.envoyfilters import Patches, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint, free_ports
from authz.lab.loopback import plain
from authz.lab.loopback.mesh import ACTIVATOR, AUTHZ_CLUSTER, AUTHZ_PORT, WORLD, host
from authz.lab.recordings import Files, Places, on_loopback, played
from authz.lab.recordings import worlds as recorded
from authz.lab.recordings.playing import secret
from authz.lab.world.model import Json, Pod
from authz.wire import TOKEN_HEADER
from loadtest import processes, tenants
from loadtest.compare.variants import Variant
from loadtest.stack import Server, Stack

SAW: Final = "x-app-saw"
"""The app's answer repeats in this header what it was given as a token."""

_SOURCE: Final = WORLD.pods["acme-web/hello"]
_DESTINATION: Final = WORLD.pods["acme-db/plain"]
_PORT: Final = 8000
_OUTBOUND: Final = "0.0.0.0_80"
_ASKS: Final = "asks"  # the name of a certificate
_APP: Final = "app"

HOST: Final = host("plain", _DESTINATION.namespace)


@dataclass(frozen=True, slots=True)
class Way:
    """A variant that runs."""

    variant: Variant
    signed: Endpoint
    """Through both sidecars."""
    bare: Endpoint
    """The same, without what the first one adds."""
    inbound: Endpoint
    """Where the second one takes mTLS."""
    client: envoy.Envoy
    """The first sidecar."""
    server: envoy.Envoy
    """The second one."""
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
        identities = (_SOURCE.identity, ACTIVATOR, _DESTINATION.identity)
        return cls(*map(stack.certificate, identities))


@asynccontextmanager
async def app(directory: Path, host: str) -> AsyncIterator[Endpoint]:
    """Run the app as long as the block lasts: an Envoy that answers by itself."""
    (endpoint,) = free_ports([host], each=1)
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}},
    }
    saw = [{"header": {"key": SAW, "value": f"%REQ({TOKEN_HEADER})%"}}]
    listener = plain.listener(_APP, endpoint, [answer], response_headers_to_add=saw)
    config = {"static_resources": {"listeners": [listener]}}
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
    signed, bare, inbound = free_ports([behind.host], each=3)
    endpoints = {Endpoint(_DESTINATION.address, _PORT): inbound}
    us = variant.target or (Endpoint(server.host, server.port) if server else None)
    if us is not None:
        endpoints[Endpoint(WORLD.pods["authz-system/authz"].address, AUTHZ_PORT)] = us

    def config(pod: Pod, certificate: Certificate, places: Places, *, asks: bool) -> Json:
        sent = recorded.variant(WORLD, [*WORLD.documents, *shipped()])[pod.id]
        sent = sent.patched(Patches.of(shipped(variant.overlay) if asks else ()))
        made = played(sent, recorded.secrets(certificate, certificate))
        return on_loopback(made, replace(places, endpoints=endpoints))

    out = Places(listeners={_OUTBOUND: signed})
    client = config(_SOURCE, certificates.hop, out, asks=variant.asks)
    out = Places(listeners={_OUTBOUND: bare})
    without = config(_SOURCE, certificates.hop, out, asks=False)["static_resources"]["listeners"]
    into = Places(inbound={_PORT: inbound}, apps={_PORT: behind})
    pod = config(_DESTINATION, certificates.destination, into, asks=variant.asks)
    _put(client, variant.outbound)
    _put(pod, variant.inbound)
    client["static_resources"]["listeners"] += [it | {"name": "bare"} for it in without]
    client["static_resources"]["secrets"] += variant.secrets
    _asks_as(client, certificates.source, plaintext=variant.target is not None)
    _asks_as(pod, certificates.destination, plaintext=variant.target is not None)
    for config_, asker in ((client, _SOURCE), (pod, _DESTINATION)):
        for asks in _asking(config_):
            variant.changed(asks)
        if server is not None and variant.on_socket:
            _asks_on_socket(config_, server, asker)
    name = "".join(letter if letter.isalnum() else "-" for letter in variant.name)
    executable = envoy.binary()
    async with (
        envoy.running(f"{name}-client", client, directory, executable) as first,
        envoy.running(f"{name}-server", pod, directory, executable) as second,
    ):
        asked = frozenset[int]()
        if server is not None:
            asked = server.processes()
        elif variant.target is not None:
            asked = processes.listening(variant.target.port)  # if it runs here
        yield Way(variant, signed, bare, inbound, first, second, asked)


def _asking(config: Json) -> Iterator[Json]:
    """Our filters that ask."""
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for it in chain["filters"][-1]["typed_config"]["http_filters"]:
                if "grpc_service" in it["typed_config"]:
                    yield it["typed_config"]


def _asks_on_socket(config: Json, server: Server, asker: Pod) -> None:
    (ours,) = (it for it in config["static_resources"]["clusters"] if it["name"] == AUTHZ_CLUSTER)
    del ours["transport_socket"]
    pipe = {"endpoint": {"address": {"pipe": {"path": server.socket}}}}
    ours["load_assignment"]["endpoints"] = [{"lb_endpoints": [pipe]}]
    who = {"key": "x-forwarded-client-cert", "value": f"By={tenants.AUTHZ};URI={asker.identity}"}
    for asks in _asking(config):
        asks["grpc_service"]["initial_metadata"].append(who)


def _put(config: Json, filters: Sequence[Json]) -> None:
    """Put HTTP filters before all others."""
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            manager = chain["filters"][-1]["typed_config"]
            manager["http_filters"] = [*filters, *manager["http_filters"]]


def _asks_as(config: Json, certificate: Certificate, *, plaintext: bool) -> None:
    """Let the filters ask with a certificate, or without TLS."""
    resources = config["static_resources"]
    (ours,) = (cluster for cluster in resources["clusters"] if cluster["name"] == AUTHZ_CLUSTER)
    if plaintext:
        del ours["transport_socket"]
        return
    context = ours["transport_socket"]["typed_config"]["common_tls_context"]
    context["tls_certificate_sds_secret_configs"] = [{"name": _ASKS}]
    files = Files(certificate.cert_file, certificate.key_file)
    resources["secrets"].append(secret(_ASKS, files))
