"""Huffman strings, a byte at a time. Source: RFC 7541, section 5.2 and appendix B.

The `hpack` package has the code as a state machine that takes half a byte at a step. Here two of
its steps are joined to one, the first time that they are needed.
"""

from typing import Final

from hpack.huffman_table import (
    HUFFMAN_COMPLETE,
    HUFFMAN_EMIT_SYMBOL,
    HUFFMAN_FAIL,
    HUFFMAN_TABLE,
)

from authz.http2.errors import ConnectionFault, ErrorCode

_Step = tuple[int, bytes, bool]
"""Next state, symbols, and whether the string may end here."""

_steps: Final[list[list[_Step | None]]] = [[None] * 256 for _ in range(len(HUFFMAN_TABLE) // 16)]
"""By state and byte. If all are ever needed, they take 8 MB."""


def decode_huffman(data: bytes) -> bytes:
    """Decode a whole string.

    Raises:
        ConnectionFault: it contains EOS, or ends in more or other padding than allowed.
    """
    steps, state, symbols, may_end = _steps, 0, list[bytes](), True
    for byte in data:
        state, symbol, may_end = steps[state][byte] or _join(state, byte)
        symbols.append(symbol)
    if not may_end:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a Huffman string does not end well")
    return b"".join(symbols)


def _join(start: int, byte: int) -> _Step:
    state, symbols, flags = start, bytearray(), 0
    for nibble in (byte >> 4, byte & 0xF):
        state, flags, symbol = HUFFMAN_TABLE[(state << 4) + nibble]
        if flags & HUFFMAN_FAIL:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a Huffman string holds no code")
        if flags & HUFFMAN_EMIT_SYMBOL:
            symbols.append(symbol)
    step = state, bytes(symbols), bool(flags & HUFFMAN_COMPLETE)
    _steps[start][byte] = step
    return step
