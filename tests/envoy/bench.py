"""One Envoy of the mesh, as recorded, with a scripted service to ask and an app behind it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import randrange

import httpx

from authz import envoyfilters
from authz.domain.identity import SpiffeId
from authz.envoyfilters import Patches, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import apps
from authz.lab.loopback.mesh import AUTHZ_PORT, WORLD
from authz.lab.recordings import ANY_OTHER, Places, Sent, on_loopback, played
from authz.lab.recordings import worlds as recorded
from authz.lab.world.model import Json
from tests.envoy.scripted import ScriptedAuthz

ISTIO = {"1.36": "1.28.9", "1.37": "1.29.0", "1.38": "1.30.0", "1.39": "1.31.0", "1.40": "1.32.0"}
"""The Istio release that each Envoy came with; the last two are guesses by Istio's rhythm."""


@dataclass(frozen=True)
class Door:
    """A listener of a proxy of the world, or all filter chains for a port of its pod."""

    pod: str
    at: str | int
    """The listener's name, or the pod's port, or `ANY_OTHER`."""
    host: str = "app.test"
    """By which a request finds its way."""
    caller: str = "globex/plain"
    """Who calls, where it takes mutual TLS."""
    proxy: envoyfilters.Proxy | None = None
    """In place of the pod's own: for which EnvoyFilters count."""
    port: int | None = None
    """In place of the port that a gateway's listener has."""

    def sent(
        self, overlay: str = "", others: Iterable[Json] = (), istio: str | None = None
    ) -> Sent:
        """What istiod sends the proxy, with EnvoyFilters beside ours, to an Istio of a version."""
        documents = [*shipped(overlay), *others]
        bare = self.bare()
        if self.port is not None:
            (moved,) = (self._moved(it) for it in bare.listeners if it["name"] == self.at)
            bare = replace(bare, listeners=(moved,))
        proxy = self.proxy or bare.proxy
        if istio is not None:
            proxy = replace(proxy, istio_version=istio)
        return bare.patched(Patches.of(documents), proxy)

    def bare(self) -> Sent:
        """The same without EnvoyFilters."""
        return recorded.variant(WORLD, [*WORLD.documents, *shipped()])[self.pod]

    def http_filters(self, overlay: str = "", others: Iterable[Json] = ()) -> list[Json]:
        """The HTTP filters behind it."""
        sent = self.sent(overlay, others)
        name = self.at if isinstance(self.at, str) else "virtualInbound"
        name = name if self.port is None else f"0.0.0.0_{self.port}"
        (listener,) = (it for it in sent.listeners if it["name"] == name)
        managers = [
            chain["filters"][-1]["typed_config"]
            for chain in listener["filter_chains"]
            if name != "virtualInbound" or _port(chain) == self.at
        ]
        found: list[Json]
        found = next(manager["http_filters"] for manager in managers if "http_filters" in manager)
        return found

    def _moved(self, listener: Json) -> Json:
        address = {"socket_address": {"address": "0.0.0.0", "port_value": self.port}}  # noqa: S104
        return {**listener, "name": f"0.0.0.0_{self.port}", "address": address}


def _port(chain: Json) -> int:
    found: int = chain.get("filter_chain_match", {}).get("destination_port", ANY_OTHER)
    return found


def _eventing(labels: dict[str, str]) -> envoyfilters.Proxy:
    return envoyfilters.Proxy("sidecar", "knative-eventing", labels)


PUBLIC_HOST = "hello.acme-web.example.com"
SIGN = Door("acme-web/hello", "0.0.0.0_80", "plain.acme-web.svc.cluster.local")
VERIFY = Door("acme-web/plain", 8000)
TRANSIT = Door("knative-serving/activator", 8012)
SCRAPED = Door("acme-web/hello", 9090)
PUBLIC = Door("istio-system/gateway", "0.0.0.0_8080", PUBLIC_HOST)
LOCAL = Door("istio-system/gateway", "0.0.0.0_8081", "hello.acme-web.svc.cluster.local")
BROKER = Door("knative-eventing/broker-ingress", 8080)
FILTER = Door("knative-eventing/broker-filter", 8080, caller="knative-eventing/imc-dispatcher")
CHANNEL = Door("knative-eventing/imc-dispatcher", 8080)
JOB_SINK = replace(BROKER, proxy=_eventing({"sinks.knative.dev/sink": "job-sink"}))
REQUEST_REPLY = replace(BROKER, proxy=_eventing({"eventing.knative.dev/part-of": "request-reply"}))


@dataclass(frozen=True)
class Proxy:
    """The Envoy, with an app behind it."""

    door: Door
    address: Endpoint
    caller: Certificate | None
    """How to speak mutual TLS to it; in plaintext if None."""
    envoy: envoy.Envoy

    async def get(
        self,
        headers: Sequence[tuple[str, str]] = (),
        *,
        path: str = "/path?query=1",
        cert: Certificate | None = None,
        body: bytes | None = None,
    ) -> httpx.Response:
        """Send a request, with `cert` in place of the caller's own."""
        who = cert or self.caller
        scheme, tls = ("http", True) if who is None else ("https", who.sidecar_context())
        async with httpx.AsyncClient(trust_env=False, verify=tls, timeout=60) as client:
            sent = [("host", self.door.host), *headers]
            url = f"{scheme}://{self.address}{path}"
            request = httpx.Request("GET", url, headers=sent, content=body)
            return await client.send(request)


