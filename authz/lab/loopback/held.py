"""The tokens that callers past their sidecar hold, and how they came by them.

They get them as they would: their own by asking the service, others' by a leak. Only old ones are
made by hand, with the service's own code and a clock of the past.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from authz.domain import tokens
from authz.domain.keys import Keyring, RootKey, TokenLife
from authz.domain.names import Namespace
from authz.lab.loopback import ask
from authz.lab.loopback.environment import Environment
from authz.lab.loopback.mesh import app_cluster

TokenSource: TypeAlias = Callable[[Environment], Awaitable[str]]


def stolen(source: str, destination: str) -> TokenSource:
    """A real token that leaked from `source`, perhaps by a log: always the same one."""

    async def get(environment: Environment) -> str:
        name = f"{source} to {destination}"
        if name not in environment.leaked:
            environment.leaked[name] = await signed(environment, source, destination)
        return environment.leaked[name]

    return get


def fresh(source: str, destination: str) -> TokenSource:
    """A token that `source` has asked for just now."""

    async def get(environment: Environment) -> str:
        return await signed(environment, source, destination)

    return get


def public(destination: str) -> TokenSource:
    """A token that leaked from the public gateway."""

    async def get(environment: Environment) -> str:
        cluster = app_cluster(destination)
        gateway = environment.mesh.gateway.certificate
        return await ask.token(environment.mesh, gateway, cluster, "public", destination)

    return get


def aged(source: str, destination: str, *, expires_in: int) -> TokenSource:
    """A token with the right signature, made so long ago that it expires in that many seconds."""

    async def get(environment: Environment) -> str:
        keyring = await environment.authz.keys.keyring()
        return _mint(source, destination, keyring, age=TokenLife().seconds - expires_in)

    return get


def forged(source: str, destination: str) -> TokenSource:
    """A token that is right in all but the secret, and the key id is of a real one."""

    async def get(environment: Environment) -> str:
        real = tokens.parse(await signed(environment, "mallory", destination))
        keyring = Keyring.of(RootKey(real.key.root, secret=b"guess".ljust(32), sign_from=0))
        return _mint(source, destination, keyring, age=0)

    return get


INITECH: Final = stolen("initech", "acme-db")
"""The token that leaks: initech's, whom acme-db lets in."""


async def signed(environment: Environment, source: str, destination: str) -> str:
    """A token as the service gives it to `source` now."""
    cluster = app_cluster(destination)
    return await ask.token(environment.mesh, environment.mesh.tenants[source].certificate, cluster)


def _mint(source: str, destination: str, keyring: Keyring, *, age: int) -> str:
    return tokens.mint(
        source=Namespace(source),
        service_account="default",
        destination=Namespace(destination),
        keyring=keyring,
        now=time.time() - age,  # noqa: TID251 - the servers that judge it go by this clock
        life=TokenLife(),
    )
