"""A worker as the supervisor sees it: a place that one process after another fills."""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from authz.server.workers.protocol import Greeting, Word

_PATIENCE: Final = 30
"""Words without an answer, at one a second, after which a process has to go."""
_LINGER: Final = 5.0
"""Seconds for a process to end when it has hung up."""
_LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a report: it may list every namespace of a cluster."""


class Worker:
    """`run` fills the place with one process until that ends. `heard` is told its reports."""

    def __init__(
        self, greeting: Greeting, command: Sequence[str], heard: Callable[["Worker", Any], None]
    ) -> None:
        self.number = greeting.number
        self.truths: Mapping[str, bool] = {}
        """By its last report; empty as long as there is none."""
        self.reasons: Mapping[str, str] = {}
        """Why some of them do not hold."""
        self.started = False
        """Whether the process answers Checks."""
        self._greeting = greeting.to_bytes()
        self._command = command
        self._heard = heard
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asking: deque[asyncio.Future[None]] = deque()
        self._unanswered = 0

    @property
    def pid(self) -> int | None:
        """That of the process, as long as there is one."""
        return None if self._process is None else self._process.pid

    async def run(self) -> int:
        """Start a process and listen to it until it ends; its exit code, or minus the signal.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST)
        self._writer.write(self._greeting)  # before anything else that is said
        try:
            with theirs:
                # In a session of its own: Ctrl-C is for the supervisor, which then tells all.
                self._process = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=theirs.fileno(),
                    start_new_session=True,
                    env=_environment(),
                )
            self._unanswered = 0
            await self._listen(reader)
            async with asyncio.timeout(_LINGER):
                return await process.wait()
        except TimeoutError:
            self.kill()
            return await process.wait()
        finally:
            self.kill()
            self._empty()

    def ask(self) -> asyncio.Future[None]:
        """Have it report; done when it has, at once where there is no process."""
        asked = asyncio.get_running_loop().create_future()
        if self._writer is None:
            asked.set_result(None)
        else:
            self._asking.append(asked)
            self.say(Word.TELL)
        return asked

    def nudge(self) -> bool:
        """Ask whether it still answers, or kill it: then false. To be called once a second."""
        if self._writer is None:
            return True
        self._unanswered += 1
        if self._unanswered > _PATIENCE:
            self.kill()
            return False
        self.ask()
        return True

    @property
    def answers(self) -> bool:
        """Whether it is there and has answered lately."""
        return self.started and self._unanswered < 5

    def say(self, word: Word) -> None:
        """Tell it something."""
        if self._writer is not None:
            self._writer.write(f"{word}\n".encode())

    def kill(self) -> None:
        """End the process, if there is one, as a crash would."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    return  # killed in the middle of it
                report = json.loads(line)
                self._unanswered = 0
                self.started, self.truths = report["started"], report["truths"]
                self.reasons = report["reasons"]
                self._heard(self, report["metrics"])
                if report["asked"] and self._asking:
                    _done(self._asking.popleft())
        except OSError:
            return

    def _empty(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._process = self._writer = None
        self.started, self.truths, self.reasons = False, {}, {}
        while self._asking:
            _done(self._asking.popleft())


def _done(asking: asyncio.Future[None]) -> None:
    if not asking.done():  # whoever asked may have lost patience
        asking.set_result(None)


def _environment() -> dict[str, str]:
    """Ours, and the way to the modules that we run, wherever it came from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