class Workbench:
    """Makes proxies that ask `authz`."""

    def __init__(
        self,
        authz: ScriptedAuthz,
        executable: Path,
        authority: Authority,
        directory: Path,
        istio: str | None = None,
    ) -> None:
        self.authz = authz
        self.executable = executable
        self.directory = directory
        self.istio = istio
        """The version of Istio's Envoys; that of the recordings if None."""
        self._authority = authority
        self._issued: dict[SpiffeId, Certificate] = {}

    def certificate(self, who: str | SpiffeId) -> Certificate:
        """The certificate of a pod of the world, or of any identity."""
        identity = WORLD.pods[who].identity if isinstance(who, str) else who
        if identity not in self._issued:
            self._issued[identity] = self._authority.issue(identity)
        return self._issued[identity]

    def config(self, door: Door, address: Endpoint, app: Endpoint, overlay: str = "") -> Json:
        """A bootstrap for the door at `address`; whatever it leads to is `app`, in plaintext."""
        sent = door.sent(overlay, istio=self.istio)
        own = self.certificate(door.pod)
        return configured(door, sent, own, address=address, app=app, authz=self.authz.endpoint)

    @asynccontextmanager
    async def proxy(
        self,
        door: Door,
        overlay: str = "",
        without: str = "",
        change: Callable[[Json], None] = lambda config: None,
    ) -> AsyncIterator[Proxy]:
        """Run it, `without` an HTTP filter, or with a changed bootstrap."""
        # At the pod's own port: there are rules that look at it.
        address, app = free_port(door.at if isinstance(door.at, int) else 0), free_port()
        config = self.config(door, address, app, overlay)
        for manager in managers(config):
            filters = manager["http_filters"]
            manager["http_filters"] = [it for it in filters if it["name"] != without]
        change(config)
        caller = None if door in (SIGN, PUBLIC) else self.certificate(door.caller)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(apps.echo("app", app))
            started = envoy.running("bench", config, self.directory, self.executable)
            yield Proxy(door, address, caller, await stack.enter_async_context(started))


def configured(
    door: Door,
    sent: Sent,
    certificate: Certificate,
    *,
    address: Endpoint,
    app: Endpoint,
    authz: Endpoint,
) -> Json:
    """A bootstrap for the door at `address`; whatever it leads to is `app`, in plaintext."""
    config = played(sent, recorded.secrets(certificate, certificate))
    pods = {pod.address for pod in WORLD.pods.values()}
    endpoints = {endpoint: app for endpoint in _endpoints(sent) if endpoint.host in pods}
    us = Endpoint(WORLD.pods["authz-system/authz"].address, AUTHZ_PORT)
    places = Places(endpoints=endpoints | {us: authz})
    if isinstance(door.at, str):
        places = replace(places, listeners={door.at: address})
    else:
        places = replace(places, inbound={door.at: address}, apps={door.at: app})
    on_loopback(config, places)
    for it in _lb_endpoints(config["static_resources"]["clusters"]):
        it.pop("metadata", None)  # the app has no sidecar
    return config


def managers(config: Json) -> Iterator[Json]:
    """Whatever manages HTTP."""
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            if "http_filters" in (found := chain["filters"][-1]["typed_config"]):
                yield found


def cluster(config: Json, name: str) -> Json:
    """A cluster."""
    found: Json
    (found,) = (it for it in config["static_resources"]["clusters"] if it["name"] == name)
    return found


def _endpoints(sent: Sent) -> Iterator[Endpoint]:
    for endpoint in _lb_endpoints({"load_assignment": one} for one in sent.endpoints):
        address = endpoint["endpoint"]["address"]["socket_address"]
        yield Endpoint(address["address"], address["port_value"])


def _lb_endpoints(clusters: Iterable[Json]) -> Iterator[Json]:
    for it in clusters:
        for locality in it.get("load_assignment", {}).get("endpoints", ()):
            yield from locality.get("lb_endpoints", ())


def seen_by_app(response: httpx.Response) -> list[tuple[str, str]]:
    """The request headers that reached the app."""
    assert response.status_code == 200, response.text
    return [(name, value) for name, value in response.json()["headers"]]


def values(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in headers if key == name]


def free_port(port: int = 0) -> Endpoint:
    """A port that nobody uses, or this one, on an address from which no connection goes out.

    On 127.0.0.1, a connection that is made meanwhile could take it for its own end.
    """
    with socket.socket() as bound:
        bound.bind((f"127.{randrange(1, 255)}.{randrange(255)}.{randrange(1, 255)}", port))
        return Endpoint(*bound.getsockname())
