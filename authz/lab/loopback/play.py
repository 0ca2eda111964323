"""One demo: start everything, play the scenarios, report, take everything down."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from authz.lab.loopback import mesh, report, server
from authz.lab.loopback.environment import Environment
from authz.lab.loopback.scenarios import SCENARIOS
from authz.testing import played


async def play(*, once: bool, json: bool) -> bool:
    """Play the matrix and print it; unless for `once`, stay up until interrupted.

    Returns:
        Whether all that was seen was expected.

    Raises:
        CouldNotStart: something did not come up.
    """
    end_on_sigterm()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-demo-")))
        cluster = mesh.plan(directory)
        say("starting the service")
        authz = await stack.enter_async_context(server.running(cluster, directory))
        say(f"starting {len(cluster.tenants) + 2} Envoys")
        envoys = await stack.enter_async_context(mesh.running(cluster, directory))
        say("playing the scenarios")
        environment = Environment(cluster, authz, directory)
        results = [it async for it in played(SCENARIOS, lambda case: case.call(environment))]
        as_expected = report.differences(results) == 0
        report.show(results, await envoys[0].version(), json=json)
        if not as_expected:
            say(report.last_words(directory))
        if not once:
            report.invite(cluster, authz, envoys, on_stderr=json)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return as_expected


def end_on_sigterm() -> None:
    """Make SIGTERM clean up as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def say(text: str) -> None:
    """Tell people how far it is."""
    print(f"authz demo: {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress, for people
