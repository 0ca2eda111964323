"""The moves of which scenarios are made: calls, questions, thefts, and what an operator does.

A move is a function of the running stage.
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
from authz.lab.loopback.loot import TokenSource, signed
from authz.lab.loopback.mesh import ACTIVATOR, app_cluster, steering
from authz.lab.loopback.names import app, idle
from authz.lab.loopback.stage import Stage
from authz.lab.recordings.loopback import ORIGINAL_DESTINATION
from authz.testing import Outcome
from authz.wire import QUESTION, TOKEN_HEADER, UPSTREAM

CLAIMS_ACTIVATOR: Final = ("x-forwarded-client-cert", f"By=spiffe://x;URI={ACTIVATOR}")
"""A header that nobody should believe."""

Move: TypeAlias = Callable[[Stage], Awaitable[Outcome]]

_CHANGE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


# ---- calls ----


def through_sidecar(source: str, host: str, headers: Headers = ()) -> Move:
    """An app in `source` calls `host`; its sidecar does the rest."""

    async def play(stage: Stage) -> Outcome:
        return await call(stage.mesh.tenants[source].outbound, host, headers)

    return play


def to_address(
    source: str, target: Callable[[Stage], Endpoint], host: str = "", *held: TokenSource
) -> Move:
    """An app in `source` calls an address that is no service of the mesh, by `host` or by IP."""

    async def play(stage: Stage) -> Outcome:
        address = str(target(stage))
        shown = [(TOKEN_HEADER, await token(stage)) for token in held]
        headers = [(ORIGINAL_DESTINATION, address), *shown]
        return await call(stage.mesh.tenants[source].outbound, host or address, headers)

    return play


def from_outside(host: str, token: TokenSource | None = None) -> Move:
    """Somebody on the Internet calls `host` at the public gateway."""

    async def play(stage: Stage) -> Outcome:
        headers = [(TOKEN_HEADER, await token(stage))] if token else []
        return await call(stage.mesh.gateway.outbound, host, headers)

    return play


def past_sidecar(
    source: str, target: str, *held: TokenSource, headers: Headers = (), hop: bool = False
) -> Move:
    """A pod in `source` speaks mutual TLS itself, to `target`'s pod or to the hop before it.

    It has its own certificate, since that lies in the pod, and whatever tokens it holds.
    """

    async def play(stage: Stage) -> Outcome:
        tls = stage.mesh.tenants[source].certificate.sidecar_context()
        to = stage.mesh.activator if hop else stage.mesh.tenants[target]
        shown = [(TOKEN_HEADER, await token(stage)) for token in held]
        steers = steering(target) if hop else []
        host = idle(target) if hop else app(target)
        return await call(to.inbound, host, [*steers, *shown, *headers], tls)

    return play


def without_identity(target: str, tls: Callable[[Stage], ssl.SSLContext] | None) -> Move:
    """Somebody without a certificate of the mesh calls `target`'s pod."""

    async def play(stage: Stage) -> Outcome:
        context = tls(stage) if tls else None
        return await call(stage.mesh.tenants[target].inbound, "app", (), context)

    return play


def anonymous_tls(stage: Stage) -> ssl.SSLContext:
    """TLS without a client certificate."""
    context = ssl.create_default_context(cafile=stage.mesh.authority.ca_file)
    context.check_hostname = False
    return context


def impostor_tls(stage: Stage) -> ssl.SSLContext:
    """A certificate that says the right name, of an authority that nobody trusts."""
    other = Authority(stage.directory / "other-certs", "somebody else")
    context = other.issue(stage.mesh.tenants["acme-web"].identity).client_context()
    context.verify_mode = ssl.CERT_NONE
    return context


def pod_of(namespace: str) -> Callable[[Stage], Endpoint]:
    """The address of a tenant's pod, as other pods see it."""
    return lambda stage: stage.mesh.tenants[namespace].inbound


def process_of(namespace: str) -> Callable[[Stage], Endpoint]:
    """The address of a tenant's process that has opened a port past its sidecar."""
    return lambda stage: stage.mesh.tenants[namespace].process


def external(stage: Stage) -> Endpoint:
    """The server outside the mesh."""
    return stage.mesh.external


# ---- questions to the service's own port ----


def question(
    *asked: str,
    headers: Headers = (),
    token: TokenSource | None = None,
    principal: str = "",
    metadata: Headers = (),
) -> Move:
    """Mallory asks the service, with its own certificate, about a call to acme-db."""

    async def play(stage: Stage) -> Outcome:
        shown = [(TOKEN_HEADER, await token(stage))] if token else []
        response = await ask.check(
            stage.mesh,
            stage.mesh.tenants["mallory"].certificate,
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


async def question_of_an_impostor(stage: Stage) -> Outcome:
    """Somebody asks whose certificate no authority of the mesh has signed."""
    other = Authority(stage.directory / "impostor-certs", "somebody else")
    untrusted = other.issue(stage.mesh.tenants["acme-web"].identity)
    certificate = replace(untrusted, ca_file=stage.mesh.authority.ca_file)
    asked = [(QUESTION, "sign")]
    try:
        return Outcome.of_check(await ask.check(stage.mesh, certificate, asked))
    except grpc.aio.AioRpcError:
        return Outcome.of(0)


# ---- what an operator does, and what befalls the service ----


async def crash(stage: Stage) -> None:
    """The service dies."""
    await stage.authz.crash()


async def restart(stage: Stage) -> None:
    """The service comes back."""
    await stage.authz.start()


def operator(*arguments: str, of: str) -> Callable[[Stage], Awaitable[None]]:
    """Somebody runs `authz keys ...`; it has happened when `of` signs with another key."""

    async def act(stage: Stage) -> None:
        before = await _signing_key(stage, of)
        await stage.authz.command("keys", *arguments)
        async with asyncio.timeout(_CHANGE_SECONDS):
            while True:
                if await _signing_key(stage, of) != before:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    return act


def after(act: Callable[[Stage], Awaitable[None]], move: Move) -> Move:
    """A move that something happens before."""

    async def play(stage: Stage) -> Outcome:
        await act(stage)
        return await move(stage)

    return play


async def _signing_key(stage: Stage, namespace: str) -> KeyId:
    return tokens.parse(await signed(stage, namespace, "acme-db")).key
