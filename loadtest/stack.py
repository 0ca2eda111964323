"""The stack that a run brings: keys, a policy, certificates, and servers on free ports."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.config import IdentitySource, Settings, Transport
from authz.domain.identity import SpiffeId
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.keyfiles import KeyFiles
from authz.lab.harness.ports import free_ports
from authz.lab.harness.processes import CouldNotStart
from authz.lab.harness.service import environment, serving
from loadtest import processes, tenants
from loadtest.plan import Plan, Share

KEEPING: Final = (("reuse_sign_seconds", "30"), ("reuse_verify_seconds", "2"))
"""Settings with which sidecars may keep answers."""

_WORKERS: Final = "workers"  # a setting of the service, where it has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a server is run."""

    transport: Transport = Transport.HTTP2
    identity: IdentitySource = IdentitySource.XFCC
    workers: int = 1
    on_socket: bool = False
    """Whether it listens on a Unix socket."""
    namespaces: int = 1
    """That its policy knows, at least."""
    name: str = ""
    """Tells servers apart that are otherwise alike."""
    settings: tuple[tuple[str, str], ...] = ()
    """More of the service's, by name."""

    @property
    def label(self) -> str:
        """What tells its runs apart from others of the same plan."""
        kept = ", answers may be kept" if self.settings == KEEPING else ""
        return f"{self.transport}{kept}"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    setup: Setup
    pid: int
    host: str
    port: int
    http_port: int
    policy_file: Path
    socket: str
    """Where it listens, if not on that port."""

    def processes(self) -> frozenset[int]:
        """It and its workers."""
        return processes.family(self.pid)


class Stack:
    """Keys and certificates in a directory, and servers that use them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._certificates = directory / "certificates"
        self._authority = Authority(self._certificates, "tenant-authz load")
        self._server_certificate = self._authority.issue(tenants.AUTHZ, dns_name="authz.test")
        self._issued: set[str] = set()
        self.keys = KeyFiles(directory)
        self._servers = 0
        self.host = own_host()

    def certificate(self, identity: SpiffeId) -> Certificate:
        """Issue a certificate."""
        return self._authority.issue(identity)

    def shares(self, plan: Plan, server: Server) -> list[Share]:
        """What each client process needs. Issues the certificates that it takes."""
        if plan.identity is IdentitySource.MTLS:
            for connection in range(plan.connections):
                namespace = tenants.namespace(plan.callers_of(connection)[0])
                if namespace not in self._issued:
                    self._authority.issue(tenants.workload(namespace))
                    self._issued.add(namespace)
        return [
            Share(
                plan=plan,
                number=number,
                host=server.host,
                port=server.port,
                keys=str(self.keys.directory),
                certificates=str(self._certificates),
            )
            for number in range(plan.processes)
        ]

    @asynccontextmanager
    async def serving(self, setup: Setup, policy: str | None = None) -> AsyncIterator[Server]:
        """Run a server as long as the block lasts; `policy` in place of the mesh's.

        Raises:
            CouldNotStart: it did not come up.
        """
        self._servers += 1
        name = f"server-{self._servers}"
        policy_file = self._directory / f"{name}.yaml"
        policy_file.write_text(tenants.policy(setup.namespaces) if policy is None else policy)
        host = self.host
        (_, port), (_, http_port) = free_ports([self.host], each=2)
        socket = str(self._directory / f"{name}.sock")
        settings = {
            "listen": f"unix:{socket}" if setup.on_socket else f"{host}:{port}",
            "http_listen": f"{host}:{http_port}",
            "transport": setup.transport,
            "policy_file": str(policy_file),
            "identity": setup.identity,
            **self._identity_settings(setup),
            **self.keys.key_settings,
            "max_checks_per_second": "0",
            "drain_seconds": "0",
            "grace_seconds": "1",
            **dict(setup.settings),
        }
        if has_workers():
            settings[_WORKERS] = str(setup.workers)
        elif setup.workers > 1:
            raise CouldNotStart("this version of the service has one worker only")
        log = self._directory / f"{name}.log"
        async with serving(environment(settings), log) as process:
            yield Server(setup, process.process.pid, host, port, http_port, policy_file, socket)

    def _identity_settings(self, setup: Setup) -> dict[str, str]:
        match setup.identity:
            case IdentitySource.MTLS:
                limit = {"max_connections_per_namespace": "20000"}
                return self._server_certificate.settings | limit
            case IdentitySource.XFCC:
                return {"own_id": str(tenants.AUTHZ)}
            case IdentitySource.INSECURE_METADATA:
                return {}


def has_workers() -> bool:
    """Whether this version of the service can have several worker processes."""
    return _WORKERS in Settings.model_fields


def own_host() -> str:
    """A loopback address that hardly anybody else uses.

    Outgoing connections leave from 127.0.0.1, and so may take any port there that is free now.
    """
    return f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
