"""A listener in a process of its own, so that its memory and its time are its own.

`python -m tests.transport.process '{"limits": {...}, "tls": [cert, key, ca], "answer": 100}'`
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.lab.harness.certs import Certificate
from authz.transport import (
    Health,
    Http2Listener,
    Limits,
    TlsFiles,
    from_insecure_metadata,
    load_tls,
)
from tests.support.waiting import PATIENCE


class Service:
    """Answers everything with the same answer, of so many bytes."""

    def __init__(self, answer: int) -> None:
        self._answer = bytes(answer)

    def asked(self, caller: SpiffeId | None, metadata: Sequence[tuple[str, str]]) -> Asked:
        del metadata
        return Asked(caller)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        del request, asked
        return self._answer


async def _serve(options: dict[str, Any]) -> None:
    tls = options.get("tls")
    listener = Http2Listener(
        Service(options.get("answer", 6)),
        Health(),
        host="127.0.0.1",
        port=0,
        limits=Limits(**options.get("limits", {})),
        tls=None if tls is None else load_tls(TlsFiles(*map(Path, tls))),
        caller_of=None if tls is not None else from_insecure_metadata(),
    )
    print(await listener.start(), flush=True)  # noqa: T201
    await asyncio.Event().wait()


class Process:
    """The process, seen from outside."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen
        assert popen.stdout is not None
        self.port = int(popen.stdout.readline())

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self._popen.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def seconds(self) -> float:
        """Of CPU."""
        fields = Path(f"/proc/{self._popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """It and we go before all other work on this machine, where we may say so.

        Else an answer is as late as the processor's other users make it. What we start meanwhile
        is as it always is.
        """
        ours = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        with suppress(PermissionError):
            for pid in (self._popen.pid, 0):
                os.sched_setscheduler(pid, ours, os.sched_param(1))
        try:
            yield
        finally:
            with suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    @property
    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self._popen.pid}/fd").iterdir()))


@contextmanager
def process(
    *, certificate: Certificate | None = None, answer: int = 6, **limits: int
) -> Iterator[Process]:
    """Run one until the end of the block."""
    options: dict[str, Any] = {"answer": answer, "limits": limits}
    if certificate is not None:
        files = certificate.cert_file, certificate.key_file, certificate.ca_file
        options["tls"] = list(map(str, files))
    command = [sys.executable, "-m", "tests.transport.process", json.dumps(options)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()
            popen.wait(PATIENCE)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(json.loads(sys.argv[1])))
