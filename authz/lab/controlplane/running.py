"""Run etcd, kube-apiserver and istiod on loopback, in a temporary folder."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ruamel.yaml import YAML

from authz.domain.identity import SpiffeId
from authz.lab.controlplane import api, build
from authz.lab.controlplane.versions import ISTIO
from authz.lab.harness.certs import Authority
from authz.lab.harness.processes import child
from authz.lab.world.model import DOMAIN, ROOT_NAMESPACE

Json = dict[str, Any]

UPSTREAM_ENVOY: Final[Mapping[str, str]] = {
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
}
"""What to tell istiod so that an Envoy without Istio's own filters takes what it sends."""

_ISSUER: Final = f"https://kubernetes.default.svc.{DOMAIN}"
_SERVICE_RANGE: Final = "10.96.0.0/16"


@dataclass(frozen=True)
class Istiod:
    """A running istiod."""

    name: str
    """Which of `versions.ISTIODS` it is."""
    ads: str
    """Where it takes ADS in plaintext: `127.0.0.1:port`."""
    secure: str
    """Where it takes ADS with mutual TLS."""
    http: str
    """Where its pages for debugging are: `http://127.0.0.1:port`."""
    log: Path


@dataclass(frozen=True)
class Plane:
    """A running control plane."""

    address: str
    """The API server's, `https://localhost:port`."""
    token: str = field(repr=False)
    """That of the user `admin`, who may do everything."""
    ca_file: Path
    kubeconfig: Path
    istiod: Istiod | None
    directory: Path
    """Its files and logs; gone when it ends."""

    @asynccontextmanager
    async def api(self) -> AsyncIterator[api.Api]:
        """A client with the rights of the admin, as long as the block lasts."""
        async with api.connected(self.address, self.token, self.ca_file) as client:
            yield client

    @asynccontextmanager
    async def another(
        self,
        istio: str,
        *,
        mesh_config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[Istiod]:
        """Run another istiod, which watches the same API server, as long as the block lasts.

        Arguments and errors are those of `running`.
        """
        program = await asyncio.to_thread(build.built, build.istiod(istio), tell)
        settings = {"rootNamespace": ROOT_NAMESPACE, "trustDomain": DOMAIN}
        mesh = settings | dict(mesh_config or {})
        async with AsyncExitStack() as stack:
            yield await _istiod(
                istio, program, self, stack, mesh=mesh, environment=environment or {}
            )


@asynccontextmanager
async def running(
    *,
    istio: str | None = ISTIO,
    mesh_config: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    authority: Authority | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Plane]:
    """Run a control plane of its own as long as the block lasts.

    To test against a real API server alone:

        async with controlplane.running(istio=None) as plane:
            os.environ["KUBECONFIG"] = str(plane.kubeconfig)   # what kubectl and we read
            async with plane.api() as api:
                await api.apply(objects)                       # server-side, CRDs too

    The user is `admin` of the group system:masters, who may impersonate anybody. There is no
    controller manager: a namespace gets no ServiceAccount `default`, a Deployment no pods, and
    nobody removes what belonged to something that was deleted.

    Args:
        istio: one of `versions.ISTIODS`; None for an API server alone, without Istio's CRDs.
        mesh_config: what of Istio's MeshConfig differs from the defaults.
        environment: more environment variables of istiod, such as `UPSTREAM_ENVOY`.
        authority: who signs for istiod (`cacerts`); by default it is its own authority.
        tell: gets a line for each program that has to be built first.

    Raises:
        CouldNotStart: Go is missing and so is a program, or one of them did not come up.
    """
    programs = [build.etcd(), build.api_server()] + ([build.istiod(istio)] if istio else [])
    etcd, api_server, *_ = [
        await asyncio.to_thread(build.built, program, tell) for program in programs
    ]
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-plane-")))
        database = await _etcd(etcd, directory, stack)
        plane = await _api_server(api_server, database, directory, stack)
        if istio:
            async with plane.api() as client:
                await client.apply(await asyncio.to_thread(_crds, istio))
                await client.apply([namespace(ROOT_NAMESPACE)])
            if authority is not None:
                authority.plug_into(directory / "cacerts")
            istiod = plane.another(istio, mesh_config=mesh_config, environment=environment)
            plane = replace(plane, istiod=await stack.enter_async_context(istiod))
        yield plane


async def _etcd(program: Path, directory: Path, stack: AsyncExitStack) -> str:
    clients, peers = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
    argv: list[str | Path] = [
        program,
        *("--data-dir", directory / "etcd"),
        *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
        *("--initial-cluster", f"default={peers}"),
        *("--unsafe-no-fsync", "--log-level", "warn"),
    ]
    await _started("etcd", argv, directory / "etcd.log", stack, page=f"{clients}/health")
    return clients


async def _api_server(
    program: Path, database: str, directory: Path, stack: AsyncExitStack
) -> Plane:
    [port] = _free_ports(1)
    authority = Authority(directory / "pki", "tenant-authz lab")
    who = SpiffeId.parse(f"spiffe://{DOMAIN}/ns/kube-system/sa/kube-apiserver")
    certificate = authority.issue(who, dns_name="localhost")
    token = secrets.token_urlsafe(32)
    tokens, signing = directory / "pki" / "tokens.csv", directory / "pki" / "accounts.key"
    _write(tokens, f'{token},admin,admin,"system:masters"\n')
    _write(signing, _new_key())
    address = f"https://localhost:{port}"
    kubeconfig = directory / "kubeconfig"
    _write(kubeconfig, json.dumps(_kubeconfig(address, certificate.ca_file, token)))
    argv: list[str | Path] = [
        program,
        *("--etcd-servers", database),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        *("--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"),
        *("--tls-cert-file", certificate.cert_file, "--tls-private-key-file", certificate.key_file),
        *("--token-auth-file", tokens, "--authorization-mode", "RBAC"),
        *("--service-account-issuer", _ISSUER, "--api-audiences", f"{_ISSUER},istio-ca"),
        *("--service-account-key-file", signing, "--service-account-signing-key-file", signing),
        *("--service-cluster-ip-range", _SERVICE_RANGE),
        *("--allow-privileged", "--enable-priority-and-fairness=false", "--profiling=false"),
    ]
    plane = Plane(address, token, certificate.ca_file, kubeconfig, None, directory)
    await _started(
        "kube-apiserver",
        argv,
        directory / "apiserver.log",
        stack,
        page=f"{address}/readyz",
        token=token,
        ca_file=plane.ca_file,
    )
    return plane


async def _istiod(
    name: str,
    program: Path,
    plane: Plane,
    stack: AsyncExitStack,
    *,
    mesh: Json,
    environment: Mapping[str, str],
) -> Istiod:
    directory = Path(tempfile.mkdtemp(prefix="istiod-", dir=plane.directory))
    (directory / "mesh.json").write_text(json.dumps(mesh))
    ads, secure, http, https, monitoring = (f"127.0.0.1:{port}" for port in _free_ports(5))
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(directory),
        "POD_NAME": "istiod",
        "POD_NAMESPACE": ROOT_NAMESPACE,
        "CLUSTER_ID": "Kubernetes",
        "REVISION": "default",
        "JWT_POLICY": "third-party-jwt",
        "PILOT_CERT_PROVIDER": "istiod",
        "ROOT_CA_DIR": str(plane.directory / "cacerts"),
        "INJECTION_WEBHOOK_CONFIG_NAME": "",
        "VALIDATION_WEBHOOK_CONFIG_NAME": "",
        "ENABLE_LEADER_ELECTION": "false",
        "PILOT_MAX_REQUESTS_PER_SECOND": "1000",  # all proxies of a world connect at once
        **environment,
    }
    argv: list[str | Path] = [
        program,
        "discovery",
        *("--kubeconfig", plane.kubeconfig, "--meshConfig", directory / "mesh.json"),
        *("--grpcAddr", ads, "--secureGRPCAddr", secure, "--httpAddr", http),
        *("--httpsAddr", https, "--monitoringAddr", monitoring, "--ctrlz_port", "0"),
        *("--kubernetesApiQPS", "1000", "--kubernetesApiBurst", "2000"),
        *("--domain", DOMAIN, "--shutdownDuration", "0s"),
    ]
    log = directory / "istiod.log"
    await _started("istiod", argv, log, stack, page=f"http://{http}/ready", env=env, cwd=directory)
    return Istiod(name, ads, secure, f"http://{http}", log)


