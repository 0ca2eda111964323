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

from authz.http2.faults import ConnectionFault, ErrorCode

_State = list["_Step | None"]
"""The steps from a state, by the next byte."""

_Step = tuple[_State, bytes, bool]
"""Next state, symbols, and whether the string may end here."""

_states: Final[list[_State]] = [[None] * 256 for _ in range(len(HUFFMAN_TABLE) // 16)]
"""If all steps are ever needed, they take 8 MB."""

_NOTHING: Final[_Step] = (_states[0], b"", True)
_numbers: Final = {id(state): number for number, state in enumerate(_states)}


def decode_huffman(data: bytes) -> bytes:
    """Decode a whole string.

    Raises:
        ConnectionFault: it contains EOS, or ends in more or other padding than allowed.
    """
    state, step, symbols = _states[0], _NOTHING, list[bytes]()
    append = symbols.append
    for byte in data:
        step = state[byte] or _join(state, byte)
        state = step[0]
        append(step[1])
    if not step[2]:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a Huffman string does not end well")
    return b"".join(symbols)


def _join(start: _State, byte: int) -> _Step:
    state, symbols, flags = _numbers[id(start)], bytearray(), 0
    for nibble in (byte >> 4, byte & 0xF):
        state, flags, symbol = HUFFMAN_TABLE[(state << 4) + nibble]
        if flags & HUFFMAN_FAIL:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a Huffman string holds no code")
        if flags & HUFFMAN_EMIT_SYMBOL:
            symbols.append(symbol)
    step = _states[state], bytes(symbols), bool(flags & HUFFMAN_COMPLETE)
    start[byte] = step
    return step
