"""The activator; each test names the Go code that it follows.

Sources: knative/serving knative-v1.23 (cmd/activator/main.go, pkg/activator/…), knative/networking
release-1.23 (pkg/http/…, pkg/prober), Go's net/http/httputil/reverseproxy.go.
"""

import asyncio

import pytest

from authz.lab.box.knative.messages import Request, Stream, reply
from authz.lab.box.knative.net import serve
from tests.knative.support import HOST, ROUTED, Stand, get, headers_of, told
from tests.support.waiting import eventually, soon


async def ready(stand: Stand) -> None:
    await stand.up()
    await eventually(told(lambda: stand.status()["ready"]), "the revision is ready")


@pytest.mark.parametrize("version", [1, 2])
async def test_a_request_waits_for_its_revision(stand: Stand, version: int) -> None:
    """activator/net/throttler.go: Try; revision_backends.go: run."""
    asking = asyncio.create_task(stand.ask(stand.activator_at, get("/", version=version)))
    await eventually(told(lambda: stand.status()["waiting"]), "it waits")
    assert (stand.status()["wakeups"], stand.app.seen) == (1, [])
    await stand.up()
    response, seen = await soon(asking)
    assert (response.status, seen["http"]) == (200, version)
    assert stand.status()["probes"] == {"200": 1}


async def test_no_pod_in_time_is_a_503(stand: Stand) -> None:
    """activator/handler/handler.go: context.DeadlineExceeded."""
    stand.activator._wait_seconds = 0.05
    response, answer = await stand.ask(stand.activator_at, get())
    assert (response.status, answer) == (503, b"context deadline exceeded\n")
    assert stand.status()["waiting"] == 0


@pytest.mark.parametrize(
    ("headers", "host", "status"),
    [
        (ROUTED, "anything", 200),
        ([], HOST, 200),
        (ROUTED[:1], "anything", 404),
        (ROUTED[1:], "anything", 404),
        (ROUTED[:1], HOST, 200),
        (ROUTED[1:], HOST, 200),
        ([*ROUTED, ("knative-serving-namespace", "victim")], "anything", 200),
        ([("knative-serving-namespace", "victim"), *ROUTED], "anything", 404),
        ([("knative-serving-namespace", "victim"), *ROUTED[1:]], HOST, 404),
        ([], "hello-00001.shop.svc", 404),
        ([], f"{HOST}:80", 404),
        ([], f"{HOST}.", 404),
        ([], "hello-00001.shop.pod.cluster.local", 404),
    ],
)
async def test_the_revision_is_told_by_both_headers_or_the_host(
    stand: Stand, headers: list[tuple[str, str]], host: str, status: int
) -> None:
    """context_handler.go: ServeHTTP; the first of several is taken (Header.Get)."""
    await ready(stand)
    response, _ = await stand.ask(stand.activator_at, get("/", headers, host=host))
    assert response.status == status


async def test_what_the_next_hop_gets(stand: Stand) -> None:
    """handler.go proxyRequest, header.go RewriteHostIn, pkg/http/proxy.go, reverseproxy.go."""
    await ready(stand)
    sent = [*ROUTED, ("x-tenant-token", "t"), ("x-forwarded-for", "9.9.9.9")]
    sent += [("k-network-hash", "override")]
    _, seen = await stand.ask(stand.activator_at, get("/", sent, host="shop.example.org"))
    headers = headers_of(seen)
    assert seen["host"] == "shop.example.org"  # and queue-proxy has put it back
    assert headers.get("k-proxy-request") == "activator"
    assert headers.get("x-tenant-token") == "t"
    assert headers.get("x-forwarded-for") == "9.9.9.9, 127.0.0.1, 127.0.0.1"
    assert headers.get("forwarded") == "for=9.9.9.9, for=127.0.0.1"  # before queue-proxy's own
    assert not headers.get("knative-serving-namespace")
    assert not headers.get("k-network-hash")  # networking http/probe/handler.go


async def test_on_the_wire_the_host_is_an_address(stand: Stand) -> None:
    """header.go: RewriteHostIn clears it; net/http request.go then writes URL.Host."""
    hosts = []

    async def pod(request: Request, stream: Stream) -> None:
        hosts.append((request.host, request.headers.get("k-original-host")))
        await reply(stream, 200, b"queue")

    async with serve(pod, host="127.0.0.1") as port:
        await stand.scale("127.0.0.1:1", cluster_ip=f"127.0.0.1:{port}")
        await stand.ask(stand.activator_at, get())
        await stand.ask(stand.activator_at, get("/", [("k-original-host", "forged")]))
    at = f"127.0.0.1:{port}"
    assert hosts == [(at, ""), (at, HOST), (at, "forged")]


async def test_a_client_s_original_host_is_kept(stand: Stand) -> None:
    """header.go: RewriteHostIn, "Don't overwrite an existing OriginalHostHeader"."""
    await ready(stand)
    _, seen = await stand.ask(stand.activator_at, get("/", [("k-original-host", "forged")]))
    assert seen["host"] == "forged"


