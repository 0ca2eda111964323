"""What an HTTP message is to the stand-ins, whichever version carried it.

A message is a head, then data, then an `End`; each side of an exchange is a `Stream` of these. A
proxy therefore is two loops that hand over what they receive, and bodies are never held whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

CHUNK = 1 << 16
"""Octets read at once."""


class Gone(ConnectionError):
    """The other side has left, or this exchange was reset."""


class Malformed(Gone):
    """What came is not HTTP."""


class Headers(list[tuple[str, str]]):
    """Header fields in the order they came, names in lower case, read as Go's http.Header is."""

    def get(self, name: str) -> str:
        """The first of several, as Header.Get; empty if there is none (net/http header.go)."""
        return next((value for key, value in self if key == name), "")

    def values(self, name: str) -> list[str]:
        """Each of them, as Header.Values."""
        return [value for key, value in self if key == name]

    def drop(self, name: str) -> None:
        """Remove each of them, as Header.Del."""
        self[:] = [pair for pair in self if pair[0] != name]

    def set(self, name: str, value: str) -> None:
        """Replace each of them by one, as Header.Set."""
        self.drop(name)
        self.append((name, value))


@dataclass
class Request:
    """The head of a request, as Go's server hands it to a handler: Host is not a header."""

    method: str
    target: str
    host: str
    headers: Headers = field(default_factory=Headers)
    length: int | None = 0
    """Octets of the body; None where only its end tells."""
    version: int = 1
    peer: str = ""
    """The address of whoever connected, without a port."""


@dataclass
class Response:
    """The head of a response; a status below 200 is an interim one, of which 101 is the last."""

    status: int
    headers: Headers = field(default_factory=Headers)


@dataclass
class End:
    """The end of a message, with its trailers."""

    trailers: Headers = field(default_factory=Headers)


Event = Request | Response | bytes | End


class Stream(Protocol):
    """One exchange, seen from one side."""

    async def receive(self) -> Event:
        """Take what comes next.

        Raises:
            Gone: the other side has left.
            Malformed: it does not speak HTTP.
        """

    async def send(self, event: Event) -> None:
        """Send what comes next, when the other side has room for it.

        Raises:
            Gone: the other side has left.
        """

    async def gone(self) -> None:
        """Wait until the other side has left, after its End was received."""


async def body(stream: Stream) -> bytes:
    """The rest of a message that is small.

    Raises:
        Gone: it did not come whole.
    """
    parts = []
    while isinstance(part := await stream.receive(), bytes):
        parts.append(part)
    return b"".join(parts)


async def reply(
    stream: Stream, status: int, content: bytes = b"", headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Answer with a body that is known."""
    length = ("content-length", str(len(content)))
    await stream.send(Response(status, Headers([*headers, length])))
    if content:
        await stream.send(content)
    await stream.send(End())


async def error(stream: Stream, status: int, message: str) -> None:
    """Answer as http.Error does (net/http server.go): plain text and a line feed."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
    await reply(stream, status, message.encode() + b"\n", headers)
