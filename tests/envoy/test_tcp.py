"""Raw TCP: who is asked about, when, and what a client learns before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from authz.lab.harness import envoy
from authz.lab.harness.ports import Endpoint
from authz.lab.recordings import ANY_OTHER, Sent
from authz.testing import workload
from tests.envoy.bench import Door, Workbench, free_port
from tests.envoy.scripted import allowing, always, denying
from tests.support.waiting import soon

GREETING = b"220 welcome\r\n"
PING = b"*1\r\n$4\r\nPING\r\n"  # redis_proxy answers it itself: +PONG
TCP_PROXY = "envoy.filters.network.tcp_proxy"
OWN, FOREIGN = workload("acme-web"), workload("globex")
DENY = always(denying("x-word", "not-allowed", "no"))


@dataclass(frozen=True)
class Parsed(Door):
    """A port whose name lets istiod put a parser there, if its agent is told so.

    That is not recorded: the filters are as its buildNetworkFiltersStack has them.
    """

    parser: str = ""

    def bare(self) -> Sent:
        sent = deepcopy(super().bare())
        for chain in tcp_chains(sent, self):
            cluster = chain["filters"][-1]["typed_config"]["cluster"]
            if self.parser == "RedisProxy":  # it ends the chain itself
                routes = {"catch_all_route": {"cluster": cluster}}
                settings = {"op_timeout": "5s"}
                options = {"settings": settings, "prefix_routes": routes}
                chain["filters"][-1:] = [self._filter("redis_proxy", **options)]
            else:
                chain["filters"].insert(-1, self._filter(f"{self.parser[:-5].lower()}_proxy"))
        return sent

    def _filter(self, name: str, **config: Any) -> dict[str, Any]:
        type_url = f"type.googleapis.com/envoy.extensions.filters.network.{name}.v3.{self.parser}"
        typed = {"@type": type_url, "stat_prefix": "pod", **config}
        return {"name": f"envoy.filters.network.{name}", "typed_config": typed}


UNLISTED, LISTED = Door("acme-web/plain", ANY_OTHER), Door("acme-web/plain", 7000)
REDIS, MONGO, MYSQL = (
    Parsed("acme-web/plain", 7000, parser=it) for it in ("RedisProxy", "MongoProxy", "MySQLProxy")
)
NAMES = {UNLISTED: "unlisted", LISTED: "listed", REDIS: "redis", MONGO: "mongo", MYSQL: "mysql"}


def on(*doors: Door) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("chain", doors, ids=[NAMES[door] for door in doors])


chains = on(UNLISTED, LISTED)


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


@dataclass
class Bench:
    workbench: Workbench
    app: App

    @asynccontextmanager
    async def chain(self, door: Door, overlay: str = "") -> AsyncIterator[Endpoint]:
        """A raw-TCP chain of a pod's sidecar, mutual TLS in front and the app behind."""
        async with self.chain_and_envoy(door, overlay) as (address, _):
            yield address

    @asynccontextmanager
    async def chain_and_envoy(
        self, door: Door, overlay: str = ""
    ) -> AsyncIterator[tuple[Endpoint, envoy.Envoy]]:
        address, app = free_port(), free_port()
        config = self.workbench.config(door, address, app, overlay)
        async with AsyncExitStack() as stack:
            server = await asyncio.start_server(self.app, *app)
            stack.callback(server.close)
            bench = self.workbench
            started = envoy.running("tcp", config, bench.directory, bench.executable)
            yield address, await stack.enter_async_context(started)

    @asynccontextmanager
    async def connected(
        self, address: Endpoint, who: Any = OWN
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        tls = self.workbench.certificate(who).client_context()
        reader, writer = await asyncio.open_connection(*address, ssl=tls)
        try:
            yield reader, writer
        finally:
            writer.close()


@pytest.fixture
def bench(workbench: Workbench) -> Bench:
    return Bench(workbench, App())


def waits_for_the_client(bench: Bench) -> bool:
    return not (bench.workbench.istio or "").startswith("1.28")


@chains
async def test_it_asks_with_the_peer_that_mtls_proves(bench: Bench, chain: Door) -> None:
    async with bench.chain(chain) as address, bench.connected(address) as (reader, writer):
        writer.write(b"hello")
        assert await soon(reader.readexactly(len(GREETING) + 5)) == GREETING + b"hello"
    (question,) = bench.workbench.authz.questions
    ours = [it for it in question.metadata if it[0].startswith("x-authz-")]
    assert ours == [("x-authz-question", "tcp")]
    assert question.request.attributes.source.principal == str(OWN)


@chains
async def test_who_is_denied_reaches_nothing(bench: Bench, chain: Door) -> None:
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


@chains
async def test_without_us_the_connection_is_closed(bench: Bench, chain: Door) -> None:
    async with bench.chain(chain) as address:
        await bench.workbench.authz.stop()
        async with bench.connected(address) as (reader, writer):
            writer.write(b"hello")
            assert await soon(reader.read()) in {b"", GREETING}
    assert bench.app.heard == []


every_chain = on(UNLISTED, LISTED, REDIS, MONGO)


@every_chain
async def test_shadow_lets_in_when_nobody_answers(bench: Bench, chain: Door) -> None:
    async with bench.chain(chain, "shadow") as address:
        await bench.workbench.authz.stop()
        async with bench.connected(address, FOREIGN) as (reader, writer):
            writer.write(PING)
            await soon(reader.readuntil(b"P"))


@every_chain
async def test_break_glass_asks_nobody(bench: Bench, chain: Door) -> None:
    bench.workbench.authz.answer = DENY
    async with (
        bench.chain(chain, "break-glass") as address,
        bench.connected(address, FOREIGN) as (reader, writer),
    ):
        writer.write(PING)
        await soon(reader.readuntil(b"P"))
    assert bench.workbench.authz.questions == []


@on(UNLISTED, LISTED, REDIS, MONGO, MYSQL)
def test_nothing_reads_what_a_client_says_before_us(chain: Door) -> None:
    """But for Istio's own: one exchanges metadata with proxies, the other counts."""
    names = [it["name"] for it in tcp_filters(chain)]
    istios = {"istio.metadata_exchange", "istio.stats"}
    assert next(name for name in names if name not in istios) == "tenant-authz.tcp"


def tcp_filters(door: Door, *, istio: str | None = None) -> list[dict[str, Any]]:
    """The network filters of the TCP chain behind a door."""
    found: list[dict[str, Any]]
    (found,) = (chain["filters"] for chain in tcp_chains(door.sent(istio=istio), door))
    return found


def tcp_chains(sent: Sent, door: Door) -> list[dict[str, Any]]:
    (inbound,) = (listener for listener in sent.listeners if listener["name"] == "virtualInbound")
    return [
        chain
        for chain in inbound["filter_chains"]
        if chain["filter_chain_match"].get("destination_port", ANY_OTHER) == door.at
        and "http_filters" not in chain["filters"][-1]["typed_config"]
    ]


def test_only_proxies_that_know_the_mode_get_it() -> None:
    def mode(door: Door, istio: str) -> str | None:
        result: str | None
        result = tcp_filters(door, istio=istio)[-1]["typed_config"].get("upstream_connect_mode")
        return result

    for istio in ("1.29.0", "1.30.3", "1.40.0", "1.100.0", "1.32-dev", "1.30-alpha.0123abcd"):
        assert mode(UNLISTED, istio) == "ON_DOWNSTREAM_DATA"
        assert mode(LISTED, istio) is None
    for istio in ("1.24.0", "1.28.9", "1.3.0", "1.29-alpha.0123abcd", "1.3-dev", ""):
        assert mode(UNLISTED, istio) is None
