"""The service itself, run and operated as an operator would: by its command and its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from authz.demo.mesh import ACTIVATOR, AUTHZ, GATEWAY, Mesh
from authz.demo.processes import Child, CouldNotStart, child

POLICY: Final = f"""\
cluster_domains: [cluster.local]
trust_domains: [cluster.local]
relays: [knative-local-gateway.istio-system]
default_mode: enforce
roles:
  transit: ["{ACTIVATOR}"]
  gateway: ["{GATEWAY}"]
tenants:
  acme: {{namespaces: [acme-web, acme-db]}}
namespaces:
  acme-db: {{public: false}}
  umbrella: {{mode: shadow}}
grants:
  - {{to: acme-db, from: initech}}
"""

_COMMAND: Final = (sys.executable, "-m", "authz")


@asynccontextmanager
async def running(mesh: Mesh, directory: Path) -> AsyncIterator[AuthzServer]:
    """Make keys and run the service as long as the block lasts, but for the crashes in between."""
    async with AsyncExitStack() as stack:
        server = AuthzServer(mesh, directory, stack)
        await server.command("keys", "init", "--generate-kek")
        await server.start()
        yield server


class AuthzServer:
    """The service's process, which may end and start again, and its environment."""

    def __init__(self, mesh: Mesh, directory: Path, stack: AsyncExitStack) -> None:
        certificate = mesh.authority.issue(AUTHZ, dns_name=mesh.authz.host)
        policy = directory / "policy.yaml"
        policy.write_text(POLICY)
        self._log = directory / "authz.log"
        self._ready_url = f"http://{mesh.authz_http}/readyz"
        self._stack = stack
        self._child: Child | None = None
        settings = {
            "AUTHZ_LISTEN": str(mesh.authz.endpoint),
            "AUTHZ_HTTP_LISTEN": str(mesh.authz_http),
            "AUTHZ_IDENTITY": "mtls",
            "AUTHZ_TLS_CERT_FILE": str(certificate.cert_file),
            "AUTHZ_TLS_KEY_FILE": str(certificate.key_file),
            "AUTHZ_TLS_CA_FILE": str(certificate.ca_file),
            "AUTHZ_STORE": f"sqlite:{directory / 'keys.db'}",
            "AUTHZ_KEK_FILES": str(directory / "kek"),
            "AUTHZ_POLICY_FILE": str(policy),
            "AUTHZ_DRAIN_SECONDS": "0",  # nothing here takes time to notice
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTHZ_")}
        self.environment = {**inherited, **settings}

    async def start(self) -> None:
        """Run it and wait until it is ready."""
        argv = [*_COMMAND, "serve"]
        started = child("authz serve", argv, self._log, self.environment)
        self._child = await self._stack.enter_async_context(started)
        await self._child.until(self._ready)

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

    async def _ready(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(self._ready_url)).is_success
        except httpx.HTTPError:
            return False
