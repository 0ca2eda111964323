"""Waiting for what must happen, within a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which a test stops waiting for what must happen. Nothing should take as long."""

LOOK_AGAIN = 0.02
"""Seconds between two looks at a condition that nothing else tells about."""


async def soon(awaitable: Awaitable[T]) -> T:
    """Wait for what has to happen, within a deadline."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def eventually(found: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Look again and again until something is found."""
    deadline = time.monotonic() + PATIENCE
    while not (value := await found()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(LOOK_AGAIN)
    return value


async def until(found: Callable[[], object]) -> None:
    """Look again and again until what another thread does is there."""
    async with asyncio.timeout(PATIENCE):
        while not found():  # noqa: ASYNC110 - the other side is a thread
            await asyncio.sleep(0.005)


def at_last(found: Callable[[], T | None], what: str) -> T:
    """The same without a loop."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(LOOK_AGAIN)
    return value
