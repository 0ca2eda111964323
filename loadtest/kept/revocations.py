"""What was revoked is let in a little longer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from authz.domain import rotation, tokens
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace, parse_namespace
from loadtest.compare.rounds import WrongOutcome
from loadtest.compare.sidecars import Way
from loadtest.hotpath import Tell
from loadtest.kept.calls import Get, Measured, calling, namespace
from loadtest.stack import Stack
from loadtest.targets import Row

_REVOKED: Final = parse_namespace("acme-web")
_PAUSE: Final = 0.005
_SECOND: Final = 1.0
_LIFE: Final = TokenLife(step=30)


async def revocations(
    stack: Stack, ways: Sequence[Way], others: int, count: int, tell: Tell
) -> list[Measured]:
    """Revoke a namespace whose token a hop presents all the time, and see until when it is good."""
    took: list[list[float]] = [[] for _ in ways]
    keyring = await stack.keys.keyring()
    async with AsyncExitStack() as running:
        gets = [await running.enter_async_context(calling(way.bare)) for way in ways]
        for number in range(others):
            for way in ways:
                await running.enter_async_context(_presenting(keyring, way, namespace(number)))
        for number in range(count):
            tell(f"revocation {number + 1}/{count} beside {others} callers")
            token = _token(await stack.keys.keyring(), _REVOKED)
            await asyncio.gather(*(_good(get, token) for get in gets))
            # A kept answer counts in whole seconds: what part of one has gone makes a difference.
            until = time.monotonic() + random.random()  # noqa: S311 - no secret
            while time.monotonic() < until:
                await asyncio.gather(*(get(token=token, may=None) for get in gets))
            begun = time.monotonic()
            change = stack.keys.change_keys(
                lambda keys: rotation.revoke_namespace(keys, _REVOKED, _now())
            )
            ends = asyncio.gather(*(_refused(get, token) for get in gets))
            await change
            for each, end in zip(took, await ends, strict=True):
                each.append(end - begun)
    beside = f" beside {others} that call once a second" if others else ""
    what = f"a token of a revoked namespace is let in for, {count} revocations{beside}"
    return [
        Measured(Row(f"{what}, {name}", f"≤ {most:g} s", _quantiles(each), max(each) <= most), each)
        for name, most, each in zip(("asking", "answers kept"), (1, 3), took, strict=True)
    ]


def _quantiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    middle, most = ordered[len(ordered) // 2], ordered[-1]
    return f"{middle:.2f}, {ordered[int(len(ordered) * 0.95)]:.2f}, {most:.2f} s"


async def _good(get: Get, token: str) -> None:
    """Wait until a token is good: a server may not have heard of its key yet."""
    while await get(token=token, may=None) != 200:  # noqa: ASYNC110 - it asks over the network
        await asyncio.sleep(_PAUSE)


async def _refused(get: Get, token: str) -> float:
    """When a token is refused, and so it stays."""
    while await get(token=token, may=None) == 200:  # noqa: ASYNC110 - it asks over the network
        await asyncio.sleep(_PAUSE)
    ended = time.monotonic()
    for _ in range(5):
        if await get(token=token, may=None) == 200:
            raise WrongOutcome("a token that was refused is let in again")
    return ended


@asynccontextmanager
async def _presenting(keyring: Keyring, way: Way, source: Namespace) -> AsyncIterator[None]:
    """Present tokens of somebody else, once a second, as long as the block lasts."""

    async def present() -> None:
        await asyncio.sleep(random.random())  # noqa: S311 - no secret
        async with calling(way.bare) as get:
            while True:
                await get(token=_token(keyring, source), may=None)
                await asyncio.sleep(_SECOND)

    task = asyncio.create_task(present())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _token(keyring: Keyring, source: Namespace) -> str:
    return tokens.mint(
        source=source,
        service_account="default",
        destination=parse_namespace("acme-db"),
        keyring=keyring,
        now=_now(),
        life=_LIFE,
    )


def _now() -> float:
    return time.time()  # noqa: TID251 - tokens live by the real clock
