"""The service on the loopback interface, with the policy that the scenarios are made for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from authz.lab.harness.service import AuthzServer, Site
from authz.lab.loopback.mesh import ACTIVATOR, AUTHZ, AUTHZ_HOST, GATEWAY, Mesh

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


@asynccontextmanager
async def running(
    mesh: Mesh, directory: Path, settings: Mapping[str, object] = MappingProxyType({})
) -> AsyncIterator[AuthzServer]:
    """Make keys and run the service as long as the block lasts, but for the crashes in between.

    `settings` are more of its own.
    """
    async with AsyncExitStack() as stack:
        certificate = mesh.authority.issue(AUTHZ, dns_name=AUTHZ_HOST)
        site = Site(mesh.authz, mesh.authz_http, certificate, POLICY, settings=settings)
        server = AuthzServer(site, directory, stack)
        await server.command("keys", "init", "--generate-kek")
        await server.start()
        yield server
