"""SETTINGS. Source: RFC 9113, section 6.5.

Of a client's settings one concerns us, INITIAL_WINDOW_SIZE. We push nothing, open no streams, send
no frame above the smallest MAX_FRAME_SIZE there is, and encode without a dynamic table. The others
are checked.
"""

from struct import Struct
from typing import Final

from authz.http2.faults import ConnectionFault, ErrorCode
from authz.http2.frames import FRAME_SIZE, LARGEST_WINDOW, SETTINGS, frame

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

LARGEST_FRAME_SIZE: Final = 0xFFFFFF

_SETTING: Final = Struct(">HL")


def encoded(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in values.items()))


def initial_windows(payload: bytes) -> list[int]:
    """Check a client's settings; return the values of INITIAL_WINDOW_SIZE, in order.

    Raises:
        ConnectionFault: one has a value that it must not have.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
    windows = []
    for name, value in _SETTING.iter_unpack(payload):
        if name == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large")
            windows.append(value)
        elif name == ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        elif name == MAX_FRAME_SIZE and not FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    return windows
