"""Every variant at every load, in turn, several times over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import httpx

from authz.config import IdentitySource
from authz.errors import AuthzError
from authz.lab.harness import envoy
from authz.lab.harness.ports import Endpoint
from authz.lab.harness.processes import CouldNotStart
from authz.lab.loopback.server import POLICY
from authz.wire import TOKEN_HEADER
from loadtest import processes
from loadtest.client_process import Client, client
from loadtest.client_run import ClientRun
from loadtest.compare import sidecars
from loadtest.compare.http_client import Task
from loadtest.compare.schedule import Comparison, Point, Sample, Schedule
from loadtest.compare.sidecars import Certificates, Way
from loadtest.compare.variants import Variant
from loadtest.stack import Setup, Stack

_AFTER_SECONDS: Final = 90.0
_MODULE: Final = "loadtest.compare.http_client"


class WrongOutcome(AuthzError):
    """Somebody was let in, or kept out, who should not be."""


async def compare(
    stack: Stack,
    directory: Path,
    variants: Sequence[Variant],
    schedule: Schedule,
    tell: Callable[[str], None],
) -> Comparison:
    """Start everything, see that each variant decides rightly, and do all runs.

    Raises:
        CouldNotStart: a process failed.
        WrongOutcome: a variant lets in whom it should not, or keeps out whom it should not.
    """
    tell("starting servers and Envoys")
    async with AsyncExitStack() as running:
        clients = [
            await running.enter_async_context(client(_MODULE)) for _ in range(schedule.processes)
        ]
        ways = await started(stack, directory, variants, running)
        for way in ways:
            await _decides_rightly(way)
        done = Comparison(schedule, variants, await _envoy_version())
        for number in range(schedule.repeat):
            for point in schedule.points:
                # Who is first in a round is not always the same.
                for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
                    tell(f"{number + 1}/{schedule.repeat} {point}: {way.variant.name}")
                    done.samples.append(await _sample(clients, way, point, schedule))
        return done


async def started(
    stack: Stack,
    directory: Path,
    variants: Sequence[Variant],
    running: AsyncExitStack,
    policy: str = POLICY,
) -> list[Way]:
    """Start an app, and for each variant its sidecars and the service that they ask.

    Raises:
        CouldNotStart: a process failed.
    """
    certificates = Certificates.issued(stack)
    behind = await running.enter_async_context(sidecars.app(directory, stack.host))

    async def one(variant: Variant) -> Way:
        server = None
        if variant.transport is not None:
            setup = Setup(
                transport=variant.transport,
                identity=IdentitySource.XFCC if variant.on_socket else IdentitySource.MTLS,
                on_socket=variant.on_socket,
                settings=tuple(variant.settings.items()),
            )
            server = await running.enter_async_context(stack.serving(setup, policy))
        return await running.enter_async_context(
            sidecars.way(variant, directory, certificates, behind, server)
        )

    try:
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(one(variant)) for variant in variants]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [start.result() for start in starts]


async def _envoy_version() -> str:
    process = await asyncio.create_subprocess_exec(
        envoy.binary(), "--version", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().rpartition("version: ")[2].strip().split("/")[1]


async def _decides_rightly(way: Way) -> None:
    """Ask once what the load asks, and what nobody may."""
    variant = way.variant
    signed = await _get(way.signed)
    if signed.status_code != 200:
        raise WrongOutcome(f"{variant.name}: HTTP status {signed.status_code} in place of 200")
    if variant.denies and signed.headers.get(sidecars.SAW, "-") != "-":
        raise WrongOutcome(f"{variant.name}: the app saw the token")
    for headers in ({}, {TOKEN_HEADER: "made-up"}):
        bare = await _get(way.bare, **headers)
        wanted = {True: 403, False: 200, None: bare.status_code}[variant.denies]
        if bare.status_code != wanted:
            which = "with a made-up token" if headers else "without a token"
            raise WrongOutcome(f"{variant.name}: {bare.status_code} in place of {wanted} {which}")
        stripped = variant.asks or TOKEN_HEADER not in headers
        seen = "-" if stripped else headers[TOKEN_HEADER]
        if bare.status_code == 200 and bare.headers.get(sidecars.SAW, "-") != seen:
            raise WrongOutcome(f"{variant.name}: the app does not say which token it saw")


async def _get(endpoint: Endpoint, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as session:
        try:
            return await session.get(
                f"http://{endpoint}/cart/items?page=2",
                headers={"host": sidecars.HOST, **headers},
                timeout=10,
            )
        except httpx.HTTPError as error:
            raise CouldNotStart(f"an Envoy does not answer: {error!r}") from None


async def _sample(clients: Sequence[Client], way: Way, point: Point, schedule: Schedule) -> Sample:
    busy = clients[: point.connections]
    share = 1 / len(busy)
    try:
        async with asyncio.timeout(schedule.seconds + schedule.warmup + _AFTER_SECONDS):
            for number, each in enumerate(busy):
                task = Task(
                    host=way.signed.host,
                    port=way.signed.port,
                    authority=sidecars.HOST,
                    connections=len(range(number, point.connections, len(busy))),
                    rate=point.rate * share,
                    offset=number / point.rate if point.rate else 0,
                    seconds=schedule.seconds,
                    warmup=schedule.warmup,
                )
                await each.say(task.to_json())
            await asyncio.gather(*(each.ready() for each in busy))
            before = _cpu(way)
            outcome = ClientRun.together(*await asyncio.gather(*(each.outcome() for each in busy)))
            after = _cpu(way)
    except TimeoutError:
        raise CouldNotStart("a run took too long, and was given up") from None
    except OSError as error:
        raise CouldNotStart(f"{way.variant.name}: a process has ended: {error}") from None
    client_envoy, server_envoy, authz = (
        now - then for now, then in zip(after, before, strict=True)
    )
    return Sample(
        way.variant.name,
        point,
        outcome,
        client_envoy,
        server_envoy,
        authz if way.authz else None,
        outcome.cpu_seconds / outcome.seconds / len(busy),
    )


def _cpu(way: Way) -> tuple[float, float, float]:
    """Seconds, of the two Envoys and of who is asked."""
    groups = (way.client.pids, way.server.pids, way.authz)
    first, second, asked = (processes.cpu(pids).total for pids in groups)
    return first, second, asked
