"""Header fields, and what can be said of one alone. Source: RFC 9113, section 8.2.

It is found out once for each `Field`. Entries of the dynamic table, which most fields of a busy
connection are, are so checked once and used by many requests.
"""

import re
from functools import lru_cache
from typing import Final

from authz.http2.faults import Malformed

_OVERHEAD: Final = 32

_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_A_CONNECTION: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
UNIQUE: Final = frozenset(
    {"content-type", "content-length", "grpc-timeout", "grpc-encoding", "host"}
)
"""Fields of which a request has one value at most."""


class Field:
    """A header field."""

    __slots__ = ("alone", "name", "size", "text", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.size = len(name) + len(value) + _OVERHEAD
        """As RFC 7541 section 4.1 counts."""
        self.text: tuple[str, str] | None = None
        """Name and value, once they are known to be well-formed."""
        self.alone = False
        """Once that is known: no rule looks at it together with other fields."""

    def checked(self) -> tuple[str, str]:
        """Name and value, from now on also in `text`.

        Raises:
            Malformed: by section 8.2.1 or 8.2.2.
        """
        value = self.value
        name = _known_name(self.name) if len(self.name) <= _LONGEST_KNOWN else _name_of(self.name)
        if value.translate(None, b"\0\r\n") != value or value.strip(b" \t") != value:
            raise Malformed("a field's value is not one")
        if name == "te" and value != b"trailers":
            raise Malformed("te is about the connection")
        self.alone = name[0] != ":" and name not in UNIQUE
        self.text = text = name, value.decode("latin-1")
        return text


def _name_of(name: bytes) -> str:
    """Sections 8.2.1, 8.2.2 and the names of section 8.3.1."""
    if name not in _PSEUDO and _name.fullmatch(name) is None:
        raise Malformed("a field's name is not one")
    if name in _OF_A_CONNECTION:
        raise Malformed("a field is about the connection")
    return name.decode()


_known_name = lru_cache(maxsize=1024)(_name_of)
_LONGEST_KNOWN: Final = 64
