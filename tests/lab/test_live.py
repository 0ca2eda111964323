"""A box that a real istiod feeds: what stands between them, and that changes arrive."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.domain.identity import SpiffeId
from authz.envoyfilters import shipped
from authz.lab.box.istio import box
from authz.lab.controlplane.versions import ISTIO, ISTIODS
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority
from authz.lab.live import live
from authz.lab.live.bootstrap import bootstrap
from authz.lab.live.relay import relaying
from authz.lab.nodes import node
from authz.lab.recordings import Recordings
from authz.lab.world import cluster
from tests.lab.differences import Difference, differences
from tests.mesh.conftest import needs_network

Json = dict[str, Any]

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


def made(folder: Path, istio: str) -> Json:
    """The bootstrap of a pod."""
    pod = cluster.standard().pods["acme-web/plain"]
    certificate = Authority(folder / "ca").issue(SpiffeId.parse(str(pod.identity)))
    return bootstrap(istio, node(pod), certificate, folder / "istiod", folder / "secrets")


@pytest.mark.envoy
@pytest.mark.parametrize("istio", ISTIODS)
def test_envoy_takes_the_bootstrap(tmp_path: Path, istio: str) -> None:
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(made(tmp_path, istio)))
    argv = [str(envoy.binary()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LACKED = {
    *("admin", "application_log_config", "bootstrap_extensions", "deferred_stat_options"),
    *("overload_manager", "stats_config"),
}
"""Of the agent's bootstrap: log, statistics, limits, and internal listeners, for ambient mode."""
LISTED = {
    ("sds-grpc", "alt_stat_name"),
    ("sds-grpc", "lb_policy"),
    ("sds-grpc", "load_assignment"),  # another socket
    ("xds-grpc", "alt_stat_name"),
    ("xds-grpc", "circuit_breakers"),
    ("xds-grpc", "lb_policy"),
    ("xds-grpc", "load_assignment"),
    ("xds-grpc", "max_requests_per_connection"),
    ("xds-grpc", "transport_socket"),  # the agent's part
    ("xds-grpc", "upstream_connection_options"),
}
"""Fields of clusters that differ."""


def unlisted(agents: Json, ours: Json) -> list[Difference]:
    """In what a bootstrap of ours differs from the agent's, but for what is listed."""
    found = []
    for it in differences({k: v for k, v in agents.items() if k not in LACKED}, ours):
        kind, *path = it.path[1:] if it.path[0] == "static_resources" else it.path
        clusters = kind == "clusters" and (
            tuple(path[:2]) in LISTED or path[0] not in {"order", "xds-grpc", "sds-grpc"}
        )
        if not (kind == "listeners" or clusters or it.path == ("node",)):
            found.append(it)
    return found


@pytest.mark.parametrize("istio", ISTIODS)
def test_the_bootstrap_is_the_agents_but_for_what_is_listed(tmp_path: Path, istio: str) -> None:
    agents = Recordings.of(istio).bootstraps["sidecar"]
    assert unlisted(agents, made(tmp_path, istio)) == []


@pytest.mark.parametrize(
    "plant",
    [
        lambda it: it.pop("layered_runtime"),
        lambda it: it["dynamic_resources"]["ads_config"].update(api_type="GRPC"),
        lambda it: it["dynamic_resources"]["lds_config"].pop("initial_fetch_timeout"),
        lambda it: it["static_resources"]["clusters"][0].pop("typed_extension_protocol_options"),
        lambda it: it.update(stats_flush_interval="1s"),
    ],
)
def test_a_bootstrap_that_differs_is_seen(tmp_path: Path, plant: Callable[[Json], object]) -> None:
    ours = made(tmp_path, ISTIO)
    plant(ours)
    assert unlisted(Recordings.of().bootstraps["sidecar"], ours)


@needs_network
@pytest.mark.envoy
@pytest.mark.usefixtures("control_plane")
@pytest.mark.timeout(600)
async def test_a_box_is_fed_by_istiod_and_sees_what_changes() -> None:
    async with box.running(tenants=("acme-web",), source=live()) as mesh:
        await mesh.settled()
        pod = "acme-web/plain"
        dump = json.loads(await mesh.config_dump(pod))
        kinds = {config["@type"].rpartition(".")[2]: config for config in dump["configs"]}
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
