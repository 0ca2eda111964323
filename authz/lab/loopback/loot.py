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
from authz.lab.loopback.mesh import app_cluster
from authz.lab.loopback.stage import Stage

TokenSource: TypeAlias = Callable[[Stage], Awaitable[str]]


def stolen(source: str, destination: str) -> TokenSource:
    """A real token that leaked from `source`, perhaps by a log: always the same one."""

    async def get(stage: Stage) -> str:
        name = f"{source} to {destination}"
        if name not in stage.loot:
            stage.loot[name] = await signed(stage, source, destination)
        return stage.loot[name]

    return get


def fresh(source: str, destination: str) -> TokenSource:
    """A token that `source` has asked for just now."""

    async def get(stage: Stage) -> str:
        return await signed(stage, source, destination)

    return get


def public(destination: str) -> TokenSource:
    """A token that leaked from the public gateway."""

    async def get(stage: Stage) -> str:
        cluster = app_cluster(destination)
        gateway = stage.mesh.gateway.certificate
        return await ask.token(stage.mesh, gateway, cluster, "public", destination)

    return get


def aged(source: str, destination: str, *, expires_in: int) -> TokenSource:
    """A token with the right signature, made so long ago that it expires in that many seconds."""

    async def get(stage: Stage) -> str:
        keyring = await stage.authz.keys.keyring()
        return _mint(source, destination, keyring, age=TokenLife().seconds - expires_in)

    return get


def forged(source: str, destination: str) -> TokenSource:
    """A token that is right in all but the secret, and the key id is of a real one."""

    async def get(stage: Stage) -> str:
        real = tokens.parse(await signed(stage, "mallory", destination))
        keyring = Keyring.of(RootKey(real.key.root, secret=b"guess".ljust(32), sign_from=0))
        return _mint(source, destination, keyring, age=0)

    return get


INITECH: Final = stolen("initech", "acme-db")
"""The token that leaks: initech's, whom acme-db lets in."""


async def signed(stage: Stage, source: str, destination: str) -> str:
    """A token as the service gives it to `source` now."""
    cluster = app_cluster(destination)
    return await ask.token(stage.mesh, stage.mesh.tenants[source].certificate, cluster)


def _mint(source: str, destination: str, keyring: Keyring, *, age: int) -> str:
    return tokens.mint(
        source=Namespace(source),
        service_account="default",
        destination=Namespace(destination),
        keyring=keyring,
        now=time.time() - age,  # noqa: TID251 - the servers that judge it go by this clock
        life=TokenLife(),
    )
