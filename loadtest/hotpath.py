"""`hotpath`: one plan, on one transport or several servers in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import product

from authz.config import Transport
from loadtest.bench import Measured, measured
from loadtest.plan import Plan
from loadtest.stack import KEEPING, Setup, Stack

Tell = Callable[[str], None]
"""Shows progress."""


async def hotpath(
    stack: Stack,
    plan: Plan,
    transports: Sequence[Transport],
    *,
    kept: bool = False,
    repeat: int,
    workers: int,
    tell: Tell,
) -> list[Measured]:
    """Run a plan on each transport in turn, `repeat` times over.

    With `kept` also on servers whose answers sidecars may keep.

    Raises:
        CouldNotStart: a process failed.
    """
    runs = []
    async with AsyncExitStack() as servers:
        running = []
        for transport, settings in product(transports, ((), KEEPING) if kept else ((),)):
            setup = Setup(
                transport=transport,
                identity=plan.identity,
                workers=workers,
                namespaces=plan.namespaces,
                settings=settings,
            )
            tell(f"starting {setup.label}")
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
