"""The stack that a run brings: keys, a policy, certificates, and servers on free ports."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.config import IdentitySource, Settings, Transport
from authz.domain import rotation
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring
from authz.keystore import Keks, KeyStore, generate_kek_file, open_store, read_kek_file, update
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.processes import CouldNotStart, child
from loadtest import mesh, processes
from loadtest.plan import Plan, Share

_WORKERS: Final = "workers"  # a setting of the service, where it has it
_READY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a server is run."""

    transport: Transport = Transport.HTTP2
    identity: IdentitySource = IdentitySource.XFCC
    workers: int = 1
    namespaces: int = 1
    """That its policy knows, at least."""
    name: str = ""
    """Tells servers apart that are otherwise alike."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    setup: Setup
    pid: int
    host: str
    port: int
    http_port: int
    policy_file: Path

    def processes(self) -> frozenset[int]:
        """It and its workers."""
        return processes.family(self.pid)


class Stack:
    """Keys and certificates in a directory, and servers that use them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._certificates = directory / "certificates"
        self._authority = Authority(self._certificates, "tenant-authz load")
        self._server_certificate = self._authority.issue(mesh.AUTHZ, dns_name="authz.test")
        self._issued: set[str] = set()
        self._kek_file = directory / "kek"
        self._store = f"sqlite:{directory / 'keys.db'}"
        self._servers = 0
        self.host = own_host()

    async def make_keys(self) -> None:
        """Make the key store."""
        generate_kek_file(self._kek_file)
        store = self._opened()
        keyring = rotation.create(time.time())  # noqa: TID251 - keys are made now
        await store.compare_and_swap(None, keyring)
        await store.close()

    async def change_keys(self, change: Callable[[Keyring], Keyring]) -> None:
        """Change the key store under running servers, as an operator would."""
        store = self._opened()
        await update(store, change)
        await store.close()

    def certificate(self, identity: SpiffeId) -> Certificate:
        """Issue a certificate."""
        return self._authority.issue(identity)

    def shares(self, plan: Plan, server: Server) -> list[Share]:
        """What each client process needs. Issues the certificates that it takes."""
        if plan.identity is IdentitySource.MTLS:
            for connection in range(plan.connections):
                namespace = mesh.namespace(plan.callers_of(connection)[0])
                if namespace not in self._issued:
                    self._authority.issue(mesh.workload(namespace))
                    self._issued.add(namespace)
        return [
            Share(
                plan=plan,
                number=number,
                host=server.host,
                port=server.port,
                store=self._store,
                kek_file=str(self._kek_file),
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
        policy_file.write_text(mesh.policy(setup.namespaces) if policy is None else policy)
        host, (port, http_port) = self.host, free_ports(self.host, 2)
        settings = {
            "listen": f"{host}:{port}",
            "http_listen": f"{host}:{http_port}",
            "transport": setup.transport,
            "store": self._store,
            "kek_files": str(self._kek_file),
            "policy_file": str(policy_file),
            "identity": setup.identity,
            **self._identity_settings(setup),
            "max_checks_per_second": "0",
            "drain_seconds": "0",
            "grace_seconds": "1",
        }
        if has_workers():
            settings[_WORKERS] = str(setup.workers)
        elif setup.workers > 1:
            raise CouldNotStart("this version of the service has one worker only")
        environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("AUTHZ_")}
        environment |= {f"AUTHZ_{name.upper()}": value for name, value in settings.items()}
        argv = [sys.executable, "-m", "authz", "serve"]
        log = self._directory / f"{name}.log"
        async with child("authz serve", argv, log, environment) as process:
            await process.until(lambda: asyncio.to_thread(_is_ready, host, http_port))
            yield Server(setup, process.process.pid, host, port, http_port, policy_file)

    def _opened(self) -> KeyStore:
        return open_store(self._store, Keks(read_kek_file(self._kek_file)))

    def _identity_settings(self, setup: Setup) -> dict[str, str]:
        match setup.identity:
            case IdentitySource.MTLS:
                pair = self._server_certificate
                return {
                    "tls_cert_file": str(pair.cert_file),
                    "tls_key_file": str(pair.key_file),
                    "tls_ca_file": str(pair.ca_file),
                    "max_connections_per_namespace": "20000",
                }
            case IdentitySource.XFCC:
                return {"own_id": str(mesh.AUTHZ)}
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


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody had a moment ago. Workers share a port, so it cannot be 0."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _is_ready(host: str, http_port: int) -> bool:
    try:
        url = f"http://{host}:{http_port}/readyz"
        with urllib.request.urlopen(url, timeout=_READY_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
