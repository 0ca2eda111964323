"""Eventing's sinks that take everybody's events in one process: JobSink and RequestReply.

    --job-sink-port        starts a Job for each event at /NS/SINK, and tells what became of it
    --request-reply-port   sends an event at /NS/NAME to its broker

A Job is kept with the event that it is given, and does nothing. A RequestReply waits for no answer.
Instead of an API server there is a Unix socket:

    PUT /sinks/NS/NAME       {}
    PUT /replies/NS/NAME     {"broker": URL}
    GET /seen, DELETE /seen  the Jobs so far, as the app's requests; forget them
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from authz.lab.box.knative.command import (
    listening,
    main,
    parser,
    socket_option,
    via_option,
)
from authz.lab.box.knative.eventing import Eventing, event_of, named, pass_through, url_of
from authz.lab.box.knative.messages import Request, Stream, reply


@dataclass
class Sinks:
    """What is configured, and which Jobs there are."""

    eventing: Eventing
    sinks: set[str] = field(default_factory=set)
    brokers: dict[str, str] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)

    async def job_sink(self, request: Request, stream: Stream) -> None:
        """cmd/jobsink/main.go: ServeHTTP, handleGet; whose it is only the path tells."""
        event = await event_of(request, stream)
        parts = request.target.removesuffix("/").split("/")
        sink = ""
        if request.method == "GET" and len(parts) == 9:
            sink = f"{unquote(parts[2])}/{unquote(parts[4])}"
        elif request.method == "POST" and len(parts) == 3 and event is not None:
            sink = f"{parts[1]}/{parts[2]}"
        if sink not in self.sinks:
            await reply(stream, 400)
        elif request.method == "GET":
            there = any(it["app"] == sink for it in self.jobs)
            await reply(stream, 202 if there else 500)
        elif event is not None:
            headers = [list(pair) for pair in event.headers]
            job = {"app": sink, "path": request.target, "host": request.host, "headers": headers}
            self.jobs.append(job)
            await reply(stream, 202)

    async def request_reply(self, request: Request, stream: Stream) -> None:
        """pkg/requestreply/ingress_handler.go: ServeHTTP, handleNewEvent."""
        event = await event_of(request, stream)
        parts = request.target.removesuffix("/").split("/")
        if request.method != "POST":
            await reply(stream, 405, headers=[("allow", "POST, OPTIONS")])
        elif not 3 <= len(parts) <= 4 or event is None or parts[3:] == ["reply"]:
            await reply(stream, 400)  # an answer would have to name what it answers
        elif (broker := self.brokers.get(f"{parts[1]}/{parts[2]}")) is None:
            await reply(stream, 404)
        else:
            sent = await self.eventing.send(broker, event, pass_through(request.headers))
            await reply(stream, 200 if sent and 200 <= sent.status < 300 else 500)

    async def put_sink(self, rest: str, _content: bytes) -> bytes:
        """Make a JobSink."""
        self.sinks.add(named(rest))
        return b"{}"

    async def put_reply(self, rest: str, content: bytes) -> bytes:
        """Make a RequestReply."""
        self.brokers[named(rest)] = url_of(json.loads(content)["broker"])
        return b"{}"

    async def seen(self, _rest: str, _content: bytes) -> bytes:
        """All Jobs."""
        return json.dumps(self.jobs).encode()

    async def forget(self, _rest: str, _content: bytes) -> bytes:
        """Forget them."""
        self.jobs.clear()
        return b"{}"


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[None]:
    """Serve as long as the block lasts."""
    sinks = Sinks(Eventing(options.via))
    routes = {
        "PUT /sinks": sinks.put_sink,
        "PUT /replies": sinks.put_reply,
        "GET /seen": sinks.seen,
        "DELETE /seen": sinks.forget,
    }
    handlers = (
        (sinks.job_sink, options.job_sink_port),
        (sinks.request_reply, options.request_reply_port),
    )
    async with listening(options.address, handlers, options.control, routes):
        yield


def add_options(options: argparse.ArgumentParser) -> None:
    """Its command line."""
    options.add_argument("--address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    for name in ("job-sink", "request-reply"):
        options.add_argument(f"--{name}-port", type=int, help="none if not given")
    via_option(options)
    socket_option(options, "makes sinks, tells Jobs")


if __name__ == "__main__":
    arguments = parser("sinks", __doc__)
    add_options(arguments)
    main(run, arguments.parse_args())
