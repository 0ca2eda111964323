"""Runs one server on uvloop, from the settings to the exit code."""

import asyncio
import signal
import time

import uvloop

from authz.config import Settings
from authz.observe import json_log
from authz.server.server import Server


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        AuthzError: the server could not start; the text says what to do.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(settings))


async def _live(settings: Settings) -> None:
    server = Server(
        settings,
        log=json_log(),
        clock=time.time,  # noqa: TID251 - the one place where time enters
        monotonic=time.monotonic,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.startup()
    try:
        await server.serve()
    finally:
        await server.drain()
