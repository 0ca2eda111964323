"""What supervisor and worker say to each other, over a socket that is the worker's standard input.

First the supervisor sends the greeting: all that makes this process that worker. From then on it
sends words, each on a line, and the worker sends reports, each a JSON object on a line. Whoever
reads the end of the stream knows that the other is gone.
"""

import enum
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Final

from authz.config import Settings

_LENGTH: Final = struct.Struct("!I")


class Word(enum.StrEnum):
    """What a worker is told."""

    TELL = "tell"
    """Report, now."""
    STOP = "stop"
    """Begin to drain."""
    HURRY = "hurry"
    """Stop at once."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """Which worker a process is, and the settings, with the port that was found for port 0."""

    number: int
    settings: Settings

    def to_bytes(self) -> bytes:
        """What the supervisor sends."""
        text = pickle.dumps(self)
        return _LENGTH.pack(len(text)) + text

    @classmethod
    def receive(cls, line: socket.socket) -> "Greeting":
        """Wait for it.

        Raises:
            EOFError: the supervisor is gone.
        """
        (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size))
        greeting = pickle.loads(_exactly(line, length))  # noqa: S301 - from our own parent
        assert isinstance(greeting, cls)  # noqa: S101
        return greeting


def _exactly(line: socket.socket, size: int) -> bytes:
    data = line.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError("the supervisor is gone")
    return data
