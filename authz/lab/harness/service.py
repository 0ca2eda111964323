"""The service itself, run and operated as an operator would: by its command and its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from authz.config import PREFIX
from authz.lab.harness.certs import Certificate
from authz.lab.harness.keyfiles import KeyFiles
from authz.lab.harness.processes import Child, CouldNotStart, child

COMMAND: Final = (sys.executable, "-m", "authz")
_READY_SECONDS: Final = 2.0
KEPT: Final = {"reuse_sign_seconds": 30, "reuse_verify_seconds": 2}
"""Settings with which answers may be given again, as `envoyfilters/README.md` has them."""


def environment(settings: Mapping[str, object] | None = None) -> dict[str, str]:
    """This process's environment with these settings of the service, and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    return kept | {PREFIX + k.upper(): str(v) for k, v in (settings or {}).items()}


async def is_ready(http: object) -> bool:
    """Whether a server says at its HTTP address that it is ready."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_READY_SECONDS) as client:
            return (await client.get(f"http://{http}/readyz")).is_success
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def serving(
    env: Mapping[str, str],
    log: Path,
    *,
    ready: Callable[[], Awaitable[bool]] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Child]:
    """Run `authz serve` until the end of the block, which begins when it is ready.

    Args:
        env: its whole environment, see `environment`.
        log: where its output goes.
        ready: tells whether it is; by default `is_ready` does.
        prefix: before its command: what puts it where it runs.

    Raises:
        CouldNotStart: it ended, or took too long.
    """
    argv = [*prefix, *COMMAND, "serve"]
    async with child("authz serve", argv, log, env) as process:
        await process.until(ready or (lambda: is_ready(env["AUTHZ_HTTP_LISTEN"])))
        yield process


@dataclass(frozen=True)
class Site:
    """Where the service runs, and how one can tell that it does."""

    listen: object
    http_listen: object
    certificate: Certificate
    policy: str
    ready: Callable[[], Awaitable[bool]] | None = None
    prefix: Sequence[str] = ()
    """As of `serving`."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """More of the service's."""


class AuthzServer:
    """The service's process, which may end and start again, and its settings."""

    def __init__(
        self, site: Site, directory: Path, stack: AsyncExitStack, keys: KeyFiles | None = None
    ) -> None:
        self.policy_file = directory / "policy.yaml"
        self.policy_file.write_text(site.policy)
        self.keys = keys or KeyFiles(directory)
        self.log = directory / "authz.log"
        self._site = site
        self._stack = stack
        self._child: Child | None = None
        settings = {
            "listen": site.listen,
            "http_listen": site.http_listen,
            "policy_file": self.policy_file,
            "drain_seconds": 0,  # nothing here takes time to notice
            **site.certificate.settings,
            **self.keys.key_settings,
            **site.settings,
        }
        self.environment = environment(settings)
        """Of its next start, and of commands."""

    async def start(self) -> None:
        """Run it and wait until it is ready."""
        site = self._site
        started = serving(self.environment, self.log, ready=site.ready, prefix=site.prefix)
        self._child = await self._stack.enter_async_context(started)

    async def stop(self) -> None:
        """Let it drain and end."""
        if self._child is not None:
            await self._child.stop()

    async def crash(self) -> None:
        """End it without warning."""
        if self._child is not None:
            await self._child.kill()

    async def command(self, *arguments: str) -> str:
        """Run `authz` with `arguments`, and return what it prints.

        Raises:
            CouldNotStart: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise CouldNotStart(f"authz {' '.join(arguments)}: {errors.decode(errors='replace')}")
        return output.decode()
