"""Raw TCP: who is asked about, when, and what a client learns before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from authz.envoyfilters import Patches, Proxy, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import bootstrap
from authz.lab.loopback.bootstrap import Json
from authz.testing import workload
from tests.envoy.bench import AUTHZ_CLUSTER, ISTIO, Workbench, free_port
from tests.envoy.scripted import allowing, always, denying
from tests.support import soon

GREETING = b"220 welcome\r\n"
PING = b"*1\r\n$4\r\nPING\r\n"  # redis_proxy answers it itself: +PONG
TCP_PROXY = "envoy.filters.network.tcp_proxy"
OWN, FOREIGN = workload("acme-web"), workload("globex")
UNLISTED, LISTED = "virtualInbound", "0.0.0.0_5000"
REDIS, MONGO, MYSQL = "0.0.0.0_6379", "0.0.0.0_27017", "0.0.0.0_3306"
DENY = always(denying("x-word", "not-allowed", "no"))


@dataclass
class App:
    """Speaks first, then echoes."""

    connections: int = 0
    heard: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(GREETING)
        while data := await reader.read(1024):
            self.heard.append(data)
            writer.write(data)
        writer.close()


def network_filter(name: str, version: str, **config: Any) -> Json:
    type_url = f"type.googleapis.com/envoy.extensions.filters.network.{name}.v3.{version}"
    return {
        "name": f"envoy.filters.network.{name}",
        "typed_config": {"@type": type_url, "stat_prefix": "pod", **config},
    }


def filters_of(chain: str) -> list[Json]:
    """As istiod's buildNetworkFiltersStack has them, by the name of the Service's port."""
    cluster = "InboundPassthroughCluster"
    tcp_proxy = network_filter("tcp_proxy", "TcpProxy", cluster=cluster)
    match chain:
        case "0.0.0.0_6379":  # it ends the chain itself
            routes = {"catch_all_route": {"cluster": cluster}}
            settings = {"op_timeout": "5s"}
            return [
                network_filter("redis_proxy", "RedisProxy", settings=settings, prefix_routes=routes)
            ]
        case "0.0.0.0_27017":
            return [network_filter("mongo_proxy", "MongoProxy"), tcp_proxy]
        case "0.0.0.0_3306":
            return [network_filter("mysql_proxy", "MySQLProxy"), tcp_proxy]
    return [tcp_proxy]


@dataclass
class Bench:
    workbench: Workbench
    directory: Path
    istio: str
    authority: Authority
    app: App

    @asynccontextmanager
    async def chain(self, name: str, overlay: str = "") -> AsyncIterator[Endpoint]:
        """A raw-TCP chain of a pod's sidecar, mutual TLS in front and the app behind."""
        async with self.chain_and_envoy(name, overlay) as (address, _):
            yield address

    @asynccontextmanager
    async def chain_and_envoy(
        self, name: str, overlay: str = ""
    ) -> AsyncIterator[tuple[Endpoint, envoy.Envoy]]:
        address, app = free_port(), free_port()
        config = bootstrap.envoy_config(
            [self._listener(name)],
            [
                bootstrap.static_cluster("InboundPassthroughCluster", app),
                bootstrap.static_cluster(AUTHZ_CLUSTER, self.workbench.authz.endpoint, http2=True),
            ],
        )
        proxy = Proxy("sidecar", "acme-web", {}, self.istio)
        config = Patches.of(shipped(overlay)).applied(proxy, config)
        (listener,) = config["static_resources"]["listeners"]
        listener["address"] = bootstrap.socket_address(address)
        async with AsyncExitStack() as stack:
            server = await asyncio.start_server(self.app, *app)
            stack.callback(server.close)
            started = envoy.running("tcp", config, self.directory, self.workbench.executable)
            yield address, await stack.enter_async_context(started)

    def _listener(self, name: str) -> Json:
        chain = {
            "name": name,
            "filters": filters_of(name),
            "transport_socket": bootstrap.downstream_tls(
                self.authority.issue(workload("acme-web", "pod"))
            ),
        }
        return {"name": "virtualInbound", "traffic_direction": "INBOUND", "filter_chains": [chain]}

    @asynccontextmanager
    async def connected(
        self, address: Endpoint, who: Any = OWN
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        tls = self.authority.issue(who).client_context()
        reader, writer = await asyncio.open_connection(*address, ssl=tls)
        try:
            yield reader, writer
        finally:
            writer.close()


@pytest.fixture
def bench(workbench: Workbench, tmp_path: Path, envoy_version: str) -> Bench:
    istio = ISTIO.get(envoy_version.rpartition(".")[0], "1.30.0")
    return Bench(workbench, tmp_path, istio, Authority(tmp_path / "certs"), App())


def waits_for_the_client(bench: Bench) -> bool:
    return bench.istio >= "1.29"


@pytest.mark.parametrize("chain", [UNLISTED, LISTED])
async def test_it_asks_with_the_peer_that_mtls_proves(bench: Bench, chain: str) -> None:
    async with bench.chain(chain) as address, bench.connected(address) as (reader, writer):
        writer.write(b"hello")
        assert await soon(reader.readexactly(len(GREETING) + 5)) == GREETING + b"hello"
    (question,) = bench.workbench.authz.questions
    ours = [it for it in question.metadata if it[0].startswith("x-authz-")]
    assert ours == [("x-authz-question", "tcp")]
    assert question.request.attributes.source.principal == str(OWN)


@pytest.mark.parametrize("chain", [UNLISTED, LISTED])
async def test_who_is_denied_reaches_nothing(bench: Bench, chain: str) -> None:
    bench.workbench.authz.answer = DENY
    async with bench.chain(chain) as address, bench.connected(address, FOREIGN) as (reader, writer):
        writer.write(b"hello")
        got = await soon(reader.read())
    (question,) = bench.workbench.authz.questions
    assert question.request.attributes.source.principal == str(FOREIGN)
    assert bench.app.heard == []
    if chain == UNLISTED and waits_for_the_client(bench):
        assert (got, bench.app.connections) == (b"", 0)
    else:
        assert got in {b"", GREETING}  # and no more


async def test_on_unlisted_ports_the_app_does_not_greet_who_is_silent(bench: Bench) -> None:
    async with bench.chain(UNLISTED) as address, bench.connected(address) as (reader, writer):
        if waits_for_the_client(bench):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.3)
            assert bench.app.connections == 0
        else:
            assert await soon(reader.readexactly(len(GREETING))) == GREETING
        writer.write(b"hello")
        await soon(reader.readuntil(b"hello"))


