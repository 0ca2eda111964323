"""HPACK decoding. Source: RFC 7541, whose sections the names below follow.

The `hpack` package spends some 40 microseconds on ten indexed fields, more than all the rest of a
Check; tests compare this decoder with it.

A block is remembered with what it decodes to, if decoding it neither inserted into the dynamic
table nor resized it. All that is remembered is forgotten as soon as another block does either. So
what is remembered is what decoding it now would give.

What a block costs is bounded by its bytes and by its fields. A decoder that stops amid a block
cannot go on with the next one, so a block with too many fields ends the connection.
"""

from functools import lru_cache
from typing import Any, Final

from hpack.table import HeaderTable

from authz.http2.events import Head
from authz.http2.faults import ConnectionFault, ErrorCode, HttpFault
from authz.http2.huffman import decode_huffman
from authz.http2.request_head import Field, head_of

TABLE_SIZE: Final = 4096
"""SETTINGS_HEADER_TABLE_SIZE, in bytes as section 4.1 counts them: the default, which we keep."""

_MAX_REMEMBERED: Final = 64  # blocks
_MOST_REMEMBERED: Final = 1024
"""Bytes of all blocks that are remembered. What they decode to may take 60 times as much, and stays
while the connection is idle. Envoy's have some 45 bytes: most of their fields are in the table."""


_STATIC: Final = (
    Field(b"", b""),  # 6.1: index 0 is not used
    *(Field(name, value) for name, value in HeaderTable.STATIC_TABLE),
)
_FIRST_DYNAMIC: Final = len(_STATIC)
_NO_FIELD: Final = _STATIC[0]


class Block:
    """A decoded header block, and what it says as a request's head."""

    __slots__ = ("_head", "fields", "size")

    def __init__(self, fields: tuple[Field, ...] | None, size: int) -> None:
        self.fields = fields
        """`None`: the header list is larger than allowed, and not kept."""
        self.size = 0 if fields is None else size
        """Of the header list that is kept, in bytes as section 4.1 counts."""
        self._head: Head[Any] | None = None

    def head(self) -> Head[Any]:
        """The head of a request with this block, made once.

        Raises:
            Malformed: it is none.
        """
        if self._head is None:
            if self.fields is None:  # RFC 9113 section 10.5.1
                self._head = Head(refusal=HttpFault(431))
            else:
                self._head = head_of(self.fields)
        return self._head


class Decoder:
    """Decodes the header blocks of one connection, in the order in which they came.

    `max_list` is the largest header list, counted as in section 4.1; `max_fields` is the largest
    number of fields in a block, each table size update counted as one.
    """

    def __init__(self, max_list: int, max_fields: int = 256) -> None:
        self._max_list = max_list
        self._max_fields = max_fields
        self._table = list(_STATIC)  # 2.3.3: the newest dynamic entry follows the static ones
        self._size = 0  # of the dynamic entries
        self._max_size = TABLE_SIZE
        self._remembered: dict[bytes, Block] = {}
        self._remembered_bytes = 0

    def decode(self, encoded: bytes) -> Block:
        """Decode a block. For one that is remembered, the same object is returned.

        Raises:
            ConnectionFault: the block is malformed or too large. The connection cannot go on.
        """
        known = self._remembered.get(encoded)
        if known is not None:
            return known
        try:
            fields, size, changed = self._decode(encoded)
        except IndexError:
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR, "a header block ends early or names no entry"
            ) from None
        block = Block(fields, size)
        if changed:
            self._forget()
        elif len(encoded) <= _MOST_REMEMBERED:
            room = _MOST_REMEMBERED - len(encoded)
            if self._remembered_bytes > room or len(self._remembered) >= _MAX_REMEMBERED:
                self._forget()
            self._remembered[encoded] = block
            self._remembered_bytes += len(encoded)
        return block

    def _forget(self) -> None:
        self._remembered.clear()
        self._remembered_bytes = 0

    def _decode(self, block: bytes) -> tuple[tuple[Field, ...] | None, int, bool]:
        """Section 3. A list that is too large is decoded to its end: later blocks build on it.

        A block of too many fields is not; no block can follow it.
        """
        table, fields = self._table, list[Field]()
        position, end, room, changed = 0, len(block), self._max_list, False
        left = self._max_fields
        while position < end and left:
            left -= 1
            first = block[position]
            if first & 0x80:  # 6.1 indexed
                if first < 0xFF:
                    field = table[first & 0x7F]
                    position += 1
                else:
                    index, position = _integer(block, position, 0x7F)
                    field = table[index]
                if field is _NO_FIELD:
                    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header field has index 0")
            elif first & 0x40:  # 6.2.1 literal with incremental indexing
                field, position = self._literal(block, position, 0x3F)
                self._insert(field)
                changed = True
            elif first & 0x20:  # 6.3 dynamic table size update
                size, position = _integer(block, position, 0x1F)
                if room < self._max_list or size > TABLE_SIZE:
                    raise ConnectionFault(
                        ErrorCode.COMPRESSION_ERROR, "a table size update is late or too large"
                    )
                self._max_size = size
                self._evict(size)
                changed = True
                continue
            elif 0 < first & 0x0F < 0x0F and block[position + 1] & 0x7F < 0x7F:
                # 6.2.2 and 6.2.3 literal without indexing, and never indexed, with a name of the
                # static table and a short value, as Envoy sends `:path` with each request.
                start, position = position, position + 2 + (block[position + 1] & 0x7F)
                field = _short_literal(block[start:position])
            else:
                field, position = self._literal(block, position, 0x0F)
            room -= field.size
            fields.append(field)
        if position < end:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a header block has more than {self._max_fields} fields",
                limit="header_fields",
            )
        return tuple(fields) if room >= 0 else None, self._max_list - room, changed

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        """Section 6.2."""
        index, position = block[position] & mask, position + 1
        if index == mask:
            index, position = _integer(block, position - 1, mask)
        if index:
            name = self._table[index].name
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return Field(name, value), position

    def _insert(self, field: Field) -> None:
        """Section 4.4. What is larger than the table empties it and is not inserted."""
        room = self._max_size - field.size
        if self._size > room:
            self._evict(room)
        if room >= 0:
            self._table.insert(_FIRST_DYNAMIC, field)
            self._size += field.size

    def _evict(self, size: int) -> None:
        """Drop the oldest entries until all dynamic ones are no larger than `size`."""
        while self._size > size and self._size:
            self._size -= self._table.pop().size


@lru_cache(maxsize=256)
def _short_literal(encoded: bytes) -> Field:
    """A literal that depends on no dynamic table, so its bytes alone say which field it is."""
    value, _ = _string(encoded, 1)
    return Field(_STATIC[encoded[0] & 0x0F].name, value)


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Section 5.1. No integer that we accept needs more than four bytes of continuation."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in (0, 7, 14, 21):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "an integer in a header block is too large")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """Section 5.2."""
    first = block[position]
    length, position = first & 0x7F, position + 1
    if length == 0x7F:
        length, position = _integer(block, position - 1, 0x7F)
    end = position + length
    if end > len(block):
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a string exceeds its header block")
    text = block[position:end]
    return (decode_huffman(text) if first & 0x80 else text), end
