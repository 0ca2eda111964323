"""Knative Eventing's multi-tenant parts: broker ingress, trigger filter, channel, PingSource.

Each has a port of its own, and is a pod of its own in a cluster:

    --ingress-port    takes events at /NS/BROKER and sends them to the broker's channel
    --filter-port     takes events at /triggers/NS/TRIGGER/UID and sends them to the subscriber
    --channel-port    tells the channel by Host, NAME.NS…, and sends to each of its subscribers

There are no retries, dead letters or replies, and events come in binary mode only. Instead of an
API server there is a Unix socket:

    PUT /brokers/NS/NAME     {"channel": URL}
    PUT /channels/NS/NAME    {"subscribers": [URL, …]}
    PUT /triggers/NS/NAME    {"uid": UID, "subscriber": URL, "filter": {ATTRIBUTE: VALUE}}
    POST /ping/NS            {"sink": URL}: a PingSource of NS fires; answers {"status": N}
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from authz.lab.box.knative.callers import GO_AGENT, request_for
from authz.lab.box.knative.command import (
    listening,
    main,
    parser,
    socket_option,
    via_option,
)
from authz.lab.box.knative.messages import Headers, Request, Response, Stream, body, reply
from authz.lab.box.knative.net import call

NAMESPACE: Final = "kn-namespace"
"""knative/eventing pkg/apis/headers.go: KnNamespaceHeader."""

_TTL: Final = "ce-knativebrokerttl"
"""pkg/broker/ttl.go: TTLAttribute."""

_REQUIRED: Final = ("ce-specversion", "ce-id", "ce-type", "ce-source")


@dataclass
class Event:
    """A CloudEvent in binary mode: its attributes are headers."""

    headers: Headers
    data: bytes


@dataclass
class Eventing:
    """What is configured, and where everything that is sent is sent through."""

    via: str | None = None
    brokers: dict[str, str] = field(default_factory=dict)
    channels: dict[str, list[str]] = field(default_factory=dict)
    triggers: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def ingress(self, request: Request, stream: Stream) -> None:
        """pkg/broker/ingress/ingress_handler.go: ServeHTTP; the tenant is told by the path."""
        event = await event_of(request, stream)
        parts = request.target.removesuffix("/").split("/")
        if request.method == "OPTIONS":
            headers = [("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")]
            await reply(stream, 200, headers=headers)
        elif request.method != "POST":
            await reply(stream, 405, headers=[("allow", "POST, OPTIONS")])
        elif request.target == "/":
            await reply(stream, 404)
        elif len(parts) != 3 or event is None or (channel := self._channel(*parts[1:])) is None:
            await reply(stream, 400)
        else:
            event.headers.set(_TTL, "255")  # the number is not counted down here
            sent = await self.send(channel, event, pass_through(request.headers))
            await reply(stream, sent.status if sent else 500)

    def _channel(self, namespace: str, broker: str) -> str | None:
        return self.brokers.get(f"{namespace}/{broker}")

    async def channel(self, request: Request, stream: Stream) -> None:
        """pkg/channel/event_receiver.go; fanout/fanout_event_handler.go sets the namespace.

        multichannelfanout: a path names the channel, and the Host only where there is none.
        """
        event = await event_of(request, stream)
        path = unquote(request.target.partition("?")[0])
        parts = path.removesuffix("/").split("/")
        if path == "/":
            labels = request.host.split(".")
        else:
            labels = [f"{parts[2]}-kn-channel", parts[1]] if len(parts) == 3 else []
        if request.method != "POST":
            await reply(stream, 405, headers=[("allow", "POST, OPTIONS")])
        elif len(labels) < 2 or event is None:
            await reply(stream, 400)
        elif (subscribers := self.channels.get(f"{labels[1]}/{labels[0]}")) is None:
            await reply(stream, 404)
        else:
            headers = pass_through(request.headers)
            headers.set(NAMESPACE, labels[1])
            headers.set("prefer", "reply")  # pkg/kncloudevents/event_dispatcher.go
            answers = await asyncio.gather(*(self.send(url, event, headers) for url in subscribers))
            failed = [one for one in answers if one is None or not 200 <= one.status < 300]
            await reply(stream, 500 if failed else 202)

    async def filter(self, request: Request, stream: Stream) -> None:
        """pkg/broker/filter/filter_handler.go: ServeHTTP, send, writeResponse."""
        event = await event_of(request, stream)
        parts = request.target.split("/")
        if request.method != "POST":
            await reply(stream, 405, headers=[("allow", "POST")])
            return
        if len(parts) != 5 or parts[1] != "triggers" or event is None:
            await reply(stream, 400)
            return
        _, _, namespace, name, uid = parts
        trigger = self.triggers.get(f"{namespace}/{name}")
        if trigger is None or trigger["uid"] != uid or not event.headers.get(_TTL):
            await reply(stream, 400)
            return
        event.headers.drop(_TTL)
        wanted: dict[str, str] = trigger["filter"]
        if any(event.headers.get(f"ce-{name}") != value for name, value in wanted.items()):
            await reply(stream, 200)
            return
        headers = pass_through(request.headers)
        headers.set(NAMESPACE, namespace)
        headers.set("prefer", "reply")
        sent = await self.send(trigger["subscriber"], event, headers)
        if sent is None:
            await reply(stream, 500)
        elif 200 <= sent.status < 300 and sent.content and not sent.headers.get("ce-specversion"):
            await reply(stream, 502)  # an answer that is neither empty nor an event
        else:
            await reply(stream, sent.status)

    async def ping(self, rest: str, content: bytes) -> bytes:
        """A PingSource fires: pkg/adapter/v2/cloudevents.go sets the namespace."""
        headers = Headers(
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("content-type", "text/plain")]
        )
        headers.set("ce-type", "dev.knative.sources.ping")
        headers.set("ce-source", f"/apis/v1/namespaces/{rest}/pingsources/ping")
        sink = json.loads(content)["sink"]
        sent = await self.send(sink, Event(headers, b"ping"), Headers([(NAMESPACE, rest)]))
        return json.dumps({"status": sent.status if sent else 0}).encode()

    async def send(self, url: str, event: Event, additional: Headers) -> Answer | None:
        """event_dispatcher.go: the event's own headers, and over them the additional ones."""
        via, port = self.via, urlsplit(url).port
        if via is not None and port is not None:
            via = f"{via.rpartition(':')[0]}:{port}"
        where, request = request_for(url, via=via, method="POST")
        request.headers = Headers([("user-agent", GO_AGENT), *event.headers])
        for name, value in additional:
            request.headers.set(name, value)
        try:
            response, content = await call(where, request, event.data)
        except OSError:
            return None
        return Answer(response.status, response.headers, content)

    async def put_broker(self, rest: str, content: bytes) -> bytes:
        """Set a broker's channel."""
        self.brokers[named(rest)] = url_of(json.loads(content)["channel"])
        return b"{}"

    async def put_channel(self, rest: str, content: bytes) -> bytes:
        """Set a channel's subscribers."""
        self.channels[named(rest)] = [url_of(one) for one in json.loads(content)["subscribers"]]
        return b"{}"

    async def put_trigger(self, rest: str, content: bytes) -> bytes:
        """Set a trigger."""
        wanted = json.loads(content)
        self.triggers[named(rest)] = {
            "uid": str(wanted["uid"]),
            "subscriber": url_of(wanted["subscriber"]),
            "filter": dict(wanted.get("filter", {})),
        }
        return b"{}"


