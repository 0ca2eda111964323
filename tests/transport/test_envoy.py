"""Behind a real Envoy under load: no request is lost when connections end."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.lab.harness import envoy
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import apps, bootstrap
from authz.lab.loopback.bootstrap import Service
from authz.lab.loopback.mesh import AUTHZ
from authz.testing import workload
from authz.transport import Health, Http2Listener, Limits, TlsMaterial
from authz.transport.callers import CallerSource
from tests.envoy.bench import AUTHZ_CLUSTER, VERIFY, free_port
from tests.envoy.scripted import allowing
from tests.support import SERVICE, Issuer, eventually, soon
from tests.transport.support import material

pytestmark = pytest.mark.envoy

WORKERS = 16
LIMITS = Limits()


class Allowing:
    """A service that allows everything."""

    def __init__(self) -> None:
        self.checks = 0
        self._answer = allowing().SerializeToString()

    def asked(self, caller: SpiffeId | None, metadata: Sequence[tuple[str, str]]) -> Asked:
        del metadata
        return Asked(caller)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        del request, asked
        self.checks += 1
        return self._answer


class Stage:
    """An Envoy whose inbound filter asks us, an app behind it, and clients in front."""

    def __init__(self, tls: TlsMaterial | None) -> None:
        self.tls = tls
        self.service = Allowing()
        self.closed: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._caller_of: CallerSource | None = None if tls else lambda _: workload("acme-web")
        self.port = 0
        self.path: Path | None = None

    async def listener(self, limits: Limits = LIMITS) -> Http2Listener:
        """Another listener on the same port."""
        made = Http2Listener(
            self.service,
            Health(),
            host="" if self.path else "127.0.0.1",
            port=self.port,
            path=self.path,
            limits=limits,
            tls=self.tls,
            caller_of=self._caller_of,
            closed=self.closed.append,
        )
        self.port = await made.start(reuse_port=True)
        return made

    @asynccontextmanager
    async def loaded(self, directory: Path, transport_socket: Any) -> AsyncIterator[None]:
        """Clients ask without a pause."""
        address, app = free_port(), free_port()
        service = Service("app", "acme-web", app, AUTHZ, "10.96.1.1")
        hosts = [bootstrap.gateway_host("*", service)]
        ours = bootstrap.static_cluster(AUTHZ_CLUSTER, Endpoint("127.0.0.1", self.port), http2=True)
        if self.path is not None:
            (locality,) = ours["load_assignment"]["endpoints"]
            locality["lb_endpoints"][0]["endpoint"]["address"] = {"pipe": {"path": str(self.path)}}
        config = bootstrap.envoy_config(
            [VERIFY.listener(address, hosts)],
            [bootstrap.static_cluster(service.cluster, app), {**ours, **transport_socket}],
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(apps.echo("app", app))
            started = envoy.running("drain", config, directory, envoy.binary())
            await stack.enter_async_context(started)
            enough = asyncio.Event()
            workers = [asyncio.create_task(self._ask(address, enough)) for _ in range(WORKERS)]
            await self.more()
            yield
            await self.more()
            enough.set()
            await soon(asyncio.gather(*workers))

    async def more(self, count: int = 200) -> None:
        """Wait until so many more requests were answered."""
        least = self.statuses.total() + count

        async def answered() -> bool:
            return self.statuses.total() >= least

        await eventually(answered, "the clients are answered")

    async def _ask(self, address: Endpoint, enough: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection(*address)
        while not enough.is_set():
            writer.write(b"GET / HTTP/1.1\r\nhost: app.acme-web.svc.cluster.local\r\n\r\n")
            head = await soon(reader.readuntil(b"\r\n\r\n"))
            self.statuses[int(head[9:12])] += 1
            if b"transfer-encoding: chunked" in head:
                while await reader.readline() != b"0\r\n":
                    pass
                await reader.readline()
            else:
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await reader.readexactly(int(length))
        writer.close()


@pytest.fixture(params=["plaintext", "mtls"])
def stage(request: pytest.FixtureRequest, issuer: Issuer) -> Stage:
    return Stage(material(issuer.server()) if request.param == "mtls" else None)


@pytest.fixture
def transport_socket(stage: Stage, issuer: Issuer) -> dict[str, Any]:
    """How Envoy speaks to us."""
    if stage.tls is None:
        return {}
    us = Service("authz", "authz-system", free_port(), SERVICE, "10.96.1.2", http2=True)
    secured = bootstrap.service_cluster(us, issuer.issue(workload("acme-web")))
    return {"transport_socket": secured["transport_socket"]}


async def test_no_request_is_lost_while_one_listener_after_the_other_drains(
    stage: Stage, transport_socket: dict[str, Any], tmp_path: Path
) -> None:
    listener = await stage.listener()
    async with stage.loaded(tmp_path, transport_socket):
        for _ in range(6):
            following = await stage.listener()
            await soon(listener.stop(10))
            listener = following
            await stage.more()
    await listener.stop(0)
    assert stage.closed[:6] == ["drain"] * 6
    assert list(stage.statuses) == [200], stage.statuses
    assert stage.statuses.total() == stage.service.checks


async def test_an_envoy_asks_over_a_unix_socket(
    stage: Stage, transport_socket: dict[str, Any], tmp_path: Path
) -> None:
    """In plaintext as a sidecar would, and with TLS."""
    stage.path = tmp_path / "authz.sock"
    listener = await stage.listener()
    async with stage.loaded(tmp_path, transport_socket):
        await stage.more()
    await listener.stop(5)
    assert list(stage.statuses) == [200], stage.statuses
    assert stage.statuses.total() == stage.service.checks
    assert not stage.path.exists()


async def test_no_request_is_lost_while_connections_age(
    stage: Stage,
    transport_socket: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authz.transport.listener._SWEEP", 0.05)
    listener = await stage.listener(dataclasses.replace(LIMITS, connection_age=1))
    async with stage.loaded(tmp_path, transport_socket):
        while stage.closed.count("age") < 4:
            await stage.more(50)
    await listener.stop(0)
    assert list(stage.statuses) == [200], stage.statuses
    assert set(stage.closed) <= {"age", "client", "drain"}
