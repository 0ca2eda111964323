"""Each legitimate way from one service to another, and that capture is what it is in a pod."""

from __future__ import annotations

import pytest

from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.mesh import Mesh
from authz.lab.box.istio.programs import GREETING, TCP_PORT, UNLISTED_TCP_PORT
from authz.lab.world.cluster import APP_PORT, UNLISTED_PORT
from tests.mesh.conftest import needs_network

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

TOKEN = "x-tenant-token"


async def _asked(mesh: Mesh, pod: str, question: str) -> int:
    counts = await mesh.checks(pod)
    return sum(number for (word, _), number in counts.items() if word == question)


@pytest.mark.parametrize(
    "host", ["hello.acme-db", "hello.acme-db.svc", "hello.acme-db.svc.cluster.local"]
)
async def test_from_sidecar_to_pod(mesh: Mesh, host: str) -> None:
    await mesh.forget("acme-db/hello")
    before = await _asked(mesh, "knative-serving/activator", "transit")
    answer = await mesh.call("acme-web/hello", f"http://{host}/x")
    assert (answer.status, answer.app) == (200, "acme-db/hello")
    [seen] = await mesh.seen("acme-db/hello")
    assert (seen.path, seen.host, seen.header(TOKEN)) == ("/x", host, [])
    assert await _asked(mesh, "knative-serving/activator", "transit") == before


async def test_from_sidecar_to_activator_to_pod(mesh: Mesh) -> None:
    await mesh.forget("acme-db/idle")
    before = await _asked(mesh, "knative-serving/activator", "transit")
    answer = await mesh.call("acme-web/hello", "http://idle.acme-db/")
    assert (answer.status, answer.app) == (200, "acme-db/idle")
    [seen] = await mesh.seen("acme-db/idle")
    assert seen.header(TOKEN) == []
    assert await _asked(mesh, "knative-serving/activator", "transit") == before + 1


@pytest.mark.parametrize("name", ["hello", "idle"])
async def test_from_sidecar_to_local_gateway_to_pod(mesh: Mesh, name: str) -> None:
    hops = {"istio-system/gateway": "local", "knative-serving/activator": "transit"}
    before = [await _asked(mesh, *hop) for hop in hops.items()]
    answer = await mesh.call("acme-web/plain", f"http://{name}.acme-db/")
    assert (answer.status, answer.app) == (200, f"acme-db/{name}")
    after = [await _asked(mesh, *hop) for hop in hops.items()]
    assert after == [before[0] + 1, before[1] + (name == "idle")]


async def test_the_local_gateway_takes_mutual_tls_only(mesh: Mesh) -> None:
    gateway = f"{mesh.address('istio-system/gateway')}:8081"
    with pytest.raises(NoAnswer):
        await mesh.call("mallory/bare", "http://hello.acme-db/", via=gateway)
    own = mesh.tls("mallory/bare", alpn=["http/1.1"])
    answer = await mesh.call("mallory/bare", "http://hello.acme-db/", via=gateway, tls=own)
    assert (answer.status, answer.reason) == (403, "token-missing")


