"""What can be wrong with what a client sends. Source: RFC 9113, sections 5.4, 7 and 8.1.1."""

import enum


class ErrorCode(enum.IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The connection cannot go on: answered by GOAWAY with `code`, then closed.

    `limit` names the one that was exceeded, if it was: a field of `Limits`, or `slow`.
    """

    def __init__(self, code: ErrorCode, text: str, *, limit: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.limit = limit


class StreamFault(Exception):
    """One stream cannot go on: answered by RST_STREAM with `code`. `limit` as above."""

    def __init__(self, code: ErrorCode, text: str, *, limit: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.limit = limit


class Malformed(StreamFault):
    """A request is malformed (section 8.1.1)."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.PROTOCOL_ERROR, text)


class HttpFault(Exception):
    """A request is well-formed HTTP and not gRPC: answered by a bare `:status`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