@dataclass
class Answer(Response):
    """A response and its body."""

    content: bytes = b""


def pass_through(headers: Headers) -> Headers:
    """pkg/utils/headers.go: PassThroughHeaders. What begins so goes on, whoever sent it."""
    return Headers(
        pair
        for pair in headers
        if pair[0] == "x-request-id" or pair[0].startswith(("knative-", "k-eventing-"))
    )


async def event_of(request: Request, stream: Stream) -> Event | None:
    """The event that a request is, if it is one."""
    data = await body(stream)
    if not all(request.headers.get(name) for name in _REQUIRED):
        return None
    own = [(k, v) for k, v in request.headers if k.startswith("ce-") or k == "content-type"]
    return Event(Headers(own), data)


def named(rest: str) -> str:
    """Check that it is NS/NAME."""
    if rest.count("/") != 1:
        raise ValueError(f"{rest!r} is not NS/NAME")
    return rest


def url_of(url: str) -> str:
    """Check that it is a URL to send to."""
    request_for(url)
    return url


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[None]:
    """Serve as long as the block lasts."""
    eventing = Eventing(options.via)
    routes: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {
        "PUT /brokers": eventing.put_broker,
        "PUT /channels": eventing.put_channel,
        "PUT /triggers": eventing.put_trigger,
        "POST /ping": eventing.ping,
    }
    handlers = (
        (eventing.ingress, options.ingress_port),
        (eventing.filter, options.filter_port),
        (eventing.channel, options.channel_port),
    )
    async with listening(options.address, handlers, options.control, routes):
        yield


def add_options(options: argparse.ArgumentParser) -> None:
    """Its command line."""
    options.add_argument("--address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    for name in ("ingress", "filter", "channel"):
        options.add_argument(f"--{name}-port", type=int, help="none if not given")
    via_option(options)
    socket_option(options, "sets brokers, channels, triggers")


if __name__ == "__main__":
    arguments = parser("eventing", __doc__)
    add_options(arguments)
    main(run, arguments.parse_args())
