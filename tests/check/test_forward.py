"""Where the API server does not reach a server's side port, kubectl does, or it is not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from authz.check import Level, Site, examine
from authz.check.forward import forwarded
from authz.kube import KubeError, Resource
from tests.check.rows import found
from tests.check.world import HOME, METRICS, Fake, wanted, world

REFUSED = KubeError("could not get pods/proxy (503)", status=503)


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server's metrics are, on loopback."""

    class Side(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Side) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A kubectl that does this, and writes down how it was called."""
    told = folder / "told"
    file = folder / "kubectl"
    file.write_text(f'#!/bin/sh\necho "$@$AUTHZ_KEK" > {told}\n{script}\n')
    monkeypatch.setenv("AUTHZ_KEK", "a secret that kubectl and its plug-ins need not know")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return told


def test_kubectl_forwards_to_the_side_port(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo "Forwarding from 127.0.0.1:{port} -> 9001"\nexec sleep 60'
    told = kubectl(tmp_path, monkeypatch, script)
    assert forwarded(HOME, "authz-1", 9001, REFUSED) == METRICS.encode()
    assert told.read_text() == "port-forward --namespace=authz-system pod/authz-1 :9001\n"


@pytest.mark.parametrize(
    "script",
    [
        "echo 'error: pods is forbidden' >&2; exit 1",
        "echo 'Forwarding from 127.0.0.1:1 -> 9001'; exec sleep 60",
        "echo 'Forwarding from [::1]:9001 -> 9001'",
        "exec sleep 60",
    ],
)
def test_what_kubectl_cannot_do_is_told_as_the_api_server_told_it(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl(tmp_path, monkeypatch, script)
    with pytest.raises(KubeError, match="could not get pods/proxy"):
        forwarded(HOME, "authz-1", 9001, REFUSED, seconds=0.3)


def test_what_is_no_http_is_told_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"nothing\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        kubectl(tmp_path, monkeypatch, f"echo 'Forwarding from 127.0.0.1:{port} -> 9001'; exec cat")
        with pytest.raises(KubeError, match="could not get pods/proxy"):
            forwarded(HOME, "authz-1", 9001, REFUSED)
        thread.join()


def test_without_kubectl_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KubeError, match="could not get pods/proxy"):
        forwarded(HOME, "authz-1", 9001, REFUSED)


async def test_what_servers_say_is_asked_once_and_never_ok_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Closed(Fake):
        async def page(self, pod: Resource, port: int, path: str) -> bytes:
            asked.append(path)
            raise REFUSED

    monkeypatch.setenv("PATH", str(tmp_path))
    lines = await examine(Site(Closed(world()), wanted(), before=False))
    for name in ("certificate", "keys", "policy-age", "unverified"):
        assert found(lines, name).answer.level is Level.UNREAD
    assert asked == ["metrics"]
