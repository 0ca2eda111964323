"""Header blocks: requests' as Envoy's codec (nghttp2) encodes them, and answers' decoded.

What a block costs the server depends on how it is encoded. So this encoder makes the choices that
Envoy makes, byte for byte: every field is inserted into the dynamic table, but for `:path`; strings
are in Huffman code where that is shorter. After the first blocks, those of the same fields are
short and all alike. A field that changes on every call is inserted on every call, moves the index
of all the others, and pushes them out of the table now and then.

Source: RFC 7541; nghttp2's `nghttp2_hd.c`. The tests compare it with blocks recorded from Envoy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, TypeAlias

from hpack import Decoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

_TABLE_BYTES: Final = 4096
_OVERHEAD: Final = 32  # per entry, section 4.1
_NEVER_INSERTED: Final = frozenset({b":path"})
_MAX_REMEMBERED: Final = 4096  # blocks

_huffman: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
_STATIC: Final = {
    pair: index for index, pair in reversed(list(enumerate(HeaderTable.STATIC_TABLE, start=1)))
}
_STATIC_NAMES: Final = {name: index for (name, _), index in _STATIC.items()}
_FIRST_DYNAMIC: Final = len(HeaderTable.STATIC_TABLE) + 1


class Field:
    """A header field, with its strings encoded. Equal fields must be the same object."""

    __slots__ = ("coded_name", "coded_value", "name", "size", "static", "static_name")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.coded_name = _string(name)
        self.coded_value = _string(value)
        self.size = len(name) + len(value) + _OVERHEAD
        index = _STATIC.get((name, value))
        self.static = None if index is None else _integer(index, 0x80, 7)
        self.static_name = _STATIC_NAMES.get(name)


Head: TypeAlias = tuple[Field, ...]


class Fields:
    """Makes fields, equal ones once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Field] = {}

    def head(self, fields: Mapping[str, str]) -> Head:
        """A request's header fields, in their order."""
        return tuple(self._field(*field) for field in fields.items())

    def _field(self, name: str, value: str) -> Field:
        made = self._made.get((name, value))
        if made is None:
            made = self._made[name, value] = Field(name.encode(), value.encode())
        return made


class Encoder:
    """Encodes the requests of one connection."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Field, int]] = deque()
        self._numbers: dict[Field, int] = {}
        self._names: dict[bytes, int] = {}
        self._inserted = 0
        self._size = 0
        self._remembered: dict[Head, bytes] = {}

    def encode(self, head: Head) -> bytes:
        """The block for these fields, at this point of the connection."""
        block = self._remembered.get(head)
        if block is not None:
            return block
        inserted = self._inserted
        block = b"".join([self._encode(field) for field in head])
        if self._inserted != inserted:
            self._remembered.clear()
        elif len(self._remembered) < _MAX_REMEMBERED:
            self._remembered[head] = block
        return block

    def _encode(self, field: Field) -> bytes:
        if field.static is not None:
            return field.static
        number = self._numbers.get(field)
        if number is not None:
            index = _FIRST_DYNAMIC + self._inserted - 1 - number
            return bytes((0x80 | index,)) if index < 0x7F else _integer(index, 0x80, 7)
        name = field.static_name
        if name is None and (number := self._names.get(field.name)) is not None:
            name = _FIRST_DYNAMIC + self._inserted - 1 - number
        if field.name in _NEVER_INSERTED:
            start, bits = 0x00, 4
        else:
            start, bits = 0x40, 6
            self._insert(field)
        if name is None:
            return bytes((start,)) + field.coded_name + field.coded_value
        return _integer(name, start, bits) + field.coded_value

    def _insert(self, field: Field) -> None:
        self._size += field.size
        while self._size > _TABLE_BYTES:
            old, number = self._entries.popleft()
            self._size -= old.size
            del self._numbers[old]
            if self._names[old.name] == number:
                del self._names[old.name]
        self._entries.append((field, self._inserted))
        self._numbers[field] = self._names[field.name] = self._inserted
        self._inserted += 1


class _Watched(HeaderTable):
    """A dynamic table that counts what changes it."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, size: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, size)  # type: ignore[attr-defined]


class Answers:
    """Decodes the header blocks of one connection's answers."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._table = self._decoder.header_table = _Watched()
        self._remembered: dict[bytes, dict[bytes, bytes]] = {}

    def decode(self, block: bytes) -> Mapping[bytes, bytes]:
        """The fields of a block.

        Raises:
            hpack.HPACKError: it is none.
        """
        fields = self._remembered.get(block)
        if fields is not None:
            return fields
        changes = self._table.changes
        fields = {
            bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)
        }
        if self._table.changes != changes:
            self._remembered.clear()
        elif len(self._remembered) < _MAX_REMEMBERED:
            self._remembered[block] = fields
        return fields


def _string(text: bytes) -> bytes:
    """Section 5.2."""
    coded = _huffman.encode(text)
    if len(coded) < len(text):
        return _integer(len(coded), 0x80, 7) + coded
    return _integer(len(text), 0x00, 7) + text


def _integer(value: int, start: int, bits: int) -> bytes:
    """Section 5.1, after the first bits of `start`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((start | value,))
    coded = bytearray((start | most,))
    value -= most
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)
