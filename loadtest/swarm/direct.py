"""Checks, as Envoys ask them, straight at the service: gRPC with a tenant's own certificate."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
from locust import User, between, task

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.domain import tokens
from authz.domain.reason import InvalidToken
from authz.lab.loopback.mesh import ACTIVATOR
from authz.lab.loopback.scenarios.row import INVALID, MISSING, NOT_ALLOWED
from authz.testing import check_request
from authz.wire import QUESTION, TOKEN_HEADER, UPSTREAM, cluster_name
from loadtest.swarm import changed
from loadtest.swarm.changed import INITECH, KEYS
from loadtest.swarm.control import StackFailed
from loadtest.swarm.expect import LEAKED
from loadtest.swarm.session import now, record, session

ALLOWED: Final = "200"
_KIND: Final = "CHECK"
_SECONDS: Final = 10.0
_METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_SERVICE_CONFIG: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'

# Who calls whom, and what must come of it.
PAIRS: Final = [
    ("acme-web", "acme-web", ALLOWED),
    ("acme-web", "acme-db", ALLOWED),
    (INITECH, "acme-db", ALLOWED),
    ("globex", "acme-db", NOT_ALLOWED),
    (INITECH, "acme-web", NOT_ALLOWED),
]

Ask = Callable[..., CheckResponse]


def channel(certificate: dict[str, str]) -> grpc.Channel:
    """To all replicas, those that are not there left out, as the owner of a certificate."""
    key, cert, ca = (Path(certificate[name]).read_bytes() for name in ("key", "cert", "ca"))
    options: Sequence[tuple[str, Any]] = [
        ("grpc.ssl_target_name_override", session.site["authz_host"]),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    target = "ipv4:" + ",".join(session.site["replicas"])
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), options)


def asking(through: grpc.Channel) -> Ask:
    """The method that is called."""
    return through.unary_unary(
        _METHOD,
        request_serializer=lambda request: request,
        response_deserializer=CheckResponse.FromString,
    )


@cache
def sidecar(path: str, namespace: str) -> Ask:
    """The connection of a namespace's sidecar, of the stack at `path`."""
    assert path == session.path  # noqa: S101 - connections are of one stack
    return asking(channel(session.site["certificates"][namespace]))


class Checks(User):
    """What sidecars ask."""

    abstract = True

    def ask(
        self, ask: Ask, question: str, request: bytes, upstream: str = ""
    ) -> CheckResponse | str:
        """Ask a question; the answer, or why there is none."""
        metadata = [(QUESTION, question)]
        if upstream:
            metadata.append((UPSTREAM, upstream))
        try:
            return ask(request, metadata=metadata, timeout=_SECONDS)
        except grpc.RpcError as error:
            return f"no answer: {error.code().name}"

    def sign(self, ask: Ask, source: str, destination: str, name: str = "sign") -> str:
        """Ask for a token; empty if there was none."""
        host = f"app.{destination}.svc.cluster.local"
        begun = now()
        answer = self.ask(ask, "sign", check_request(host=host), cluster_name(host, 80))
        token = _token(answer)
        seen = answer if isinstance(answer, str) else _parties(token)
        wanted = f"200 {source} to {destination}"
        record(self, _KIND, name, begun, seen=seen, expected=wanted)
        return token if seen == wanted else ""

    def verify(  # noqa: PLR0917 - what a request to a pod consists of
        self, ask: Ask, name: str, expected: Callable[[float, float], str | None],
        token: str, destination: str, principal: str = str(ACTIVATOR),
    ) -> None:  # fmt: skip
        """Ask whether a request may enter, which came from `principal` with `token`."""
        headers = ((TOKEN_HEADER, token),) if token else ()
        request = check_request(
            host=f"app.{destination}.svc.cluster.local", principal=principal, headers=headers
        )
        begun = now()
        answer = self.ask(ask, "verify", request)
        seen = answer if isinstance(answer, str) else _outcome(answer)
        record(self, _KIND, name, begun, seen=seen, expected=expected(begun, now()))


