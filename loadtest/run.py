"""One run: client processes against a server, and what it used meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from authz.demo.processes import CouldNotStart
from loadtest import processes
from loadtest.client import READY, Outcome
from loadtest.plan import Plan, Share
from loadtest.stack import Server, Stack

_PREPARE_SECONDS: Final = 180.0
_END_SECONDS: Final = 5.0
_AFTER_SECONDS: Final = 60.0  # a run ends so long after its time at the latest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a run. CPU is the server's, but for `client_cpu`."""

    plan: Plan
    transport: str
    workers: int
    outcome: Outcome
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
        async with contextlib.AsyncExitStack() as crew:
            clients = await asyncio.gather(
                *(crew.enter_async_context(_client(share)) for share in stack.shares(plan, server))
            )
            async with asyncio.timeout(_PREPARE_SECONDS):
                await asyncio.gather(*(client.ready() for client in clients))
            warm, cpu = processes.resident(pids), processes.cpu(pids)
            async with asyncio.timeout(plan.seconds + _AFTER_SECONDS):
                outcomes = await asyncio.gather(*(client.outcome() for client in clients))
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
        transport=server.setup.transport.value,
        workers=server.setup.workers,
        outcome=Outcome.together(*outcomes),
        cpu=cpu,
        resident_before=before,
        resident_warm=warm,
        resident_after=after,
    )


class _Client:
    """A client process, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ready(self) -> None:
        """Wait until it is warm."""
        if await self._line() != READY.encode():
            raise CouldNotStart("a client process did not get ready")

    async def outcome(self) -> Outcome:
        """Let it go, and wait for what comes of it."""
        await self.say("go")
        return Outcome.from_json(await self._line())

    async def say(self, line: str) -> None:
        """Write a line to it."""
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):  # the reader will notice
                self._process.stdin.write(f"{line}\n".encode())
                await self._process.stdin.drain()

    async def _line(self) -> bytes:
        line = b"" if self._process.stdout is None else await self._process.stdout.readline()
        if not line:
            raise CouldNotStart("a client process has ended early, see above")
        return line.strip()


@asynccontextmanager
async def _client(share: Share) -> AsyncIterator[_Client]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest.client"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,  # a line with two histograms
    )
    client = _Client(process)
    try:
        await client.say(share.to_json())
        yield client
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_SECONDS)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it holds nothing that would be lost
            await asyncio.shield(process.wait())