async def test_connection_removes_what_it_names(stand: Stand) -> None:
    """reverseproxy.go: removeHopByHopHeaders runs after the Director: what it set goes too."""
    await ready(stand)
    named = [("connection", "X-Tenant-Token, k-proxy-request"), ("connection", "k-original-host")]
    _, seen = await stand.ask(stand.activator_at, get("/", [*named, ("x-tenant-token", "t")]))
    headers = headers_of(seen)
    assert not headers.get("x-tenant-token")
    assert not headers.get("k-proxy-request")
    assert seen["host"] == stand.proxy_at  # nothing was left to restore it from


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_an_answer_that_no_mesh_gives_is_fatal(stand: Stand, status: int) -> None:
    """revision_backends.go checkDests: notMesh, so the Service is never tried; http/error.go."""
    asked: list[str] = []

    async def deny(_request: Request, stream: Stream) -> None:
        asked.append("pod")
        await reply(stream, status)

    stand.activator._wait_seconds = 0.5
    async with serve(deny, host="127.0.0.1") as port:
        await stand.scale(f"127.0.0.1:{port}", cluster_ip=stand.proxy_at)
        response, _ = await stand.ask(stand.activator_at, get())
    assert response.status == 503
    assert set(stand.status()["probes"]) == {str(status)}
    assert len(asked) > 1  # it goes on trying, every 200 ms
    assert stand.app.seen == []


@pytest.mark.parametrize("status", [502, 503])
async def test_an_answer_that_a_mesh_gives_leads_to_the_service(stand: Stand, status: int) -> None:
    """revision_backends.go checkDests; networking pkg/http/error.go."""

    async def envoy(_request: Request, stream: Stream) -> None:
        await reply(stream, status)

    async with serve(envoy, host="127.0.0.1") as port:
        await stand.scale(f"127.0.0.1:{port}", cluster_ip=stand.proxy_at)
        response, _ = await stand.ask(stand.activator_at, get())
    assert response.status == 200
    assert stand.status()["probes"] == {str(status): 1, "200": 1}


async def test_a_denied_probe_of_the_service_is_never_ready(stand: Stand) -> None:
    """revision_backends.go: probeClusterIP, mesh-compatibility-mode enabled."""

    async def deny(_request: Request, stream: Stream) -> None:
        await reply(stream, 403)

    stand.activator.revisions["shop/hello-00001"].mesh = True
    stand.activator._wait_seconds = 0.3
    async with serve(deny, host="127.0.0.1") as port:
        await stand.scale(stand.proxy_at, cluster_ip=f"127.0.0.1:{port}")
        response, _ = await stand.ask(stand.activator_at, get())
    assert response.status == 503
    assert set(stand.status()["probes"]) == {"403"}


async def test_a_pod_without_queue_proxy_is_never_ready(stand: Stand) -> None:
    """revision_backends.go probe: ExpectsBody. The app answers /healthz with a 200 of its own."""
    stand.activator._wait_seconds = 0.3
    await stand.scale(stand.app_at)
    response, _ = await stand.ask(stand.activator_at, get())
    assert response.status == 503
    assert set(stand.status()["probes"]) == {"200"}
    assert {one["path"] for one in stand.app.seen} == {"/healthz"}


async def test_the_probe_is_knative_s(stand: Stand) -> None:
    """revision_backends.go: probe."""
    seen: list[Request] = []

    async def pod(request: Request, stream: Stream) -> None:
        seen.append(request)
        await reply(stream, 200, b"queue")

    async with serve(pod, host="127.0.0.1") as port:
        await stand.scale(f"127.0.0.1:{port}")
        await stand.ask(stand.activator_at, get())
    probe = seen[0]
    assert (probe.method, probe.target) == ("GET", "/healthz")
    assert probe.headers == [
        ("user-agent", "Knative-Activator-Probe"),
        ("k-network-probe", "queue"),
    ]


@pytest.mark.parametrize(
    ("headers", "status", "answer"),
    [
        ([("user-agent", "kube-probe/1.33")], 200, b""),
        ([("k-kubelet-probe", "x")], 200, b""),
        ([("k-network-probe", "activator")], 200, b"activator"),
        ([("k-network-probe", "queue")], 400, b'unexpected probe header value: "queue"\n'),
        ([("k-network-probe", "probe"), ("k-network-hash", "h")], 200, b""),
    ],
)
async def test_probes_are_answered_here_and_wake_nobody(
    stand: Stand, headers: list[tuple[str, str]], status: int, answer: bytes
) -> None:
    """healthz_handler.go, networking http/probe/handler.go, probe_handler.go; order of main.go."""
    response, told = await stand.ask(stand.activator_at, get("/", headers))
    assert (response.status, told) == (status, answer)
    assert stand.status()["wakeups"] == 0


async def test_scaled_to_zero_again_a_request_waits_again(stand: Stand) -> None:
    """revision_backends.go checkDests: no endpoints is an update without destinations."""
    await ready(stand)
    await stand.ask(stand.activator_at, get())
    assert stand.status()["wakeups"] == 0
    await stand.scale()
    stand.activator._wait_seconds = 0.05
    response, _ = await stand.ask(stand.activator_at, get())
    assert (response.status, stand.status()["wakeups"]) == (503, 1)