async def test_more_than_the_early_data_gets_through_once_allowed(bench: Bench) -> None:
    sent = b"x" * 300_000
    async with bench.chain(UNLISTED) as address, bench.connected(address) as (reader, writer):
        writer.write(sent)
        assert await soon(reader.readexactly(len(GREETING) + len(sent))) == GREETING + sent


async def test_redis_is_asked_about_before_a_command_is_read(bench: Bench) -> None:
    async with bench.chain(REDIS) as address:
        async with bench.connected(address) as (reader, writer):
            writer.write(PING)
            assert await soon(reader.readexactly(7)) == b"+PONG\r\n"
        bench.workbench.authz.answer = DENY
        async with bench.connected(address, FOREIGN) as (reader, writer):
            writer.write(b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n")
            assert await soon(reader.read()) == b""
    asked = [it.request.attributes.source.principal for it in bench.workbench.authz.questions]
    assert asked == [str(OWN), str(FOREIGN)]
    assert bench.app.heard == []


async def test_mongo_is_asked_about_before_its_bytes_are_parsed(bench: Bench) -> None:
    """Twice, where the first answer lets in: behind the parser there is tcp_proxy, with ours."""
    senseless = b"\x10" + b"\0" * 11 + b"\x7f" * 4  # a header with an operation that there is not
    async with bench.chain_and_envoy(MONGO) as (address, proxy):

        async def not_understood() -> int:
            said = await proxy.admin("/stats?filter=mongo.pod.decoding_error")
            return int(said.split(": ")[1])

        bench.workbench.authz.answer = DENY
        async with bench.connected(address, FOREIGN) as (reader, writer):
            writer.write(senseless)
            assert await soon(reader.read()) in {b"", GREETING}
        assert (len(bench.workbench.authz.questions), await not_understood()) == (1, 0)
        bench.workbench.authz.answer = always(allowing())
        async with bench.connected(address) as (reader, writer):
            writer.write(senseless)
            await soon(reader.readexactly(len(GREETING) + len(senseless)))
        assert (len(bench.workbench.authz.questions), await not_understood()) == (3, 1)
    assert bench.app.heard == [senseless]


@pytest.mark.parametrize("chain", [UNLISTED, LISTED])
async def test_without_us_the_connection_is_closed(bench: Bench, chain: str) -> None:
    async with bench.chain(chain) as address:
        await bench.workbench.authz.stop()
        async with bench.connected(address) as (reader, writer):
            writer.write(b"hello")
            assert await soon(reader.read()) in {b"", GREETING}
    assert bench.app.heard == []


every_chain = pytest.mark.parametrize("chain", [UNLISTED, LISTED, REDIS, MONGO])


@every_chain
async def test_shadow_lets_in_when_nobody_answers(bench: Bench, chain: str) -> None:
    async with bench.chain(chain, "shadow") as address:
        await bench.workbench.authz.stop()
        async with bench.connected(address, FOREIGN) as (reader, writer):
            writer.write(PING)
            await soon(reader.readuntil(b"P"))


@every_chain
async def test_break_glass_asks_nobody(bench: Bench, chain: str) -> None:
    bench.workbench.authz.answer = DENY
    async with (
        bench.chain(chain, "break-glass") as address,
        bench.connected(address, FOREIGN) as (reader, writer),
    ):
        writer.write(PING)
        await soon(reader.readuntil(b"P"))
    assert bench.workbench.authz.questions == []


@pytest.mark.parametrize("chain", [UNLISTED, LISTED, REDIS, MONGO, MYSQL])
def test_nothing_reads_what_a_client_says_before_us(chain: str) -> None:
    config = bootstrap.envoy_config([inbound(chain)], [])
    patched = Patches.of(shipped()).applied(Proxy("sidecar", "acme-web", {}), config)
    filters = patched["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    assert filters[0]["name"] == "tenant-authz.tcp"


def inbound(chain: str) -> Json:
    found = {"name": chain, "filters": filters_of(chain)}
    return {"name": "virtualInbound", "traffic_direction": "INBOUND", "filter_chains": [found]}


def test_only_proxies_that_know_the_mode_get_it() -> None:
    def mode(chain: str, istio: str) -> str | None:
        proxy = Proxy("sidecar", "acme-web", {}, istio)
        config = Patches.of(shipped()).applied(proxy, bootstrap.envoy_config([inbound(chain)], []))
        *_, tcp_proxy = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
        result: str | None = tcp_proxy["typed_config"].get("upstream_connect_mode")
        return result

    for istio in ("1.29.0", "1.30.3", "1.40.0", "1.100.0", "1.32-dev", "1.30-alpha.0123abcd"):
        assert mode(UNLISTED, istio) == "ON_DOWNSTREAM_DATA"
        assert mode(LISTED, istio) is None
    for istio in ("1.24.0", "1.28.9", "1.3.0", "1.29-alpha.0123abcd", "1.3-dev", ""):
        assert mode(UNLISTED, istio) is None
