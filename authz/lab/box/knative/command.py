"""What the stand-ins' command lines share: options, the word `ready`, an end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from authz.lab.box.knative.messages import Request, Stream, body, error, reply
from authz.lab.box.knative.net import Handler, serve

Runs = Callable[
    [argparse.Namespace], AbstractAsyncContextManager[Callable[[], Awaitable[None]] | None]
]
"""Serves as long as the block lasts; what it yields is awaited on SIGTERM, before it ends."""


def parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m authz.lab.box.knative.{module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(runs: Runs, options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, after saying `ready` on stdout."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(runs, options))


async def _main(runs: Runs, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with runs(options) as drain:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()
        if drain:
            await drain()


def control(
    routes: Mapping[str, Callable[[str, bytes], Awaitable[bytes]]],
) -> Callable[[Request, Stream], Awaitable[None]]:
    """A handler for a Unix socket: `<method> /<first segment>` to a function of the rest."""

    async def handle(request: Request, stream: Stream) -> None:
        content = await body(stream)
        first, _, rest = request.target.lstrip("/").partition("/")
        route = routes.get(f"{request.method} /{first}")
        if route is None:
            await error(stream, 404, f"there are {', '.join(routes)}")
            return
        try:
            answer = await route(rest, content)
        except (ValueError, KeyError, TypeError) as problem:
            await error(stream, 400, f"{request.method} {request.target}: {problem!r}")
            return
        await reply(stream, 200, answer, [("content-type", "application/json")])

    return handle


@asynccontextmanager
async def listening(
    address: str,
    handlers: Iterable[tuple[Handler, int | None]],
    path: Path | None = None,
    routes: Mapping[str, Callable[[str, bytes], Awaitable[bytes]]] | None = None,
) -> AsyncIterator[None]:
    """Serve as long as the block lasts: handlers on their ports, `routes` on a control socket.

    A handler without a port is not served, nor are `routes` without `path`.
    """
    async with AsyncExitStack() as stack:
        for handler, port in handlers:
            if port is not None:
                await stack.enter_async_context(serve(handler, host=address, port=port))
        if path is not None:
            await stack.enter_async_context(serve(control(routes or {}), path=path))
        yield


def via_option(options: argparse.ArgumentParser) -> None:
    """Add `--via`."""
    options.add_argument(
        "--via",
        metavar="HOST:PORT",
        help="send everything there, whatever the URL's host is, at its port if it has one",
    )


def socket_option(options: argparse.ArgumentParser, what: str) -> None:
    """Add `--control`."""
    options.add_argument("--control", type=Path, metavar="PATH", help=f"Unix socket: {what}")