class DirectCheck(Checks):
    """Sidecars of several tenants: sign at one, verify at the other, and what thieves try."""

    wait_time = between(0.02, 0.08)

    def on_start(self) -> None:
        """Hold no token yet."""
        self._held: tuple[str, int] | None = None

    @task(10)
    def sign_and_verify(self) -> None:
        """A token is made for a request, which shows it behind the hop."""
        source, destination, expected = random.choice(PAIRS)  # noqa: S311
        begun = now()
        token = self.sign(self._of(source), source, destination)
        if not token:
            return

        def outcome(_: float, ended: float) -> str | None:
            return changed.outcome(source, expected, begun, ended)

        name = "verify" if expected == ALLOWED else "verify, foreign"
        self.verify(self._of(destination), name, outcome, token, destination)

    @task(3)
    def verify_held(self) -> None:
        """A token is shown again. It counts until its keys are revoked."""
        if self._held is None:
            begun = now()
            token = self.sign(self._of(INITECH), INITECH, "acme-db")
            version = session.timeline.version(KEYS, begun, now())
            if not token or version is None:
                return
            self._held = token, version
        token, signed = self._held

        def outcome(begun: float, ended: float) -> str | None:
            revoked = session.timeline.version(KEYS, begun, ended)
            if revoked is None or revoked == signed:
                return changed.outcome(INITECH, ALLOWED, begun, ended)
            self._held = None
            return INVALID

        self.verify(self._of("acme-db"), "verify, held", outcome, token, "acme-db")

    @task(2)
    def verify_without(self) -> None:
        """No token: mutual TLS is enough between siblings, but not behind a hop."""
        peer = "spiffe://cluster.local/ns/acme-web/sa/default"
        self.verify(
            self._of("acme-db"), "verify, mTLS alone", _always(ALLOWED), "", "acme-db", peer
        )
        self.verify(self._of("acme-db"), "verify, no token", _always(MISSING), "", "acme-db")

    @task(2)
    def verify_stolen(self) -> None:
        """A good token that a stranger shows, one for another namespace, and one that is forged."""
        token = self.sign(self._of("acme-web"), "acme-web", "acme-db")
        if not token:
            return
        ask, invalid = self._of("acme-db"), _always(INVALID)
        thief = "spiffe://cluster.local/ns/mallory/sa/default"
        self.verify(ask, "verify, stolen", invalid, token, "acme-db", thief)
        claims, _, mac = token.rpartition(".")
        forged = f"{claims}.{'A' if mac[0] != 'A' else 'B'}{mac[1:]}"
        self.verify(ask, "verify, forged", invalid, forged, "acme-db")
        self.verify(self._of("globex"), "verify, elsewhere", invalid, token, "globex")

    @staticmethod
    def _of(namespace: str) -> Ask:
        return sidecar(session.path, namespace)


class NewTenant(Checks):
    """Namespaces that nobody has seen, each with a certificate and connections of its own."""

    wait_time = between(0.1, 0.3)

    @task
    def onboard(self) -> None:
        """A namespace comes, calls itself, is called by a stranger, and goes."""
        name = f"new-{secrets.token_hex(6)}"
        try:
            certificate = session.tell("issue", namespace=name)
        except StackFailed as error:
            record(self, _KIND, "certificate", now(), seen=f"no answer: {error}", expected=ALLOWED)
            return
        with channel(certificate) as through:
            ask = asking(through)
            if token := self.sign(ask, name, name, "sign, new namespace"):
                row = "verify, new namespace"
                self.verify(ask, row, _always(ALLOWED), token, name)
            stranger = sidecar(session.path, "globex")
            if token := self.sign(stranger, "globex", name, "sign for a new namespace"):
                row = "verify, foreign to a new namespace"
                self.verify(ask, row, _always(NOT_ALLOWED), token, name)


def _always(expected: str) -> Callable[[float, float], str]:
    return lambda _begun, _ended: expected


def _token(answer: CheckResponse | str) -> str:
    """The token that an answer sets, if it does."""
    if isinstance(answer, str) or answer.status.code:
        return ""
    return next((it.header.value for it in answer.ok_response.headers), "")


def _parties(token: str) -> str:
    try:
        claims = tokens.parse(token).claims
    except InvalidToken:
        return "200 without a token"
    return f"200 {claims.source} to {claims.destination}"


def _outcome(answer: CheckResponse) -> str:
    """What Envoy would make of an answer to verify."""
    if answer.status.code == 0:  # an absent status too: Envoy would let the request in
        kept = TOKEN_HEADER not in answer.ok_response.headers_to_remove
        return f"200, {LEAKED}" if kept else ALLOWED
    reasons = [it.header.value for it in answer.denied_response.headers]
    return " ".join(["403", *reasons])
