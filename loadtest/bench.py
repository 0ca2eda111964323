"""One run: client processes against a server, and what it used meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from authz.lab.harness.processes import CouldNotStart
from loadtest import processes
from loadtest.client_process import client
from loadtest.client_run import ClientRun
from loadtest.plan import Plan
from loadtest.stack import Server, Stack

_PREPARE_SECONDS: Final = 180.0
_AFTER_SECONDS: Final = 60.0  # a run ends so long after its time at the latest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a run. CPU is the server's, but for `client_cpu`."""

    plan: Plan
    transport: str
    workers: int
    outcome: ClientRun
    cpu: processes.Cpu
    """Of all processes of the server, from the first call to the last answer."""
    resident_before: int
    """Bytes, before the clients connected."""
    resident_warm: int
    """After they had warmed up."""
    resident_after: int

    @property
    def problems(self) -> Mapping[str, int]:
        """What went wrong, and how often."""
        return self.outcome.problems

    @property
    def checks(self) -> int:
        """Calls that were answered rightly."""
        return self.outcome.right

    @property
    def rate(self) -> float:
        """Checks per second."""
        return self.checks / self.outcome.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU for each Check."""
        return self.cpu.total / self.checks * 1e6 if self.checks else 0.0

    @property
    def client_busy(self) -> float:
        """How busy the client processes were, from 0 to 1."""
        return self.outcome.cpu_seconds / self.outcome.seconds / self.plan.processes


async def measured(stack: Stack, server: Server, plan: Plan) -> Measured:
    """Do a run.

    Raises:
        CouldNotStart: a process failed.
    """
    pids = server.processes()
    try:
        before = processes.resident(pids)
        async with contextlib.AsyncExitStack() as running:
            shares = stack.shares(plan, server)
            clients = await asyncio.gather(
                *(running.enter_async_context(client("loadtest.grpc_client")) for _ in shares)
            )
            async with asyncio.timeout(_PREPARE_SECONDS):
                for each, share in zip(clients, shares, strict=True):
                    await each.say(share.to_json())
                await asyncio.gather(*(each.ready() for each in clients))
            warm, cpu = processes.resident(pids), processes.cpu(pids)
            async with asyncio.timeout(plan.seconds + _AFTER_SECONDS):
                outcomes = await asyncio.gather(*(each.outcome() for each in clients))
            cpu = processes.cpu(pids).since(cpu)
            after = processes.resident(pids)
    except TimeoutError:
        raise CouldNotStart("the run took too long, and was given up") from None
    except OSError as error:
        raise CouldNotStart(f"a process of the server has ended: {error}") from None
    if server.processes() != pids:
        raise CouldNotStart("a process of the server was replaced during the run")
    return Measured(
        plan=plan,
        transport=server.setup.label,
        workers=server.setup.workers,
        outcome=ClientRun.together(*outcomes),
        cpu=cpu,
        resident_before=before,
        resident_warm=warm,
        resident_after=after,
    )
