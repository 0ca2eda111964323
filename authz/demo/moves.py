"""The moves of which scenarios are made: calls, questions, thefts, and what an operator does.

A move is a function of the running stage that says in a few words what came of it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from authz import tokens
from authz.demo import ask
from authz.demo.bootstrap import ORIGINAL_DESTINATION, REVISION, SERVING_NAMESPACE, Endpoint
from authz.demo.certs import Authority
from authz.demo.client import REFUSED, TOKEN_HEADER, Headers, call
from authz.demo.mesh import Mesh
from authz.demo.service import AuthzServer
from authz.keys import Keyring, RootKey, TokenLife
from authz.keystore import Keks, open_store, read_kek_file
from authz.names import Namespace

_CHANGE_SECONDS: Final = 10.0


@dataclass
class Stage:
    """What a move may touch; `loot` is what attackers have got hold of so far."""

    mesh: Mesh
    authz: AuthzServer
    directory: Path
    loot: dict[str, str] = field(default_factory=dict)


Move: TypeAlias = Callable[[Stage], Awaitable[str]]
TokenSource: TypeAlias = Callable[[Stage], Awaitable[str]]


# ---- calls ----


def through_sidecar(source: str, host: str, headers: Headers = ()) -> Move:
    """An app in `source` calls `host`; its sidecar does the rest."""

    async def play(stage: Stage) -> str:
        return await call(stage.mesh.tenants[source].outbound, host, headers)

    return play


def to_address(source: str, target: Callable[[Stage], Endpoint], host: str = "") -> Move:
    """An app in `source` calls an address that is no service of the mesh."""

    async def play(stage: Stage) -> str:
        address = str(target(stage))
        token = await ask.token(
            stage.mesh, stage.mesh.tenants[source].certificate, stage.mesh.services[0].cluster
        )
        headers = [(ORIGINAL_DESTINATION, address), (TOKEN_HEADER, token)]
        return await call(stage.mesh.tenants[source].outbound, host or address, headers)

    return play


def from_outside(host: str, token: TokenSource | None = None) -> Move:
    """Somebody on the Internet calls `host` at the public gateway."""

    async def play(stage: Stage) -> str:
        headers = [(TOKEN_HEADER, await token(stage))] if token else []
        return await call(stage.mesh.gateway.outbound, host, headers)

    return play


def past_sidecar(
    source: str, target: str, *held: TokenSource, headers: Headers = (), hop: bool = False
) -> Move:
    """A pod in `source` speaks mutual TLS itself, to `target`'s pod or to the hop before it.

    It has its own certificate, since that lies in the pod, and whatever tokens it holds.
    """

    async def play(stage: Stage) -> str:
        tls = stage.mesh.tenants[source].certificate.client_context()
        to = stage.mesh.activator if hop else stage.mesh.tenants[target]
        shown = [(TOKEN_HEADER, await token(stage)) for token in held]
        steers = [(SERVING_NAMESPACE, target), (REVISION, "app")] if hop else []
        host = stage.mesh.service("app-idle" if hop else "app", target).host
        return await call(to.inbound, host, [*steers, *shown, *headers], tls)

    return play


def without_identity(target: str, tls: Callable[[Stage], ssl.SSLContext] | None) -> Move:
    """Somebody without a certificate of the mesh calls `target`'s pod."""

    async def play(stage: Stage) -> str:
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


# ---- tokens that attackers have ----


def stolen(source: str, destination: str) -> TokenSource:
    """A real token that leaked from `source`, perhaps by a log: always the same one."""

    async def get(stage: Stage) -> str:
        name = f"{source} to {destination}"
        if name not in stage.loot:
            stage.loot[name] = await _signed(stage, source, destination)
        return stage.loot[name]

    return get


def fresh(source: str, destination: str) -> TokenSource:
    """A token that `source` has asked for just now."""

    async def get(stage: Stage) -> str:
        return await _signed(stage, source, destination)

    return get


def public(destination: str) -> TokenSource:
    """A token that leaked from the public gateway."""

    async def get(stage: Stage) -> str:
        cluster = stage.mesh.service("app", destination).cluster
        return await ask.token(stage.mesh, stage.mesh.gateway.certificate, cluster, "public")

    return get


def expired(source: str, destination: str) -> TokenSource:
    """A token with the right signature, made with a clock of the past."""

    async def get(stage: Stage) -> str:
        environment = stage.authz.environment
        kek = read_kek_file(Path(environment["AUTHZ_KEK_FILES"]))
        store = open_store(environment["AUTHZ_STORE"], Keks(kek))
        try:
            keyring = (await store.load()).keyring
        finally:
            await store.close()
        return _mint(source, destination, keyring, age=TokenLife().seconds + 1)

    return get


def forged(source: str, destination: str) -> TokenSource:
    """A token that is right in all but the secret, and the key id is of a real one."""

    async def get(stage: Stage) -> str:
        real = tokens.parse(await _signed(stage, "mallory", destination))
        keyring = Keyring.of(RootKey(real.key.root, secret=b"guess".ljust(32), sign_from=0))
        return _mint(source, destination, keyring, age=0)

    return get


def _mint(source: str, destination: str, keyring: Keyring, *, age: int) -> str:
    return tokens.mint(
        source=Namespace(source),
        service_account="app",
        destination=Namespace(destination),
        keyring=keyring,
        now=time.time() - age,  # noqa: TID251 - the servers that judge it go by this clock
        life=TokenLife(),
    )


async def _signed(stage: Stage, source: str, destination: str) -> str:
    cluster = stage.mesh.service("app", destination).cluster
    return await ask.token(stage.mesh, stage.mesh.tenants[source].certificate, cluster)


# ---- questions to the service's own port ----


def question(
    *asked: str,
    headers: Headers = (),
    token: TokenSource | None = None,
    principal: str = "",
    metadata: Headers = (),
) -> Move:
    """Mallory asks the service, with its own certificate, about a call to acme-db."""

    async def play(stage: Stage) -> str:
        shown = [(TOKEN_HEADER, await token(stage))] if token else []
        response = await ask.check(
            stage.mesh,
            stage.mesh.tenants["mallory"].certificate,
            [
                *(("x-authz-question", word) for word in asked),
                ("x-authz-upstream", stage.mesh.service("app", "acme-db").cluster),
                *metadata,
            ],
            headers=[*shown, *headers],
            principal=principal,
        )
        return ask.in_words(response)

    return play


async def question_of_an_impostor(stage: Stage) -> str:
    """Somebody asks whose certificate no authority of the mesh has signed."""
    other = Authority(stage.directory / "impostor-certs", "somebody else")
    untrusted = other.issue(stage.mesh.tenants["acme-web"].identity)
    certificate = replace(untrusted, ca_file=stage.mesh.authority.ca_file)
    asked = [("x-authz-question", "sign")]
    try:
        return ask.in_words(await ask.check(stage.mesh, certificate, asked))
    except grpc.aio.AioRpcError:
        return REFUSED


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
        before = tokens.parse(await _signed(stage, of, "acme-db")).key
        await stage.authz.command("keys", *arguments)
        async with asyncio.timeout(_CHANGE_SECONDS):
            while tokens.parse(await _signed(stage, of, "acme-db")).key == before:
                await asyncio.sleep(0.05)

    return act


def after(act: Callable[[Stage], Awaitable[None]], move: Move) -> Move:
    """A move that something happens before."""

    async def play(stage: Stage) -> str:
        await act(stage)
        return await move(stage)

    return play

