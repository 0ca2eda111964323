"""Client processes, seen from outside: one line in, one line out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from authz.lab.harness.processes import CouldNotStart
from loadtest.client_run import READY, ClientRun

_END_SECONDS: Final = 5.0
_LINE: Final = 16 * 1024 * 1024  # two histograms


class Client:
    """A client process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ready(self) -> None:
        """Wait until it is warm.

        Raises:
            CouldNotStart: it never was.
        """
        if await self._line() != READY.encode():
            raise CouldNotStart("a client process did not get ready")

    async def outcome(self) -> ClientRun:
        """Let it go, and wait for what comes of it.

        Raises:
            CouldNotStart: it ended before.
        """
        await self.say("go")
        return ClientRun.from_json(await self._line())

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
async def client(module: str) -> AsyncIterator[Client]:
    """Run `python -m module` as long as the block lasts, which ends when its input does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE,
    )
    try:
        yield Client(process)
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_SECONDS)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it holds nothing that would be lost
            await asyncio.shield(process.wait())
