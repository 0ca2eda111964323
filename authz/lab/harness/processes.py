"""Processes of our own: started together, awaited until they serve, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.errors import AuthzError

START_SECONDS: Final = 120.0
"""How long a program may take that runs and is not ready, on a machine that has much to do."""

_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_LOG_LINES: Final = 20


class CouldNotStart(AuthzError):
    """The demo lacks something, or a process of it did not come up."""


@dataclass(frozen=True)
class Child:
    """A running process whose output goes to `log`."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until `ready` says yes.

        Raises:
            CouldNotStart: the process ended before, or took too long.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await ready():
                    if self.process.returncode is not None:
                        raise CouldNotStart(self._obituary(f"exited ({self.process.returncode})"))
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise CouldNotStart(self._obituary(f"not ready in {START_SECONDS:.0f} s")) from None

    async def kill(self) -> None:
        """End the process as a crash would, at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Ask the process to end; insist when it does not."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            await self.kill()

    def _obituary(self, fate: str) -> str:
        return f"{self.name} {fate}; its last words:\n{last_words(self.log)}"


def last_words(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


@asynccontextmanager
async def child(
    name: str,
    argv: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> AsyncIterator[Child]:
    """Run `argv` as long as the block lasts."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
        )
    running = Child(name, process, log)
    try:
        yield running
    finally:
        # Shielded: a second Ctrl-C must not leave the process behind.
        await asyncio.shield(running.stop())