async def _started(
    name: str,
    argv: Sequence[str | Path],
    log: Path,
    stack: AsyncExitStack,
    *,
    page: str,
    token: str = "",
    ca_file: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Start a program and wait until it says at `page` that it is ready."""
    verify = ssl.create_default_context(cafile=ca_file) if ca_file else False
    headers = {"authorization": f"Bearer {token}"} if token else {}
    client = httpx.AsyncClient(verify=verify, headers=headers, trust_env=False)

    async def ready() -> bool:
        try:
            return (await client.get(page)).status_code == 200
        except httpx.HTTPError:
            return False

    # Whatever becomes of us: the kernel ends it when we are gone.
    tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = await stack.enter_async_context(child(name, [*tied, *argv], log, env, cwd))
    async with client:
        await process.until(ready)


def _crds(istio: str) -> list[Json]:
    """Istio's CRDs, and those of the Gateway API that this istiod knows."""
    charts = build.istio_module(istio) / "manifests" / "charts" / "base" / "files"
    folder = build.gateway_api_module(istio) / "config" / "crd" / "standard"
    files = [charts / "crd-all.gen.yaml", *sorted(folder.glob("gateway.*.yaml"))]
    yaml = YAML(typ="safe", pure=False)
    found = [it for file in files for it in yaml.load_all(file.read_text()) if it]
    return [it for it in found if it["kind"] == "CustomResourceDefinition"]


def namespace(name: str) -> Json:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _kubeconfig(address: str, ca_file: Path, token: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "lab", "cluster": {"server": address, "certificate-authority": str(ca_file)}}
        ],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
        "current-context": "lab",
    }


def _new_key() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        .decode()
    )


def _write(file: Path, text: str) -> None:
    """Write a file that only we can read, from its first moment on."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now; all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for it in sockets:
            it.bind(("127.0.0.1", 0))
        return [it.getsockname()[1] for it in sockets]
    finally:
        for it in sockets:
            it.close()
