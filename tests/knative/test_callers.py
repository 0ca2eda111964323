"""What the platform asks of a pod, and what it makes of the answers."""

import asyncio
import contextlib
import json
import subprocess
import sys

import pytest

from authz.lab.box.knative.autoscaler import Autoscaler
from authz.lab.box.knative.callers import CALLERS, make, request_for
from authz.lab.box.knative.messages import Headers, Request, Stream, reply
from authz.lab.box.knative.net import serve
from tests.knative.support import Stand, get, told
from tests.support.waiting import eventually

SCRAPE = [
    ("user-agent", "Go-http-client/1.1"),
    ("accept-encoding", "gzip"),
    ("accept", "application/protobuf"),
]


async def test_the_autoscaler_scrapes_queue_proxy(stand: Stand) -> None:
    """serving autoscaler/metrics/http_scrape_client.go; no User-Agent is set, so Go sets one."""
    async with serve(stand.proxy.autoscaler_metrics, host="127.0.0.1") as port:
        found = await make("autoscaler", f"http://127.0.0.1:{port}/metrics")
        elsewhere = await make("autoscaler", f"http://127.0.0.1:{port}/")
    assert (found["verdict"], elsewhere["status"]) == ("metrics", 404)
    assert CALLERS["autoscaler"].headers == SCRAPE


@pytest.mark.parametrize(
    ("which", "verdict"),
    [("activator", "ready"), ("kubelet", "failure"), ("prober", "not ready")],
)
async def test_probes_of_queue_proxy(stand: Stand, which: str, verdict: str) -> None:
    """The drainer answers all three: the kubelet has to send K-Network-Probe: queue as well.

    The prober's `override` comes back as it was sent, since no route has replaced it.
    """
    found = await make(which, f"http://{stand.proxy_at}/healthz")
    assert (found["verdict"], stand.app.seen) == (verdict, [])


@pytest.mark.parametrize(
    ("which", "status", "verdict"),
    [
        ("prober", 403, "ready"),
        ("prober", 404, "not ready"),
        ("prober", 503, "not ready"),
        ("activator", 403, "not ready"),
        ("activator", 502, "mesh"),
        ("activator", 503, "mesh"),
        ("autoscaler", 403, "no metrics"),
        ("scaler", 403, "not ready"),
        ("scaler", 200, "not ready"),  # a pod's own answer: the activator is not in the way
        ("prometheus", 403, "down"),
    ],
)
async def test_what_a_denial_is_taken_for(which: str, status: int, verdict: str) -> None:
    """networking pkg/status/status.go probeVerifier; pkg/http/error.go."""

    async def deny(_request: Request, stream: Stream) -> None:
        await reply(stream, status)

    async with serve(deny, host="127.0.0.1") as port:
        assert (await make(which, f"http://127.0.0.1:{port}/"))["verdict"] == verdict


async def test_nobody_there_is_no_answer() -> None:
    assert (await make("kubelet", "http://127.0.0.1:1/"))["verdict"] == "no answer"


@pytest.mark.parametrize("url", ["https://a/", "a:80", "http:///x", "http://a:b/"])
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"http://host|Port"):
        request_for(url)


async def test_a_caller_is_a_command(stand: Stand) -> None:
    argv = [sys.executable, "-m", "authz.lab.box.knative.callers", "prometheus"]
    argv += ["http://pod/metrics", "--via", stand.app_at, "--host", "pod.shop"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
    assert json.loads(done.stdout)["verdict"] == "up"
    assert stand.app.seen[0]["host"] == "pod.shop"


async def test_the_activator_connects_to_the_autoscaler_and_is_unwell_without(
    stand: Stand,
) -> None:
    """serving cmd/activator/main.go; pkg websocket/connection.go: Status."""
    autoscaler = Autoscaler()
    probe = get("/healthz", [("user-agent", "kube-probe/1.33")])
    async with contextlib.AsyncExitStack() as stack:
        server = contextlib.AsyncExitStack()
        port = await server.enter_async_context(serve(autoscaler.handle, host="127.0.0.1"))
        host = "autoscaler.knative-serving.svc.cluster.local:8080"
        reporting = asyncio.create_task(stand.activator.report(f"127.0.0.1:{port}", host))
        stack.callback(reporting.cancel)
        connected = told(lambda: stand.activator.autoscaler_connected and autoscaler.open)
        await eventually(connected, "it is connected")
        assert (await stand.ask(stand.activator_at, probe))[0].status == 200
        await server.aclose()
        lost = told(lambda: not stand.activator.autoscaler_connected)
        await eventually(lost, "it has noticed")
        response, answer = await stand.ask(stand.activator_at, probe)
    assert (response.status, answer) == (500, b"connection has not yet been established\n")


async def test_the_autoscaler_answers_a_kubelet_and_refuses_the_rest() -> None:
    """serving autoscaler/statserver/server.go: Handler."""
    autoscaler = Autoscaler()
    async with serve(autoscaler.handle, host="127.0.0.1") as port:
        assert (await make("kubelet", f"http://127.0.0.1:{port}/"))["status"] == 200
        assert (await make("prometheus", f"http://127.0.0.1:{port}/"))["status"] == 400
    assert Headers(CALLERS["kubelet"].headers).get("connection") == "close"
