"""gRPC over HTTP/2: message framing, timeouts, statuses.

Source: the gRPC over HTTP/2 protocol (PROTOCOL-HTTP2.md in grpc/grpc).
"""

import enum
import re
from typing import Final
from urllib.parse import quote

PREFIX_BYTES: Final = 5
"""One byte that says whether the message is compressed, four for its length."""

_LONGEST_TEXT: Final = 1000
"""Of a `grpc-message`, in characters. Each takes 12 bytes at most; the rest of a frame is spare."""

_timeout = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class GrpcStatus(enum.IntEnum):
    """google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcFault(Exception):
    """A request is well-formed HTTP and cannot be answered: a status and no message."""

    def __init__(self, status: GrpcStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def timeout_of(value: str) -> float | None:
    """Seconds of a `grpc-timeout`; `None` if it is not well-formed."""
    match = _timeout.fullmatch(value)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]


def message_of(data: bytes, *, limit: int, encoding: str = "identity") -> bytes:
    """The one message in a request's data. `encoding` is what `grpc-encoding` says.

    Raises:
        GrpcFault: there is none, more than one, part of one, a compressed or too large one.
    """
    length = int.from_bytes(data[1:PREFIX_BYTES], "big")
    if len(data) == PREFIX_BYTES + length and data[0] == 0 and length <= limit:
        return data[PREFIX_BYTES:]
    raise _fault_of(data, length, limit, encoding)


def _fault_of(data: bytes, length: int, limit: int, encoding: str) -> GrpcFault:
    if not data:
        return GrpcFault(GrpcStatus.INTERNAL, "the request holds no message")
    if data[0] > 1:
        return GrpcFault(GrpcStatus.INTERNAL, "a message begins with a flag that does not exist")
    if data[0] == 1 and encoding == "identity":
        return GrpcFault(GrpcStatus.INTERNAL, "a message is compressed, and nothing says how")
    if data[0] == 1:
        return GrpcFault(GrpcStatus.UNIMPLEMENTED, "compressed messages are not supported here")
    if len(data) >= PREFIX_BYTES and length > limit:
        return GrpcFault(GrpcStatus.RESOURCE_EXHAUSTED, f"a message exceeds {limit} bytes")
    if len(data) < PREFIX_BYTES + length:
        return GrpcFault(GrpcStatus.INTERNAL, "the request ends within a message")
    return GrpcFault(GrpcStatus.UNIMPLEMENTED, "a unary request holds more than one message")


def framed(message: bytes) -> bytes:
    """A message as it goes into DATA, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def percent_encoded(text: str) -> bytes:
    """A `grpc-message`: printable ASCII but `%` stays as it is.

    Spaces at either end are encoded, too: no HTTP/2 field value may begin or end with one (RFC
    9113 section 8.2.1). A text that is too long for a frame is cut.
    """
    text = text[:_LONGEST_TEXT]
    inner = text.strip(" ")
    start = len(text) - len(text.lstrip(" ")) if inner else len(text)
    end = len(text) - start - len(inner)
    encoded = quote(inner, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="replace")
    return ("%20" * start + encoded + "%20" * end).encode()
