"""What Go's httputil.ReverseProxy does with a request, as Knative's proxies use it.

Cited: go src/net/http/httputil/reverseproxy.go, `ServeHTTP` with a `Director`; and
knative/serving pkg/http/proxy.go, `NewHeaderPruningReverseProxy`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

from authz.lab.box.knative.messages import End, Gone, Headers, Request, Response, Stream, error
from authz.lab.box.knative.net import dial

REVISION_HEADERS: Final = ("knative-serving-revision", "knative-serving-namespace")
"""knative/serving pkg/activator/activator.go: RevisionHeaders, removed by both proxies."""

_HOP_BY_HOP: Final = (
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""reverseproxy.go: hopHeaders."""

_CONTINUE_SECONDS: Final = 1.0
"""net/http transport.go: DefaultTransport.ExpectContinueTimeout."""


class ClientLeft(Gone):
    """There is nobody left to answer."""


async def forward(request: Request, client: Stream, target: str) -> None:
    """Hand a request on to `host:port` and its answer back, while both still flow.

    A target that does not answer is a 502 (reverseproxy.go `ErrorHandler`; knative/pkg
    network/handlers/error.go).
    """
    outgoing = rewrite(request, target)
    if outgoing is None:
        await error(client, 502, "client tried to switch to an invalid protocol")
        return
    exchange = None
    try:
        async with dial(target, request.version) as upstream:
            exchange = _Exchange(outgoing, client, upstream)
            await exchange.run()
    except OSError as problem:
        if isinstance(problem, ClientLeft) or (exchange and exchange.started):
            raise Gone(str(problem)) from None  # panic(http.ErrAbortHandler)
        await error(client, 502, str(problem))


def rewrite(request: Request, target: str) -> Request | None:
    """The head as it is sent on: the order of the steps is Go's, and what it lets be removed.

    Returns:
        None if it asks for a protocol whose name cannot be printed.
    """
    headers = Headers(request.headers)
    for name in REVISION_HEADERS:  # the Director
        headers.drop(name)
    upgrade = _upgrade(headers)
    if not upgrade.isprintable() or not upgrade.isascii():
        return None
    trailers = "trailers" in _tokens(request.headers.values("te"))
    strip_hop_by_hop(headers)
    if trailers:
        headers.set("te", "trailers")
    if upgrade:
        headers.set("connection", "Upgrade")
        headers.set("upgrade", upgrade)
    if request.peer:
        headers.set(
            "x-forwarded-for", ", ".join([*headers.values("x-forwarded-for"), request.peer])
        )
    return replace(request, headers=headers, host=request.host or target)


def strip_hop_by_hop(headers: Headers) -> None:
    """Remove what `Connection` names, whatever it is, and then what never goes further."""
    for name in _tokens(headers.values("connection")):
        headers.drop(name)
    for name in _HOP_BY_HOP:
        headers.drop(name)


def _tokens(values: list[str]) -> list[str]:
    return [
        token.strip().lower() for value in values for token in value.split(",") if token.strip()
    ]


def _upgrade(headers: Headers) -> str:
    return headers.get("upgrade") if "upgrade" in _tokens(headers.values("connection")) else ""


class _Exchange:
    """A request on its way up and its answer on its way down."""

    def __init__(self, head: Request, client: Stream, upstream: Stream) -> None:
        self.started = False
        self._head, self._client, self._upstream = head, client, upstream
        self._go_ahead = asyncio.Event()
        self._upgraded = False

    async def run(self) -> None:
        """Until the answer has ended, of an upgrade both directions, or either side has left."""
        await self._upstream.send(self._head)
        up, down = asyncio.create_task(self._up()), asyncio.create_task(self._down())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done():
                await up
            await down
            if self._upgraded:
                await up
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self) -> None:
        if self._head.headers.get("expect").lower() == "100-continue":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONTINUE_SECONDS):
                    await self._go_ahead.wait()
        if not await self._hand_on(self._client, self._upstream):
            return  # an upstream may answer before it has taken everything
        if _upgrade(self._head.headers):
            await self._go_ahead.wait()
        if self._upgraded:
            await self._hand_on(self._client, self._upstream)
        else:
            await self._client.gone()
            raise ClientLeft("the client has left")

    async def _down(self) -> None:
        while isinstance(head := await self._upstream.receive(), Response):
            if head.status == 101:
                self._upgraded = True
            else:
                strip_hop_by_hop(head.headers)
            self.started = head.status >= 200 or self._upgraded
            await self._client.send(head)
            self._go_ahead.set()
            if self.started:
                break
        await self._hand_on(self._upstream, self._client)

    @staticmethod
    async def _hand_on(source: Stream, sink: Stream) -> bool:
        while True:
            event = await source.receive()
            try:
                await sink.send(event)
            except Gone:
                return False
            if isinstance(event, End):
                return True
