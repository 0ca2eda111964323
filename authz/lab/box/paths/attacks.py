"""Tricks that would let a tenant in without us: by what Knative believes, and past the sidecars."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from authz.lab.box.istio.mesh import GATEWAY, Mesh
from authz.lab.box.istio.programs import UNLISTED_TCP_PORT
from authz.lab.box.paths.deliveries import BROKER, EVENT
from authz.lab.box.paths.table import ACTIVATOR, Call, called, watched
from authz.lab.world import cluster
from authz.lab.world.model import DOMAIN
from authz.lab.world.paths import CHANNEL
from authz.testing import NO_ANSWER, Case, Outcome
from authz.wire import TOKEN_HEADER

Headers: TypeAlias = Iterable[tuple[str, str]]
Action: TypeAlias = Callable[[Mesh], Awaitable[Outcome]]

POD: Final = "acme-db/hello"
IDLE: Final = "acme-db/idle"
PLAIN: Final = "acme-db/plain"
TENANT: Final = "globex/hello"
_IDLE_HOST: Final = f"idle-00001.acme-db.svc.{DOMAIN}"
_ALPN: Final = ("istio-http/1.1", "istio", "http/1.1")


def _call(to: str, url: str, headers: Headers = (), pod: str = TENANT, **options: Any) -> Action:
    """Through the attacker's sidecar."""
    call = Call(pod, url, {"headers": [*headers], **options})
    return lambda mesh: watched(mesh, call, to)


def _past(to: str, of: str, port: int, host: str, headers: Headers = ()) -> Action:
    """Past its sidecar, with the certificate that the attacker has anyway."""

    async def action(mesh: Mesh) -> Outcome:
        options = {
            "headers": [*headers],
            "via": f"{mesh.address(of)}:{port}",
            "tls": mesh.tls(TENANT, alpn=_ALPN),
            "through_sidecar": False,
        }
        return await watched(mesh, Call(TENANT, f"http://{host}/", options), to)

    return action


def _with_stolen_token(to: str, of: str, port: int, host: str) -> Action:
    """The same with a token that leaked from initech, whom acme-db lets in."""

    async def action(mesh: Mesh) -> Outcome:
        token = await mesh.authz.command("token", "mint", "initech", "acme-db")
        return await _past(to, of, port, host, [(TOKEN_HEADER, token.strip())])(mesh)

    return action


async def _raw(mesh: Mesh) -> Outcome:
    """What a connection that says that it is not HTTP gets from a port that no Service names."""
    to = f"{mesh.address(PLAIN)}:{UNLISTED_TCP_PORT}"
    tls = mesh.tls(TENANT, alpn=["istio"])
    async with mesh.connected(TENANT, to, tls=tls, through_sidecar=False) as connection:
        await connection.send(b"anybody there?\r\n")
        return Outcome(f"{len(await connection.everything())} bytes")


async def _plaintext(mesh: Mesh) -> Outcome:
    return await called(mesh, "mallory/bare", f"http://{mesh.address(POD)}:8012/")


ATTACKS: Final[tuple[Case[Action], ...]] = (
    Case(
        "steered-activator",
        "by its own revision's Service, the activator is told another revision",
        "403 token-invalid; sign, transit",
        _call(
            IDLE,
            "http://idle-00001.globex/",
            [("Knative-Serving-Namespace", "acme-db"), ("Knative-Serving-Revision", "idle-00001")],
        ),
    ),
    Case(
        "activator-by-host",
        "the activator's own Service, with another's Host",
        "403 not-allowed; sign, transit",
        _call(IDLE, "http://activator-service.knative-serving/", [("host", _IDLE_HOST)]),
    ),
    Case(
        "forged-token",
        "a forged token: the own sidecar replaces it",
        "403 not-allowed; sign, transit",
        _call(IDLE, "http://idle.acme-db/", [(TOKEN_HEADER, "v1.a.b.c"), (TOKEN_HEADER, "again")]),
    ),
    Case(
        "stolen-token",
        "a token that leaked, shown to the activator by who does not own it",
        "403 token-invalid; transit",
        _with_stolen_token(IDLE, ACTIVATOR, 8012, _IDLE_HOST),
    ),
    Case(
        "stolen-token-gateway",
        "the same at the local gateway",
        "403 token-invalid; transit",
        _with_stolen_token(POD, GATEWAY, 8081, "hello.acme-db"),
    ),
    Case(
        "stolen-token-pod",
        "the same at the pod",
        "403 token-invalid; verify",
        _with_stolen_token(POD, POD, 8012, "hello.acme-db"),
    ),
    Case(
        "claimed-identity",
        "a header says that the activator calls",
        "403 token-missing; verify",
        _past(
            POD,
            POD,
            8012,
            "hello.acme-db",
            [("x-forwarded-client-cert", f"URI=spiffe://{DOMAIN}/ns/knative-serving/sa/activator")],
        ),
    ),
    Case(
        "claimed-probe",
        "the activator's probe, from a tenant",
        "403 not-allowed; sign, verify",
        _call(
            POD,
            "http://hello-00001-private.acme-db/healthz",
            [("user-agent", "Knative-Activator-Probe"), ("k-network-probe", "queue")],
        ),
    ),
    Case(
        "claimed-kubelet-probe",
        "the kubelet's probe, from a tenant",
        "403 not-allowed; sign, verify",
        _call(POD, "http://hello.acme-db/", [("K-Kubelet-Probe", "queue")]),
    ),
    Case(
        "claimed-event",
        "an app says, as only Eventing may, for whom it sends",
        "403 not-allowed; sign, verify",
        _call(POD, "http://hello.acme-db/", [("Kn-Namespace", "acme-db"), *EVENT], method="POST"),
    ),
    Case(
        "original-host",
        "to the own service, with another's name for behind the activator",
        "200 globex/idle; sign, transit, sign, verify",
        _call("globex/idle", "http://idle.globex/", [("K-Original-Host", "idle.acme-db")]),
    ),
    Case(
        "scrape",
        "the metrics that the autoscaler reads",
        "403 not-allowed; sign, verify",
        _call(POD, "http://hello-00001-private.acme-db:9090/metrics"),
    ),
    Case(
        "app-port",
        "a port that no Service names, past queue-proxy",
        "403 token-missing; verify",
        _past(POD, POD, cluster.APP_PORT, "hello.acme-db"),
    ),
    Case("raw-tcp", "the same, called something else than HTTP", "0 bytes", _raw),
    Case("plaintext", "a pod without a sidecar, in plaintext", NO_ANSWER, _plaintext),
    Case(
        "gateway-host",
        "the public gateway, with the Host of a private service",
        "404",
        _call(
            POD,
            f"http://hello.acme-web.{cluster.PUBLIC_DOMAIN}/",
            [("host", f"hello.acme-db.svc.{DOMAIN}")],
            pod="outside/server",
        ),
    ),
    Case(
        "foreign-broker",
        "an event to another tenant's broker",
        "403 not-allowed; sign",
        _call(
            POD,
            f"http://broker-ingress.knative-eventing/acme-db/{BROKER}",
            EVENT,
            method="POST",
        ),
    ),
    Case(
        "foreign-channel",
        "an event to another tenant's channel",
        "403 not-allowed; sign",
        _call(POD, f"http://{CHANNEL}.acme-db/", EVENT, method="POST"),
    ),
)
"""Each from globex, or from outside; what is told is the answer, and which questions were asked."""
