"""The queue-proxy; each test names the Go code that it follows.

Sources: knative/serving knative-v1.23 (pkg/queue/…), knative/pkg (network/handlers/drain.go),
knative/networking release-1.23 (pkg/http/header/header.go).
"""

import asyncio

import pytest

from authz.lab.box.knative.messages import Headers, Request
from authz.lab.box.knative.net import call, serve
from authz.lab.box.knative.queue_proxy import shim_forwarded
from tests.knative.support import ROUTED, Stand, get, headers_of, told
from tests.support.waiting import eventually, soon

AGENTS = ["kube-probe/1.33", "Knative-Activator-Probe", "Knative-Autoscaling-Probe"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_probe_s_agent_is_answered_here(stand: Stand, agent: str, version: int) -> None:
    """drain.go isHealthCheckRequest, prefixes of sharedmain/handlers.go; health/handler.go."""
    headers = [("user-agent", agent), ("k-network-probe", "queue")]
    response, answer = await stand.ask(stand.proxy_at, get("/any", headers, version=version))
    assert (response.status, answer, stand.app.seen) == (200, b"queue", [])


@pytest.mark.parametrize("probe", ["", "probe", "activator"])
async def test_a_probe_s_agent_with_another_probe_is_a_bad_request(
    stand: Stand, probe: str
) -> None:
    """health/handler.go: badProbeTemplate. The agent is looked at before `probe` is (drain.go)."""
    headers = [("user-agent", AGENTS[0]), ("k-network-probe", probe), ("k-network-hash", "h")]
    response, answer = await stand.ask(stand.proxy_at, get("/", headers))
    assert (response.status, stand.app.seen) == (400, [])
    assert answer == f"unexpected probe header value: {probe}\n".encode()


async def test_a_probe_fails_while_the_app_does_not_listen(stand: Stand) -> None:
    """health/handler.go: prober()."""
    stand.proxy._app = "127.0.0.1:1"
    headers = [("user-agent", AGENTS[1]), ("k-network-probe", "queue")]
    response, _ = await stand.ask(stand.proxy_at, get("/", headers))
    assert response.status == 503


@pytest.mark.parametrize(("given", "status"), [("abc", 200), ("", 400)])
async def test_a_network_probe_needs_a_hash(stand: Stand, given: str, status: int) -> None:
    """drain.go: isKProbe, serveKProbe."""
    headers = [("k-network-probe", "probe"), *([("k-network-hash", given)] if given else [])]
    response, _ = await stand.ask(stand.proxy_at, get("/", headers))
    assert (response.status, response.headers.get("k-network-hash")) == (status, given)
    assert not stand.app.seen


@pytest.mark.parametrize(
    "headers",
    [
        [("k-network-probe", "queue")],
        [("k-kubelet-probe", "queue")],
        [("user-agent", "Knative-Ingress-Probe")],
        [("user-agent", "Knative-Queue-Proxy-Probe")],
        [("user-agent", "kube-probe")],
        [("user-agent", "knative-activator-probe")],
    ],
)
async def test_what_only_looks_like_a_probe_reaches_the_app(
    stand: Stand, headers: list[tuple[str, str]]
) -> None:
    """drain.go isHealthCheckRequest, IsKubeletProbe: the agent alone, a prefix, and its case."""
    response, seen = await stand.ask(stand.proxy_at, get("/secret", headers))
    assert (response.status, seen["path"]) == (200, "/secret")


async def test_the_host_is_restored_but_not_for_a_kubelet_s_header(stand: Stand) -> None:
    """header.go: RewriteHostOut; queue/handler.go: ProxyHandler skips it for IsKubeletProbe."""
    original = [("k-original-host", "shop.example.org")]
    _, seen = await stand.ask(stand.proxy_at, get("/", original, host="10.0.0.1:80"))
    assert (seen["host"], headers_of(seen).get("k-original-host")) == ("shop.example.org", "")
    kubelet = [*original, ("k-kubelet-probe", "x")]
    _, seen = await stand.ask(stand.proxy_at, get("/", kubelet, host="10.0.0.1:80"))
    assert seen["host"] == "10.0.0.1:80"
    assert headers_of(seen).get("k-original-host") == "shop.example.org"


@pytest.mark.parametrize("version", [1, 2])
async def test_the_revision_s_headers_are_removed_and_others_pass(
    stand: Stand, version: int
) -> None:
    """serving pkg/http/proxy.go: headersToRemove, each of several (Header.Del)."""
    sent = [*ROUTED, *ROUTED, ("x-tenant-token", "a"), ("x-tenant-token", "b"), ("x_y", "c")]
    _, seen = await stand.ask(stand.proxy_at, get("/", sent, version=version))
    headers = headers_of(seen)
    assert not {name for name, _ in headers if name.startswith("knative-serving-")}
    assert headers.values("x-tenant-token") == ["a", "b"]
    assert headers.get("x_y") == "c"
    assert seen["http"] == version  # serving AutoTransport: as it came


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([("x-forwarded-for", "1.1.1.1, 2.2.2.2")], "for=1.1.1.1, for=2.2.2.2"),
        ([("x-forwarded-for", "::1")], 'for="[::1]"'),
        (
            [
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.b"),
            ],
            "for=1.1.1.1;host=a.b;proto=https",
        ),
        ([("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=x")], "for=x"),
        ([], ""),
    ],
)
def test_forwarded_is_made_from_what_is_there(sent: list[tuple[str, str]], expected: str) -> None:
    """queue/forwarded_shim.go: ForwardedShimHandler; cases as in forwarded_shim_test.go."""
    request = Request("GET", "/", "h", Headers(sent))
    shim_forwarded(request)
    assert request.headers.get("forwarded") == expected


async def test_probes_fail_from_the_drain_on_and_requests_do_not(stand: Stand) -> None:
    """drain.go: ServeHTTP while draining; sharedmain/main.go waits for what is under way."""
    slow = asyncio.create_task(stand.ask(stand.proxy_at, get("/slow?seconds=0.2")))
    await eventually(told(lambda: stand.app.seen), "the app has it")
    ending = asyncio.create_task(stand.proxy.terminate())
    await eventually(told(lambda: stand.proxy._drain), "it drains")
    headers = [("user-agent", AGENTS[0]), ("k-network-probe", "queue")]
    response, answer = await stand.ask(stand.proxy_at, get("/", headers))
    assert (response.status, answer) == (503, b"shutting down\n")
    assert not ending.done()
    response, _ = await soon(slow)
    assert response.status == 200
    await soon(ending)


async def test_a_drain_without_sigterm_is_taken_back(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sharedmain/handlers.go: adminHandler resets after a second."""
    monkeypatch.setattr("authz.lab.box.knative.queue_proxy._NO_TERM_SECONDS", 0.05)
    stand.proxy._quiet = 60
    async with serve(stand.proxy.admin, host="127.0.0.1") as port:
        response, _ = await soon(call(f"127.0.0.1:{port}", get("/wait-for-drain")))
    assert response.status == 200
    headers = [("user-agent", AGENTS[0]), ("k-network-probe", "queue")]
    response, _ = await stand.ask(stand.proxy_at, get("/", headers))
    assert response.status == 200


async def test_an_app_that_is_not_there_is_a_bad_gateway(stand: Stand) -> None:
    """knative/pkg network/handlers/error.go."""
    stand.proxy._app = "127.0.0.1:1"
    response, _ = await call(stand.proxy_at, get())
    assert response.status == 502
