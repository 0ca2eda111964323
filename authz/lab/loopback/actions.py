"""The actions of which scenarios are made: calls, questions, thefts, and what an operator does.

An action is a function of the running environment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias

import grpc

from authz.domain import tokens
from authz.domain.keys import KeyId
from authz.lab.harness.certs import Authority
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import ask
from authz.lab.loopback.client import Headers, call
from authz.lab.loopback.environment import Environment
from authz.lab.loopback.held import TokenSource, signed
from authz.lab.loopback.mesh import ACTIVATOR, app_cluster, steering
from authz.lab.loopback.names import app, idle
from authz.lab.recordings.loopback import ORIGINAL_DESTINATION
from authz.testing import Outcome
from authz.wire import QUESTION, TOKEN_HEADER, UPSTREAM

CLAIMS_ACTIVATOR: Final = ("x-forwarded-client-cert", f"By=spiffe://x;URI={ACTIVATOR}")
"""A header that nobody should believe."""

Action: TypeAlias = Callable[[Environment], Awaitable[Outcome]]

_CHANGE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


# ---- calls ----


def through_sidecar(source: str, host: str, headers: Headers = ()) -> Action:
    """An app in `source` calls `host`; its sidecar does the rest."""

    async def play(environment: Environment) -> Outcome:
        return await call(environment.mesh.tenants[source].outbound, host, headers)

    return play


def to_address(
    source: str, target: Callable[[Environment], Endpoint], host: str = "", *held: TokenSource
) -> Action:
    """An app in `source` calls an address that is no service of the mesh, by `host` or by IP."""

    async def play(environment: Environment) -> Outcome:
        address = str(target(environment))
        shown = [(TOKEN_HEADER, await token(environment)) for token in held]
        headers = [(ORIGINAL_DESTINATION, address), *shown]
        return await call(environment.mesh.tenants[source].outbound, host or address, headers)

    return play


def from_outside(host: str, token: TokenSource | None = None) -> Action:
    """Somebody on the Internet calls `host` at the public gateway."""

    async def play(environment: Environment) -> Outcome:
        headers = [(TOKEN_HEADER, await token(environment))] if token else []
        return await call(environment.mesh.gateway.outbound, host, headers)

    return play


def past_sidecar(
    source: str, target: str, *held: TokenSource, headers: Headers = (), hop: bool = False
) -> Action:
    """A pod in `source` speaks mutual TLS itself, to `target`'s pod or to the hop before it.

    It has its own certificate, since that lies in the pod, and whatever tokens it holds.
    """

    async def play(environment: Environment) -> Outcome:
        tls = environment.mesh.tenants[source].certificate.sidecar_context()
        to = environment.mesh.activator if hop else environment.mesh.tenants[target]
        shown = [(TOKEN_HEADER, await token(environment)) for token in held]
        steers = steering(target) if hop else []
        host = idle(target) if hop else app(target)
        return await call(to.inbound, host, [*steers, *shown, *headers], tls)

    return play


def without_identity(target: str, tls: Callable[[Environment], ssl.SSLContext] | None) -> Action:
    """Somebody without a certificate of the mesh calls `target`'s pod."""

    async def play(environment: Environment) -> Outcome:
        context = tls(environment) if tls else None
        return await call(environment.mesh.tenants[target].inbound, "app", (), context)

    return play


def anonymous_tls(environment: Environment) -> ssl.SSLContext:
    """TLS without a client certificate."""
    context = ssl.create_default_context(cafile=environment.mesh.authority.ca_file)
    context.check_hostname = False
    return context


def impostor_tls(environment: Environment) -> ssl.SSLContext:
    """A certificate that says the right name, of an authority that nobody trusts."""
    other = Authority(environment.directory / "other-certs", "somebody else")
    context = other.issue(environment.mesh.tenants["acme-web"].identity).client_context()
    context.verify_mode = ssl.CERT_NONE
    return context


def pod_of(namespace: str) -> Callable[[Environment], Endpoint]:
    """The address of a tenant's pod, as other pods see it."""
    return lambda environment: environment.mesh.tenants[namespace].inbound


def process_of(namespace: str) -> Callable[[Environment], Endpoint]:
    """The address of a tenant's process that has opened a port past its sidecar."""
    return lambda environment: environment.mesh.tenants[namespace].process


def external(environment: Environment) -> Endpoint:
    """The server outside the mesh."""
    return environment.mesh.external


# ---- questions to the service's own port ----


def question(
    *asked: str,
    headers: Headers = (),
    token: TokenSource | None = None,
    principal: str = "",
    metadata: Headers = (),
) -> Action:
    """Mallory asks the service, with its own certificate, about a call to acme-db."""

    async def play(environment: Environment) -> Outcome:
        shown = [(TOKEN_HEADER, await token(environment))] if token else []
        response = await ask.check(
            environment.mesh,
            environment.mesh.tenants["mallory"].certificate,
            [
                *((QUESTION, word) for word in asked),
                (UPSTREAM, app_cluster("acme-db")),
                *metadata,
            ],
            headers=[*shown, *headers],
            principal=principal,
        )
        return Outcome.of_check(response)

    return play


async def question_of_an_impostor(environment: Environment) -> Outcome:
    """Somebody asks whose certificate no authority of the mesh has signed."""
    other = Authority(environment.directory / "impostor-certs", "somebody else")
    untrusted = other.issue(environment.mesh.tenants["acme-web"].identity)
    certificate = replace(untrusted, ca_file=environment.mesh.authority.ca_file)
    asked = [(QUESTION, "sign")]
    try:
        return Outcome.of_check(await ask.check(environment.mesh, certificate, asked))
    except grpc.aio.AioRpcError:
        return Outcome.of(0)


# ---- what an operator does, and what befalls the service ----


async def crash(environment: Environment) -> None:
    """The service dies."""
    await environment.authz.crash()


async def restart(environment: Environment) -> None:
    """The service comes back."""
    await environment.authz.start()


def operator(*arguments: str, of: str) -> Callable[[Environment], Awaitable[None]]:
    """Somebody runs `authz keys ...`; it has happened when `of` signs with another key."""

    async def act(environment: Environment) -> None:
        before = await _signing_key(environment, of)
        await environment.authz.command("keys", *arguments)
        async with asyncio.timeout(_CHANGE_SECONDS):
            while True:
                if await _signing_key(environment, of) != before:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    return act


def after(act: Callable[[Environment], Awaitable[None]], action: Action) -> Action:
    """An action that something happens before."""

    async def play(environment: Environment) -> Outcome:
        await act(environment)
        return await action(environment)

    return play


async def _signing_key(environment: Environment, namespace: str) -> KeyId:
    return tokens.parse(await signed(environment, namespace, "acme-db")).key
