"""`hotpath`: one plan, on one transport or on both in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from authz.config import Transport
from loadtest.bench import Measured, measured
from loadtest.plan import Plan
from loadtest.stack import Setup, Stack

Tell = Callable[[str], None]
"""Shows progress."""


async def hotpath(
    stack: Stack,
    plan: Plan,
    transports: Sequence[Transport],
    *,
    repeat: int,
    workers: int,
    tell: Tell,
) -> list[Measured]:
    """Run a plan on each transport in turn, `repeat` times over.

    Raises:
        CouldNotStart: a process failed.
    """
    runs = []
    async with AsyncExitStack() as servers:
        running = []
        for transport in transports:
            tell(f"starting {transport}")
            setup = Setup(
                transport=transport,
                identity=plan.identity,
                workers=workers,
                namespaces=plan.namespaces,
            )
            running.append(await servers.enter_async_context(stack.serving(setup)))
        for number in range(repeat):
            for server in running:
                run = await measured(stack, server, plan)
                tell(
                    f"{number + 1}/{repeat} {run.transport}: {run.cpu_us:.1f} us CPU per Check, "
                    f"{run.rate:,.0f} Checks/s"
                )
                runs.append(run)
    return runs
