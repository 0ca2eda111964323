"""Runs one server on uvloop, from the settings to the exit code."""

import asyncio
import time
from typing import Protocol

import uvloop

from authz.config import Settings
from authz.observe import json_log
from authz.server.process import attend
from authz.server.server import Server


class Overseer(Protocol):
    """Runs this server beside others on one port, and the side port for all of them."""

    number: int

    def stop(self) -> None:
        """What a signal does."""
        ...

    async def attend(self, server: Server) -> None:
        """A server is about to start: stop it when it is time."""
        ...

    def started(self) -> None:
        """It answers Checks."""
        ...

    async def ended(self) -> None:
        """It is done."""
        ...


def run(settings: Settings, overseer: Overseer | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; with an overseer, as one of several processes.

    Raises:
        AuthzError: the server could not start; the text says what to do.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(settings, overseer))


async def _live(settings: Settings, overseer: Overseer | None) -> None:
    log = json_log()
    server = Server(
        settings,
        log=log if overseer is None else log.bind(worker=overseer.number),
        clock=time.time,  # noqa: TID251 - the one place where time enters
        monotonic=time.monotonic,
        shares_port=overseer is not None,
    )
    if overseer is not None:
        await overseer.attend(server)
    attend(server.stop if overseer is None else overseer.stop, log)
    await server.startup()
    if overseer is not None:
        overseer.started()
    try:
        await server.serve()
    finally:
        await server.drain()
        if overseer is not None:
            await overseer.ended()
