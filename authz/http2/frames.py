"""Frames: their types, flags and bytes. Source: RFC 9113, sections 4 and 6."""

from struct import Struct
from typing import Final

from authz.http2.faults import ConnectionFault, ErrorCode

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER: Final = Struct(">BHBBL")
"""Length (one byte and two), type, flags, stream id with the reserved bit."""
HEADER_BYTES: Final = 9
PRIORITY_BYTES: Final = 5

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

FRAME_SIZE: Final = 16_384
"""Largest payload: SETTINGS_MAX_FRAME_SIZE as it is before anybody sets it. We keep it."""
LARGEST_WINDOW: Final = 0x7FFFFFFF
LARGEST_STREAM: Final = 0x7FFFFFFF
DEFAULT_WINDOW: Final = 65_535


def content(flags: int, payload: bytes, priority: int = 0) -> tuple[bytes, int]:
    """What is left of DATA or HEADERS without padding and priority (sections 6.1 and 6.2).

    `priority` is the size of the priority fields. With the content comes the stream that these
    name, or 0.

    Raises:
        ConnectionFault: what the flags announce is not there.
    """
    start, padding = priority, 0
    if flags & PADDED:
        start += 1
        padding = payload[0] if payload else 0
    if len(payload) < start:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too small for its flags")
    end = len(payload) - padding
    if end < start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "there is more padding than frame")
    depends_on = int.from_bytes(payload[start - priority :][:4], "big") if priority else 0
    return payload[start:end], depends_on & LARGEST_STREAM


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame; `text` is for whoever debugs the other side."""
    return frame(
        GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode()
    )


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))
