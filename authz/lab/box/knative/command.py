"""What the stand-ins' command lines share: options, the word `ready`, an end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from authz.lab.box.knative.messages import Request, Stream, body, error, reply

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


def socket_option(options: argparse.ArgumentParser, what: str) -> None:
    """Add `--control`."""
    options.add_argument("--control", type=Path, metavar="PATH", help=f"Unix socket: {what}")
