"""A box that a real istiod feeds: what stands between them, and that changes arrive."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from authz.domain.identity import SpiffeId
from authz.envoyfilters import shipped
from authz.lab.box.istio import box
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority
from authz.lab.live import live
from authz.lab.live.bootstrap import bootstrap
from authz.lab.live.relay import relaying
from authz.lab.nodes import node
from authz.lab.world import cluster
from tests.mesh.conftest import needs_network

SIGN = "tenant-authz.sign"


async def test_the_relay_passes_on_what_either_side_says(tmp_path: Path) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(100):
            writer.write(part.upper())
        writer.write(b"bye")
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, relaying(tmp_path / "way", host, port):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "way")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()
        await writer.wait_closed()


async def test_the_relay_hangs_up_where_nobody_listens(tmp_path: Path) -> None:
    async with relaying(tmp_path / "way", "127.0.0.1", 1):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "way")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.envoy
def test_envoy_takes_the_bootstrap(tmp_path: Path) -> None:
    pod = cluster.standard().pods["acme-web/plain"]
    certificate = Authority(tmp_path / "ca").issue(SpiffeId.parse(str(pod.identity)))
    made = bootstrap(node(pod), certificate, tmp_path / "istiod", tmp_path / "secrets")
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(made))
    argv = [str(envoy.binary()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_network
@pytest.mark.envoy
@pytest.mark.istiod
@pytest.mark.timeout(600)
async def test_a_box_is_fed_by_istiod_and_sees_what_changes() -> None:
    async with box.running(tenants=("acme-web",), source=live()) as mesh:
        await mesh.settled()
        pod = "acme-web/plain"
        dump = json.loads(await mesh.config_dump(pod))
        kinds = {it["@type"].rpartition(".")[2]: it for it in dump["configs"]}
        assert "dynamic_listeners" in kinds["ListenersConfigDump"]
        assert "static_listeners" not in kinds["ListenersConfigDump"]
        assert SIGN in json.dumps(kinds["ListenersConfigDump"])
        # The gateway's own certificate is istiod's to give, by the right of its identity.
        answer = await mesh.call("outside/server", "https://hello.acme-web.example.com/")
        assert answer.status == 200
        # What is taken away reaches proxies that run.
        fewer = [it for it in shipped() if it["metadata"]["name"] != "tenant-authz-sign"]
        await mesh.install([*mesh.world.documents, *fewer], [])
        assert SIGN not in await mesh.config_dump(pod)
        await mesh.install([*mesh.world.documents, *shipped()], [])
        assert SIGN in await mesh.config_dump(pod)
