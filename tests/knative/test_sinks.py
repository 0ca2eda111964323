"""JobSink and RequestReply; each test names the Go code of knative/eventing that it follows."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from authz.lab.box.knative.app import App
from authz.lab.box.knative.eventing import Eventing
from authz.lab.box.knative.messages import Headers, Request
from authz.lab.box.knative.net import Handler, call, serve
from authz.lab.box.knative.sinks import Sinks
from tests.knative.support import EVENT, headers_of


@dataclass
class Parts:
    """Both sinks, and a broker behind one of them."""

    sinks: Sinks
    broker: App
    job_sink: str
    request_reply: str

    async def ask(self, at: str, method: str, path: str, *headers: tuple[str, str]) -> int:
        request = Request(method, path, "x", Headers([*EVENT, *headers]))
        return (await call(at, request, b"data"))[0].status


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:

        async def listen(handler: Handler) -> str:
            return f"127.0.0.1:{await stack.enter_async_context(serve(handler, host='127.0.0.1'))}"

        sinks, broker = Sinks(Eventing()), App("broker")
        handlers = (sinks.job_sink, sinks.request_reply)
        made = Parts(sinks, broker, *[await listen(one) for one in handlers])
        url = {"broker": f"http://{await listen(broker.handle)}/shop/default"}
        await sinks.put_sink("shop/jobs", b"{}")
        await sinks.put_reply("shop/asked", json.dumps(url).encode())
        yield made


async def test_an_event_starts_a_job_with_it_and_without_the_requests_headers(
    parts: Parts,
) -> None:
    """cmd/jobsink/main.go: ServeHTTP, which keeps `event.MarshalJSON()` alone."""
    token = ("x-tenant-token", "x")
    assert await parts.ask(parts.job_sink, "POST", "/shop/jobs", token) == 202
    (job,) = parts.sinks.jobs
    assert job["app"] == "shop/jobs"
    assert headers_of(job).get("ce-id") == "1"
    assert not headers_of(job).get("x-tenant-token")


@pytest.mark.parametrize("path", ["/shop", "/shop/none", "/shop/jobs/x", "/shop/jobs?x=/y", "/"])
async def test_a_path_that_is_no_sinks_starts_nothing(parts: Parts, path: str) -> None:
    """The same: `len(parts) != 3`."""
    assert await parts.ask(parts.job_sink, "POST", path) == 400
    assert parts.sinks.jobs == []


async def test_what_became_of_a_job_is_told_by_the_second_segment(parts: Parts) -> None:
    """The same: parseLocation looks at no word but four, and unescapes those."""
    await parts.ask(parts.job_sink, "POST", "/shop/jobs")
    for path, status in (
        ("/namespaces/shop/name/jobs/sources/s/ids/1", 202),
        ("/mallory/sh%6fp/x/jobs/x/s/x/1", 202),
        ("/namespaces/bank/name/jobs/sources/s/ids/1", 400),
        ("/namespaces/shop/name/jobs", 400),
    ):
        assert await parts.ask(parts.job_sink, "GET", path) == status


async def test_an_event_goes_on_to_the_broker_with_the_headers_that_pass(parts: Parts) -> None:
    """pkg/requestreply/ingress_handler.go: handleNewEvent, `utils.PassThroughHeaders`."""
    sent = [("knative-tenant-token", "carried"), ("x-tenant-token", "own")]
    assert await parts.ask(parts.request_reply, "POST", "/shop/asked", *sent) == 200
    (seen,) = parts.broker.seen
    assert seen["path"] == "/shop/default"
    assert headers_of(seen).get("knative-tenant-token") == "carried"
    assert not headers_of(seen).get("x-tenant-token")


@pytest.mark.parametrize(
    ("path", "status"), [("/shop/none", 404), ("/shop/asked/reply", 400), ("/shop", 400)]
)
async def test_a_path_that_is_no_request_goes_nowhere(parts: Parts, path: str, status: int) -> None:
    """The same: ServeHTTP; an answer has to name what it answers."""
    assert await parts.ask(parts.request_reply, "POST", path) == status
    assert parts.broker.seen == []
