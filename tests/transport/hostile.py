"""A hostile workload in a process of its own: many connections that send what is dear to read.

`python -m tests.transport.hostile ATTACK PORT CERTIFICATE KEY CA` says `attacking` once all of its
connections had their turn, and ends with its standard input.
"""

import asyncio
import itertools
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpack import Encoder, NeverIndexedHeaderTuple

from authz.http2.settings import INITIAL_WINDOW_SIZE
from authz.lab.harness.certs import Certificate
from tests.http2 import wire
from tests.support.certificates import SERVER_NAME
from tests.support.waiting import PATIENCE
from tests.transport.raw import h2_context

CONNECTIONS: Final = 50
BYTES_PER_SECOND: Final = 2_000_000
"""Of all connections together."""

_ENDS: Final = wire.END_HEADERS | wire.END_STREAM
_OPENING: Final = wire.PREFACE + wire.settings()
_REQUEST: Final = b"\x83\x86" + b"".join(
    b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
    for name, value in wire.FIELDS
    if name not in {":method", ":scheme"}
)


def _ask(stream_id: int) -> bytes:
    head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, _REQUEST)
    return head + wire.data(stream_id, wire.framed(b""))


def _blocks(block: bytes) -> Iterator[bytes]:
    yield _OPENING
    for stream_id in itertools.count(1, 2):
        yield wire.frame(wire.HEADERS, _ENDS, stream_id, block)


def _unanswered(frames: Iterator[bytes]) -> Iterator[bytes]:
    """A thousand requests whose answers wait for a window, then these frames."""
    asked = b"".join(map(_ask, range(1, 2000, 2)))
    yield wire.PREFACE + wire.settings({INITIAL_WINDOW_SIZE: 0}) + asked
    yield from frames


ATTACKS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "Checks": lambda: itertools.chain((_OPENING,), map(_ask, itertools.count(1, 2))),
    "empty fields": lambda: _blocks(_REQUEST + b"\x51\x00" * 7000),
    "short fields": lambda: _blocks(_REQUEST + b"\x40\x01a\x00" * 430),
    "as many fields as may be": lambda: _blocks(_REQUEST + b"\x40\x01a\x00" * 240),
    "Huffman code": lambda: _blocks(
        _REQUEST + Encoder().encode([NeverIndexedHeaderTuple("a", "0" * 25_000)])
    ),
    "no gRPC": lambda: _blocks(b"\x83\x86\x84"),
    "WINDOW_UPDATE": lambda: _unanswered(itertools.repeat(wire.window_update(0, 1), 1000)),
    "SETTINGS": lambda: _unanswered(itertools.repeat(wire.settings(), 1000)),
    "windows that open": lambda: _unanswered(
        wire.settings({INITIAL_WINDOW_SIZE: n}) for n in range(1, 1001)
    ),
}
"""What each connection sends; at its end it hangs up and begins anew. The first is not paced."""


@contextmanager
def attacking(attack: str, port: int, certificate: Certificate) -> Iterator[None]:
    """Attack until the end of the block."""
    files = certificate.cert_file, certificate.key_file, certificate.ca_file
    command = [sys.executable, "-m", "tests.transport.hostile", attack, str(port)]
    command += map(str, files)
    root = Path(__file__).parents[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as popen:  # type: ignore[call-overload]
        try:
            assert popen.stdout.readline() == "attacking\n"
            yield
        finally:
            popen.kill()
            popen.wait(PATIENCE)


class _Hostile:
    def __init__(self, attack: str, port: int, context: ssl.SSLContext) -> None:
        self._attack, self._port, self._context = ATTACKS[attack], port, context
        self._begun = 0

    async def attack(self) -> None:
        await asyncio.gather(*(self._again_and_again() for _ in range(CONNECTIONS)))

    async def _again_and_again(self) -> None:
        begun = False
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self._context, server_hostname=SERVER_NAME
                )
            except OSError:
                await asyncio.sleep(0.1)
                continue
            reading = asyncio.create_task(_read(reader))
            try:
                due = asyncio.get_running_loop().time()
                chunks = self._attack()
                writer.write(next(chunks))
                for sent in _in_pieces(chunks):
                    if reading.done():
                        break
                    writer.write(sent)
                    await writer.drain()
                    if not begun:
                        begun = True
                        self._has_begun()
                    now = asyncio.get_running_loop().time()
                    due = max(due, now - 0.1) + len(sent) * CONNECTIONS / BYTES_PER_SECOND
                    await asyncio.sleep(max(0.0, due - now))
            except OSError:
                pass
            finally:
                reading.cancel()
                writer.transport.abort()
            await asyncio.sleep(0.01)

    def _has_begun(self) -> None:
        self._begun += 1
        if self._begun == CONNECTIONS:
            print("attacking", flush=True)  # noqa: T201 - this is how we report


def _in_pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """At least some kilobytes at once, so that each is work for a turn."""
    piece = b""
    for chunk in chunks:
        piece += chunk
        if len(piece) >= 4096:
            yield piece
            piece = b""
    yield piece


async def _read(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 18):
            pass
    except OSError:
        pass


def main() -> None:
    """Attack."""
    os.nice(10)  # whoever measures is on the same processor
    attack, port, *files = sys.argv[1:]
    certificate = Certificate(*map(Path, files))
    hostile = _Hostile(attack, int(port), h2_context(certificate))
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(hostile.attack())


if __name__ == "__main__":
    main()
