"""A worker's side: does what the supervisor says, tells it how things are, ends when it is gone."""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from authz.observe import Metrics
from authz.server.workers.protocol import Greeting, Word


class Served(Protocol):
    """What a link needs of a server."""

    @property
    def metrics(self) -> Metrics:
        """What it counts."""
        ...

    def stop(self) -> None:
        """Begin to drain; called a second time, hurry."""
        ...

    def truths(self) -> Mapping[str, bool]:
        """What must hold to be ready."""
        ...

    def reasons(self) -> Mapping[str, str]:
        """Why some of it does not."""
        ...


class Link:
    """The line to the supervisor. Waits for its greeting when it is made."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._greeting = Greeting.receive(line)
        self._server: Served
        self._writer: asyncio.StreamWriter
        self._obeying: asyncio.Task[None]
        self._started = False
        self._stopping = False
        self.number = self._greeting.number
        self.settings = self._greeting.settings

    async def attend(self, server: Served) -> None:
        """Do with this server what the supervisor says, from now on."""
        self._server = server
        reader, self._writer = await asyncio.open_unix_connection(sock=self._line)
        self._obeying = asyncio.create_task(self._obey(reader), name="supervisor")

    def started(self) -> None:
        """The server answers Checks."""
        self._started = True
        self._report(asked=False)

    def stop(self) -> None:
        """Begin to drain. Twice is no more than once: signals come to parent and child alike."""
        if not self._stopping:
            self._stopping = True
            self._server.stop()

    async def ended(self) -> None:
        """The server is done: tell what it counted last, and end."""
        self._obeying.cancel()
        self._report(asked=False)
        self._writer.close()
        with suppress(OSError):  # then nobody is there to be told
            await self._writer.wait_closed()

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while word := await reader.readline():
                match word.decode().strip():
                    case Word.TELL:
                        self._report(asked=True)
                    case Word.STOP:
                        self.stop()
                    case Word.HURRY:
                        self.stop()
                        self._server.stop()
        self.stop()  # the supervisor is gone

    def _report(self, *, asked: bool) -> None:
        report: dict[str, Any] = {
            "asked": asked,
            "started": self._started,
            "truths": dict(self._server.truths()),
            "reasons": dict(self._server.reasons()),
            "metrics": self._server.metrics.changes(),
        }
        self._writer.write(json.dumps(report).encode() + b"\n")