@pytest.mark.parametrize("name", ["hello", "idle"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_from_outside_by_the_public_gateway(mesh: Mesh, name: str, scheme: str) -> None:
    before = await _asked(mesh, "istio-system/gateway", "public")
    url = f"{scheme}://{name}.acme-web.example.com/"
    answer = await mesh.call("outside/server", url)
    assert (answer.status, answer.app) == (200, f"acme-web/{name}")
    assert await _asked(mesh, "istio-system/gateway", "public") == before + 1


async def test_what_is_private_has_no_route_from_outside(mesh: Mesh) -> None:
    for host in ("hello.acme-db.example.com", "hello.acme-db.svc.cluster.local"):
        answer = await mesh.call(
            "outside/server", "http://hello.acme-web.example.com/", headers=[("host", host)]
        )
        assert answer.status == 404


async def test_http2_from_end_to_end(mesh: Mesh) -> None:
    await mesh.forget("acme-db/hello")
    answer = await mesh.call("acme-web/hello", "http://hello-00001.acme-db:81/", http2=True)
    assert answer.app == "acme-db/hello"
    [seen] = await mesh.seen("acme-db/hello")
    assert seen.record["http"] == 2


async def test_the_short_name_of_a_knative_service_has_no_route(mesh: Mesh) -> None:
    answer = await mesh.call("acme-db/plain", "http://hello/")
    # A sidecar calls itself so outwards; inwards and at gateways it is istio-envoy.
    assert (answer.status, answer.headers.get("server")) == (404, "envoy")


async def test_out_of_the_mesh_without_a_token(mesh: Mesh) -> None:
    await mesh.forget("outside/server")
    answer = await mesh.call("acme-web/plain", "http://outside.test/", headers=[(TOKEN, "mine")])
    assert answer.app == "outside/server"
    [seen] = await mesh.seen("outside/server")
    assert seen.header(TOKEN) == []


async def test_raw_tcp_within_a_tenant(mesh: Mesh) -> None:
    async with mesh.connected("acme-web/hello", "plain-tcp.acme-db:7000") as connection:
        await connection.send(b"hello\r\n")
        assert await connection.receive() == GREETING
        assert await connection.receive() == b"hello\r\n"


async def test_raw_tcp_of_another_tenant_is_denied(mesh: Mesh) -> None:
    """On a port of a Service its greeting is heard all the same: Envoy asks at the first byte."""
    as_sidecar = mesh.tls("globex/plain", alpn=["istio"])
    for port, heard in ((TCP_PORT, GREETING), (UNLISTED_TCP_PORT, b"")):
        to = f"{mesh.address('acme-db/plain')}:{port}"
        past = mesh.connected("globex/plain", to, tls=as_sidecar, through_sidecar=False)
        async with past as connection:
            await connection.send(b"hello\r\n")
            assert await connection.everything() == heard


async def test_an_unlisted_port_with_the_pods_own_certificate(mesh: Mesh) -> None:
    to = f"{mesh.address('acme-db/plain')}:{UNLISTED_PORT}"
    as_sidecar = mesh.tls("acme-web/plain", alpn=["istio-http/1.1", "istio", "http/1.1"])
    answer = await mesh.call(
        "acme-web/plain", "http://x/", via=to, tls=as_sidecar, through_sidecar=False
    )
    assert (answer.status, answer.app) == (200, "acme-db/plain")
    # The chain was chosen by the port that was asked for, so that port was known.
    assert await _asked(mesh, "acme-db/plain", "verify") >= 1


@pytest.mark.parametrize("port", [8012, APP_PORT, UNLISTED_PORT, 9090])
@pytest.mark.parametrize("who", ["mallory/bare", "globex/plain", "past its sidecar"])
async def test_strict_refuses_plaintext(mesh: Mesh, who: str, port: int) -> None:
    pod = "acme-db/plain" if port == UNLISTED_PORT else "acme-db/hello"
    await mesh.forget(pod)
    past = who == "past its sidecar"
    caller = "globex/plain" if past else who
    url = f"http://{mesh.address(pod)}:{port}/"
    try:
        answer = await mesh.call(caller, url, through_sidecar=not past)
    except NoAnswer:
        pass
    else:  # its own sidecar speaks HTTP on that port, and says that it was refused
        assert (caller, answer.status) == ("globex/plain", 503)
        assert b"connection" in answer.body
    assert await mesh.seen(pod) == []


async def test_capture_spares_the_proxys_own_user_and_the_agents_ports(mesh: Mesh) -> None:
    before = await _asked(mesh, "globex/plain", "sign")
    address = mesh.address("plain.acme-db")
    with pytest.raises(NoAnswer):
        await mesh.call("globex/plain", f"http://{address}/", through_sidecar=False)
    assert await _asked(mesh, "globex/plain", "sign") == before
    answer = await mesh.call("globex/plain", f"http://{address}/")
    assert (answer.status, answer.reason) == (403, "not-allowed")
    assert await _asked(mesh, "globex/plain", "sign") == before + 1
    with pytest.raises(NoAnswer, match="Refused"):  # nobody listens, and no Envoy answers for it
        await mesh.call("mallory/bare", f"http://{mesh.address('acme-db/plain')}:15021/")


async def test_a_cluster_ip_without_a_sidecar_leads_to_the_pod(mesh: Mesh) -> None:
    answer = await mesh.call("mallory/bare", "http://activator-service.knative-serving/")
    assert answer.status == 403  # by the activator's sidecar: knative-serving is PERMISSIVE
    assert answer.reason


async def test_an_apps_own_port_on_the_loopback_is_not_captured(mesh: Mesh) -> None:
    answer = await mesh.call("acme-db/plain", "http://x/", via=f"127.0.0.1:{UNLISTED_PORT}")
    assert answer.app == "acme-db/plain"
