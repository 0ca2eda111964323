"""The gate: short, and relative, since a busy machine makes everything slow alike.

The bounds are far from what is measured (loadtest/README.md, "Performance"), so that only a real
regression meets them: in 20 runs on a busy machine http2 took 1/17 to 1/26 of grpcio's CPU, and
traffic of 1,000 namespaces 0.99 to 1.12 times that of 10. Runs take turns, and medians count.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from authz.config import Transport
from authz.domain import rotation
from authz.domain.keys import TokenLife
from loadtest import tenants
from loadtest.bench import Measured, measured
from loadtest.hotpath import hotpath
from loadtest.plan import Ask, Plan
from loadtest.result import spreads
from loadtest.stack import Setup, Stack

GRPCIO_SHARE = 1 / 4
"""Of grpcio's CPU per Check, at most."""

GROWTH = 1.5
"""What traffic of 1,000 namespaces may cost, in times of that of 10."""

Record = Callable[[str, object], None]

SHORT = Plan(ask=Ask.BOTH, seconds=0.7, warmup=0.3)
ROTATION_DELAY = 3


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory() as directory:
        made = Stack(Path(directory))
        await made.keys.make_keys()
        yield made


async def test_http2_costs_a_fraction_of_grpcio(stack: Stack, record_property: Record) -> None:
    runs = await hotpath(stack, SHORT, [*Transport], repeat=3, workers=1, tell=lambda text: None)
    ours, theirs = (cost([run for run in runs if run.transport == one]) for one in Transport)
    record_property("times", theirs / ours)
    assert ours <= theirs * GRPCIO_SHARE, f"{ours:.1f} us; grpcio {theirs:.1f} us"


async def test_a_thousand_namespaces_cost_what_ten_do(
    stack: Stack, record_property: Record
) -> None:
    few = replace(SHORT, namespaces=10, connections=100, callers=10)
    many = replace(few, namespaces=1000)
    runs: dict[int, list[Measured]] = {10: [], 1000: []}
    async with AsyncExitStack() as servers:
        # A server for each: the few must not find the memory of the many.
        setups = [Setup(namespaces=1000, name=str(plan.namespaces)) for plan in (few, many)]
        running = [await servers.enter_async_context(stack.serving(setup)) for setup in setups]
        for _ in range(3):
            for plan, server in zip((few, many), running, strict=True):
                runs[plan.namespaces].append(await measured(stack, server, plan))
    least, most = cost(runs[10]), cost(runs[1000])
    record_property("growth", most / least)
    assert most <= least * GROWTH, f"10 namespaces: {least:.1f} us, 1,000: {most:.1f} us"


async def test_no_wrong_answer_while_keys_rotate_and_the_policy_changes(
    stack: Stack, record_property: Record
) -> None:
    """Twenty seconds of calls that must be signed, let in and denied."""
    plan = Plan(
        ask=Ask.MIXED, namespaces=20, connections=4, destinations=2, in_flight=8, seconds=20
    )
    # Their tokens are of the new root, and most of them only the new policy knows.
    later = replace(plan, namespaces=200, connections=10, seconds=4)
    async with stack.serving(Setup(namespaces=20)) as server:
        whole = asyncio.create_task(measured(stack, server, plan))
        await asyncio.sleep(5)  # the load is a matter of time, and so is this
        await stack.keys.change_keys(
            lambda keyring: rotation.rotate_root(
                keyring,
                time.time(),  # noqa: TID251 - the server is a real one
                delay=ROTATION_DELAY,
                life=TokenLife(),
            )
        )
        renewed = server.policy_file.with_suffix(".new")
        renewed.write_text(tenants.policy(later.namespaces))
        renewed.replace(server.policy_file)
        await asyncio.sleep(ROTATION_DELAY + 2)
        runs = [await measured(stack, server, later), await whole]
    record_property("checks", [run.checks for run in runs])
    for run in runs:
        assert not run.problems
        assert run.checks > 1000


def cost(runs: list[Measured]) -> float:
    assert not any(run.problems for run in runs)
    return spreads(runs)["cpu_us"].median
