"""Checks, as Envoys ask them, straight at the service: gRPC with a tenant's own certificate."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from locust import User, between, task

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.lab.loopback.mesh import ACTIVATOR
from authz.testing import (
    INVALID,
    LEAKED,
    LET_IN,
    MISSING,
    NOT_ALLOWED,
    Case,
    Outcome,
    check_request,
    token_set,
)
from authz.wire import QUESTION, TOKEN_HEADER, UPSTREAM, cluster_name
from loadtest.swarm import changed
from loadtest.swarm.changed import INITECH, KEYS
from loadtest.swarm.control import StackFailed
from loadtest.swarm.session import now, record, session

_KIND: Final = "CHECK"
_SECONDS: Final = 10.0
_METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_SERVICE_CONFIG: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'


class Pair(NamedTuple):
    """Of whom the one calls the other."""

    source: str
    destination: str


PAIRS: Final = [
    Case("verify", "its own namespace", LET_IN, Pair("acme-web", "acme-web")),
    Case("verify", "its own tenant", LET_IN, Pair("acme-web", "acme-db")),
    Case("verify", "granted", LET_IN, Pair(INITECH, "acme-db")),
    Case("verify, foreign", "another tenant", NOT_ALLOWED, Pair("globex", "acme-db")),
    Case("verify, foreign", "a grant elsewhere", NOT_ALLOWED, Pair(INITECH, "acme-web")),
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
    ) -> tuple[Outcome, str]:
        """Ask a question; what came of it, and the token that was set."""
        metadata = [(QUESTION, question)]
        if upstream:
            metadata.append((UPSTREAM, upstream))
        try:
            answer = ask(request, metadata=metadata, timeout=_SECONDS)
        except grpc.RpcError as error:
            return Outcome.of(0, error.code().name), ""
        return Outcome.of_check(answer), token_set(answer)

    def sign(self, ask: Ask, source: str, destination: str, name: str = "sign") -> str:
        """Ask for a token; empty if there was none."""
        host = f"app.{destination}.svc.cluster.local"
        begun = now()
        seen, token = self.ask(ask, "sign", check_request(host=host), cluster_name(host, 80))
        wanted = f"token from {source} to {destination}"
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
        seen, _ = self.ask(ask, "verify", request)
        if seen == "allowed":
            seen = seen.also(LEAKED)  # it goes on with what it had
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
        pair = random.choice(PAIRS)  # noqa: S311
        source, destination = pair.call
        begun = now()
        token = self.sign(self._of(source), source, destination)
        if not token:
            return

        def outcome(_: float, ended: float) -> str | None:
            return changed.expected(source, pair.expected, begun, ended)

        self.verify(self._of(destination), pair.name, outcome, token, destination)

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
                return changed.expected(INITECH, LET_IN, begun, ended)
            self._held = None
            return INVALID

        self.verify(self._of("acme-db"), "verify, held", outcome, token, "acme-db")

    @task(2)
    def verify_without(self) -> None:
        """No token: mutual TLS is enough between siblings, but not behind a hop."""
        peer = "spiffe://cluster.local/ns/acme-web/sa/default"
        self.verify(self._of("acme-db"), "verify, mTLS alone", _always(LET_IN), "", "acme-db", peer)
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
            seen = Outcome.of(0, str(error))
            record(self, _KIND, "certificate", now(), seen=seen, expected=LET_IN)
            return
        with channel(certificate) as through:
            ask = asking(through)
            if token := self.sign(ask, name, name, "sign, new namespace"):
                row = "verify, new namespace"
                self.verify(ask, row, _always(LET_IN), token, name)
            stranger = sidecar(session.path, "globex")
            if token := self.sign(stranger, "globex", name, "sign for a new namespace"):
                row = "verify, foreign to a new namespace"
                self.verify(ask, row, _always(NOT_ALLOWED), token, name)


def _always(expected: str) -> Callable[[float, float], str]:
    return lambda _begun, _ended: expected
