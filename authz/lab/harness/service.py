"""The service itself, run and operated as an operator would: by its command and its environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from authz.lab.harness.certs import Certificate
from authz.lab.harness.processes import Child, CouldNotStart, child
from authz.lab.loopback.mesh import ACTIVATOR, AUTHZ, GATEWAY, Mesh

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
        certificate = mesh.authority.issue(AUTHZ, dns_name=mesh.authz.host)
        url = f"http://{mesh.authz_http}/readyz"

        async def ready() -> bool:
            try:
                async with httpx.AsyncClient(trust_env=False) as client:
                    return (await client.get(url)).is_success
            except httpx.HTTPError:
                return False

        site = Site(str(mesh.authz.endpoint), str(mesh.authz_http), certificate, POLICY, ready)
        server = AuthzServer(site, directory, stack)
        await server.command("keys", "init", "--generate-kek")
        await server.start()
        yield server


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
