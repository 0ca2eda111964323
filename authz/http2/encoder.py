"""The frames of answers, but for flow control.

Header blocks use no dynamic table. The first one says so by resizing the table to nothing, after
which no change of SETTINGS_HEADER_TABLE_SIZE can concern us (RFC 7541 section 4.2).

Sources: RFC 7541; the gRPC over HTTP/2 protocol.
"""

from struct import Struct
from typing import Final

from authz.http2 import frames
from authz.http2.faults import HttpFault
from authz.http2.grpc import PREFIX_BYTES, GrpcFault, GrpcStatus, percent_encoded


def _literal(name: bytes, value: bytes) -> bytes:
    """A field in the form that nobody remembers (RFC 7541 section 6.2.2)."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """RFC 7541 section 5.2, without Huffman code."""
    if len(text) < 0x7F:
        return bytes((len(text),)) + text
    rest, size = len(text) - 0x7F, bytearray(b"\x7f")
    while rest >= 0x80:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    size.append(rest)
    return bytes(size) + text


_NO_TABLE: Final = b"\x20"
_STATUS_200: Final = b"\x88"
_HEAD: Final = _STATUS_200 + _literal(b"content-type", b"application/grpc")
_ACCEPT_ENCODING: Final = _literal(b"grpc-accept-encoding", b"identity")
_OK_TRAILERS: Final = _literal(b"grpc-status", b"0")
_END: Final = frames.END_STREAM | frames.END_HEADERS

# An answer as it nearly always is: all before its message, and all after it.
_BEFORE: Final = Struct(f">BHBBL{len(_HEAD)}sBHBBLBL").pack
_AFTER: Final = Struct(f">BHBBL{len(_OK_TRAILERS)}s").pack


class Encoder:
    """Makes answers of one connection."""

    def __init__(self) -> None:
        self._prefix = _NO_TABLE

    def whole(self, stream_id: int, message: bytes) -> bytes:
        """Head, a message that fits into a frame, and status OK."""
        size = len(message)
        data = size + PREFIX_BYTES
        if self._prefix:
            framed = b"\0" + size.to_bytes(4, "big") + message
            head = self.head(stream_id) + frames.frame(frames.DATA, 0, stream_id, framed)
            return head + self.trailers(stream_id, GrpcStatus.OK, "")
        return (
            _BEFORE(
                *(0, len(_HEAD), frames.HEADERS, frames.END_HEADERS, stream_id, _HEAD),
                *(0, data, frames.DATA, 0, stream_id, 0, size),
            )
            + message
            + _AFTER(0, len(_OK_TRAILERS), frames.HEADERS, _END, stream_id, _OK_TRAILERS)
        )

    def head(self, stream_id: int) -> bytes:
        """What comes before the first message."""
        return self._headers(stream_id, _HEAD, frames.END_HEADERS)

    def trailers(self, stream_id: int, status: GrpcStatus, text: str) -> bytes:
        """What comes after the last message."""
        return self._headers(stream_id, _status(status, text), _END)

    def status_only(self, stream_id: int, status: GrpcStatus, text: str) -> bytes:
        """An answer without a message: "Trailers-Only"."""
        encoding = _ACCEPT_ENCODING if status is GrpcStatus.UNIMPLEMENTED else b""
        return self._headers(stream_id, _HEAD + encoding + _status(status, text), _END)

    def refusal(self, stream_id: int, fault: HttpFault | GrpcFault) -> bytes:
        """An answer to what is not asked."""
        if isinstance(fault, GrpcFault):
            return self.status_only(stream_id, fault.status, fault.text)
        return self._headers(stream_id, _literal(b":status", b"%d" % fault.status), _END)

    def _headers(self, stream_id: int, block: bytes, flags: int) -> bytes:
        block, self._prefix = self._prefix + block, b""
        return frames.frame(frames.HEADERS, flags, stream_id, block)


def _status(status: GrpcStatus, text: str) -> bytes:
    block = _literal(b"grpc-status", b"%d" % status)
    return block + _literal(b"grpc-message", percent_encoded(text)) if text else block
