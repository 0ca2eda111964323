"""Eventing; each test names the Go code of knative/eventing that it follows."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from authz.lab.box.knative.app import App
from authz.lab.box.knative.eventing import Eventing
from authz.lab.box.knative.messages import Headers, Request, Response
from authz.lab.box.knative.net import Handler, call, serve
from tests.knative.support import EVENT, headers_of


@dataclass
class Cluster:
    """The parts wired as a broker wires them."""

    eventing: Eventing
    app: App
    ingress: str
    filter: str
    channel: str
    subscriber: str

    async def post(
        self, at: str, path: str, *headers: tuple[str, str], host: str = "x"
    ) -> Response:
        request = Request("POST", path, host, Headers([*EVENT, *headers]))
        return (await call(at, request, b"data"))[0]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:

        async def listen(handler: Handler) -> str:
            return f"127.0.0.1:{await stack.enter_async_context(serve(handler, host='127.0.0.1'))}"

        eventing, app = Eventing(), App("subscriber")
        handlers = (eventing.ingress, eventing.filter, eventing.channel, app.handle)
        cluster = Cluster(eventing, app, *[await listen(one) for one in handlers])
        trigger = {"uid": "u1", "subscriber": f"http://{cluster.subscriber}/events"}
        await eventing.put_trigger("shop/orders", json.dumps(trigger).encode())
        yield cluster


async def test_from_the_broker_to_the_subscriber(cluster: Cluster) -> None:
    """ingress_handler.go, fanout_event_handler.go, filter_handler.go, one after another."""
    eventing = cluster.eventing
    channel = {"channel": f"http://{cluster.channel}/"}
    await eventing.put_broker("shop/default", json.dumps(channel).encode())
    # By its Host an in-memory channel is told, and the Host of this URL is an address: 127.0.
    subscribers = {"subscribers": [f"http://{cluster.filter}/triggers/shop/orders/u1"]}
    await eventing.put_channel("0/127", json.dumps(subscribers).encode())
    response = await cluster.post(cluster.ingress, "/shop/default")
    assert response.status == 202
    (seen,) = cluster.app.seen
    headers = headers_of(seen)
    assert (seen["path"], seen["length"]) == ("/events", 4)
    assert headers.values("kn-namespace") == ["shop"]
    assert headers.get("user-agent") == "Go-http-client/1.1"
    assert headers.get("prefer") == "reply"
    assert not headers.get("ce-knativebrokerttl")  # broker/ttl.go: DeleteTTL


async def test_the_trigger_s_namespace_replaces_what_was_sent(cluster: Cluster) -> None:
    """filter_handler.go: send, `additionalHeaders.Set(apis.KnNamespaceHeader, …)`."""
    forged = [("kn-namespace", "victim"), ("kn-namespace", "victim"), ("ce-knativebrokerttl", "1")]
    response = await cluster.post(cluster.filter, "/triggers/shop/orders/u1", *forged)
    assert response.status == 202
    assert headers_of(cluster.app.seen[0]).values("kn-namespace") == ["shop"]


async def test_the_channel_s_namespace_replaces_what_was_sent(cluster: Cluster) -> None:
    """fanout_event_handler.go: createEventReceiverFunction; ParseChannel reads the Host."""
    subscribers = {"subscribers": [f"http://{cluster.subscriber}/"] * 2}
    await cluster.eventing.put_channel("shop/orders", json.dumps(subscribers).encode())
    host = "orders-kn-channel.shop.svc.cluster.local"
    response = await cluster.post(cluster.channel, "/", host=host)
    assert response.status == 404
    host = "orders.shop.svc.cluster.local"
    response = await cluster.post(cluster.channel, "/", ("kn-namespace", "victim"), host=host)
    assert response.status == 202
    assert [headers_of(one).values("kn-namespace") for one in cluster.app.seen] == [["shop"]] * 2


async def test_a_ping_carries_its_source_s_namespace(cluster: Cluster) -> None:
    """adapter/v2/cloudevents.go: NewClient, `http.WithHeader(apis.KnNamespaceHeader, …)`."""
    sink = {"sink": f"http://{cluster.subscriber}/"}
    answer = await cluster.eventing.ping("shop", json.dumps(sink).encode())
    assert json.loads(answer) == {"status": 202}
    assert headers_of(cluster.app.seen[0]).values("kn-namespace") == ["shop"]


async def test_only_these_headers_pass_through(cluster: Cluster) -> None:
    """utils/headers.go: PassThroughHeaders; forwardHeaders and forwardPrefixes."""
    sent = {
        "x-request-id": "1",
        "knative-serving-namespace": "victim",
        "k-eventing-x": "2",
        "x-tenant-token": "t",
        "authorization": "Bearer b",
        "k-network-probe": "p",
    }
    ttl = ("ce-knativebrokerttl", "1")
    await cluster.post(cluster.filter, "/triggers/shop/orders/u1", ttl, *sent.items())
    seen = dict(headers_of(cluster.app.seen[0]))
    assert {name for name in sent if name in seen} == {
        "x-request-id",
        "knative-serving-namespace",
        "k-eventing-x",
    }


@pytest.mark.parametrize(
    ("path", "ttl", "status", "reached"),
    [
        ("/triggers/shop/orders/u1", "1", 202, True),
        ("/triggers/shop/orders/u1", "", 400, False),
        ("/triggers/shop/orders/u2", "1", 400, False),
        ("/triggers/victim/orders/u1", "1", 400, False),
        ("/triggers/shop/orders", "1", 400, False),
        ("/triggers/shop/orders/u1/", "1", 400, False),
    ],
)
async def test_the_filter_knows_its_triggers(
    cluster: Cluster, path: str, ttl: str, status: int, *, reached: bool
) -> None:
    """filter_handler.go: ServeHTTP, getTrigger; reconciler/sugar/trigger/path."""
    headers = [("ce-knativebrokerttl", ttl)] if ttl else []
    response = await cluster.post(cluster.filter, path, *headers)
    assert (response.status, bool(cluster.app.seen)) == (status, reached)


async def test_an_event_that_does_not_match_is_dropped(cluster: Cluster) -> None:
    """filter_handler.go: FailFilter answers nothing, which is a 200."""
    cluster.eventing.triggers["shop/orders"]["filter"] = {"type": "refund"}
    response = await cluster.post(
        cluster.filter, "/triggers/shop/orders/u1", ("ce-knativebrokerttl", "1")
    )
    assert (response.status, cluster.app.seen) == (200, [])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/shop/default", 405),
        ("OPTIONS", "/shop/default", 200),
        ("POST", "/", 404),
        ("POST", "/shop", 400),
        ("POST", "/shop/default/more", 400),
        ("POST", "/victim/default", 400),
    ],
)
async def test_the_ingress_takes_posts_to_a_broker(
    cluster: Cluster, method: str, path: str, status: int
) -> None:
    """ingress_handler.go: ServeHTTP."""
    request = Request(method, path, "x", Headers(EVENT))
    response, _ = await call(cluster.ingress, request)
    assert response.status == status


async def test_a_subscriber_s_refusal_comes_back(cluster: Cluster) -> None:
    """filter_handler.go: send; a subscriber that is not there is a 500."""
    trigger = cluster.eventing.triggers["shop/orders"]
    ttl = ("ce-knativebrokerttl", "1")
    trigger["subscriber"] = f"http://{cluster.subscriber}/early"
    assert (await cluster.post(cluster.filter, "/triggers/shop/orders/u1", ttl)).status == 417
    trigger["subscriber"] = "http://127.0.0.1:1/"
    assert (await cluster.post(cluster.filter, "/triggers/shop/orders/u1", ttl)).status == 500
    trigger["subscriber"] = f"http://{cluster.subscriber}/large?bytes=1"
    assert (await cluster.post(cluster.filter, "/triggers/shop/orders/u1", ttl)).status == 502
