"""The service itself, run and operated as an operator would: by its command and its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.lab.harness.certs import Certificate
from authz.lab.harness.processes import Child, CouldNotStart, child

_COMMAND: Final = (sys.executable, "-m", "authz")


@dataclass(frozen=True)
class Site:
    """Where the service runs, and how one can tell that it does."""

    listen: str
    http_listen: str
    certificate: Certificate
    policy: str
    ready: Callable[[], Awaitable[bool]]
    prefix: Sequence[str] = ()
    """Before its command: what puts it where it runs."""


class AuthzServer:
    """The service's process, which may end and start again, and its environment."""

    def __init__(self, site: Site, directory: Path, stack: AsyncExitStack) -> None:
        certificate = site.certificate
        self.policy_file = directory / "policy.yaml"
        self.policy_file.write_text(site.policy)
        self._log = directory / "authz.log"
        self._site = site
        self._stack = stack
        self._child: Child | None = None
        settings = {
            "AUTHZ_LISTEN": site.listen,
            "AUTHZ_HTTP_LISTEN": site.http_listen,
            "AUTHZ_IDENTITY": "mtls",
            "AUTHZ_TLS_CERT_FILE": str(certificate.cert_file),
            "AUTHZ_TLS_KEY_FILE": str(certificate.key_file),
            "AUTHZ_TLS_CA_FILE": str(certificate.ca_file),
            "AUTHZ_STORE": f"sqlite:{directory / 'keys.db'}",
            "AUTHZ_KEK_FILES": str(directory / "kek"),
            "AUTHZ_POLICY_FILE": str(self.policy_file),
            "AUTHZ_DRAIN_SECONDS": "0",  # nothing here takes time to notice
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTHZ_")}
        self.environment = {**inherited, **settings}

    async def start(self) -> None:
        """Run it and wait until it is ready."""
        argv = [*self._site.prefix, *_COMMAND, "serve"]
        started = child("authz serve", argv, self._log, self.environment)
        self._child = await self._stack.enter_async_context(started)
        await self._child.until(self._site.ready)

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
            *_COMMAND,
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
