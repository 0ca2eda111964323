"""What a connection tells whoever serves it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from authz.http2.faults import HttpFault
from authz.http2.grpc import GrpcFault

N = TypeVar("N")
"""What whoever serves a connection makes of a head."""


class Head(Generic[N]):
    """A request's header fields, checked.

    Shared by all requests of one connection with the same header block, and by no others.
    """

    __slots__ = ("encoding", "length", "metadata", "note", "path", "refusal", "seconds")

    def __init__(
        self,
        path: str = "",
        metadata: tuple[tuple[str, str], ...] = (),
        *,
        seconds: float | None = None,
        length: int | None = None,
        encoding: str = "identity",
        refusal: HttpFault | GrpcFault | None = None,
    ) -> None:
        self.path = path
        self.metadata = metadata
        """All fields that are not pseudo-header fields, in order, as text."""
        self.seconds = seconds
        """From `grpc-timeout`: how long the client waits, in seconds; `None` without limit."""
        self.length = length
        """From `content-length`: how many bytes of data will come, if that was said."""
        self.encoding = encoding
        """From `grpc-encoding`: how a compressed message would be compressed."""
        self.refusal = refusal
        """Why this is answered without being asked; heads in a `Request` have none."""
        self.note: N | None = None
        """What was made of it, once it was."""

    def noted(self, make: Callable[["Head[N]"], N]) -> N:
        """What `make` makes of it, from now on also in `note`."""
        self.note = note = make(self)
        return note


@dataclass(slots=True)
class Request(Generic[N]):
    """A whole request has arrived: its head, and its one message."""

    stream_id: int
    head: Head[N]
    message: bytes


@dataclass(slots=True)
class Cancelled:
    """Nobody waits any more for the answer on this stream, which is not all given yet."""

    stream_id: int


Event = Request[N] | Cancelled
