"""An API server behind TLS, a proxy, and kubeconfigs that lead there, for kubectl and for us."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.errors import AuthzError
from authz.kube import ApiServer, Resource
from tests.kube_double import ApiDouble
from tests.support.waiting import PATIENCE

NAME = "api.corp.example"
WHAT = Resource("configmaps", namespace="authz-system", name="policy")
Json = dict[str, Any]

_NOW = dt.datetime.now(dt.UTC)  # noqa: TID251 - of certificates that real programs look at
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """A certificate, PEM, with its key."""

    cert: bytes
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def signed(
    name: str,
    by: Signed | None = None,
    *,
    ca: bool = False,
    plain: bool = False,
    hosts: tuple[str, ...] = (),
    until: dt.timedelta = _DAY,
    usage: x509.ObjectIdentifier | None = None,
) -> Signed:
    """A certificate. A `plain` authority has neither key usage nor identifiers."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - 2 * _DAY)
        .not_valid_after(_NOW + until)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=not plain)
    if ca and not plain:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if hosts:
        names = [x509.DNSName(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    made = builder.sign(key if by is None else by.key, hashes.SHA256())
    return Signed(made.public_bytes(serialization.Encoding.PEM), key, subject)


class Place:
    """A folder, and an API server with TLS that kubeconfigs in it lead to."""

    def __init__(self, folder: Path, *, shown: Signed, chain: bytes = b"", ca: bytes) -> None:
        self.folder, self.ca = folder, ca
        folder.mkdir(exist_ok=True)
        (folder / "server.pem").write_bytes(shown.cert + chain)
        (folder / "server.key").write_bytes(shown.key_pem)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.double: ApiDouble

    @contextmanager
    def running(self) -> Iterator[Place]:
        with ApiDouble.running(self.tls) as self.double:
            yield self

    @property
    def server(self) -> str:
        return f"https://localhost:{self.double.port}"

    def cluster(self, **changed: Any) -> Json:
        data = {"certificate-authority-data": text64(self.ca)} if self.ca else {}
        return {k: v for k, v in {"server": self.server, **data, **changed}.items() if v}

    def write(self, name: str = "kubeconfig", *, cluster: Json, user: Json, **top: Any) -> Path:
        path = self.folder / name
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [
                {
                    "name": "here",
                    "context": {"cluster": "c", "user": "u", "namespace": "authz-system"},
                }
            ],
            **top,
        }
        path.write_text(json.dumps(content))
        return path


def text64(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def ours() -> str:
    """What our client says of the API server: "" for success, or why not."""
    api = ApiServer()
    try:
        await api.list(WHAT)
    except AuthzError as error:
        return str(error)
    finally:
        await api.close()
    return ""


def kubectls(config: str) -> str:
    """The same of kubectl."""
    done = subprocess.run(
        ["kubectl", "get", "--raw", f"/{WHAT.path}", "--request-timeout=10s"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": config},
        timeout=PATIENCE,
        check=False,
    )
    return done.stderr if done.returncode else ""


@contextmanager
def proxy_to(port: int) -> Iterator[tuple[str, list[str]]]:
    """A proxy that takes CONNECT and leads to a port here; its URL, and what it was asked."""
    asked: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))
    serving = threading.Thread(target=_accept, args=(listening, port, asked))
    serving.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        serving.join(PATIENCE)
        listening.close()


def _accept(listening: socket.socket, port: int, asked: list[str]) -> None:
    threads = []
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threads.append(threading.Thread(target=_tunnel, args=(client, port, asked)))
            threads[-1].start()
    for thread in threads:
        thread.join(PATIENCE)


def _tunnel(client: socket.socket, port: int, asked: list[str]) -> None:
    head = b""
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        while b"\r\n\r\n" not in head and (data := client.recv(4096)):
            head += data
        asked.append(head.decode().partition("\r\n")[0])
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        back = threading.Thread(target=_pump, args=(server, client))
        back.start()
        _pump(client, server)
        back.join(PATIENCE)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
