"""Header lists: what a request's must and must not hold. Source: RFC 9113, sections 8.2 and 8.3.

What can be said of a field alone is found out once for each `Field`. Entries of the dynamic table,
which most fields of a busy connection are, are so checked once and used by many requests.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from authz.http2.events import Head
from authz.http2.faults import HttpFault, Malformed
from authz.http2.grpc import GrpcFault, GrpcStatus, timeout_of

_OVERHEAD: Final = 32

_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_length = re.compile(r"[0-9]{1,15}", re.ASCII)

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_A_CONNECTION: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_UNIQUE: Final = frozenset(
    {"content-type", "content-length", "grpc-timeout", "grpc-encoding", "host"}
)
_GRPC: Final = frozenset({"application/grpc", "application/grpc+proto"})


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
        self.alone = name[0] != ":" and name not in _UNIQUE
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


def head_of(fields: Iterable[Field]) -> Head[Any]:
    """Check a request's header list.

    Raises:
        Malformed: it is. One that is well-formed and no gRPC request has a `refusal`.
    """
    pseudo: dict[str, str] = {}
    unique: dict[str, str] = {}
    metadata: list[tuple[str, str]] = []
    for field in fields:
        text = field.text or field.checked()
        if field.alone:
            metadata.append(text)
            continue
        name, value = text
        if name[0] == ":":
            if metadata or name in pseudo:
                raise Malformed("a pseudo-header field comes late or twice")
            pseudo[name] = value
        else:
            metadata.append(text)
            if unique.setdefault(name, value) != value:
                raise Malformed("a field has two values")
            if name == "host" and pseudo.get(":authority", value).lower() != value.lower():
                raise Malformed("host is not :authority")
    return _head(pseudo, unique, tuple(metadata))


def _head(
    pseudo: Mapping[str, str], unique: Mapping[str, str], metadata: tuple[tuple[str, str], ...]
) -> Head[Any]:
    """What a well-formed request asks for, or why it is no gRPC request."""
    path = _path(pseudo)
    length = unique.get("content-length")
    if length is not None and _length.fullmatch(length) is None:
        raise Malformed("content-length is no length")
    timeout = unique.get("grpc-timeout")
    seconds = None if timeout is None else timeout_of(timeout)
    refusal: HttpFault | GrpcFault | None = None
    if pseudo[":method"] != "POST":
        refusal = HttpFault(405)
    elif not _is_grpc(unique.get("content-type", "")):
        refusal = HttpFault(415)
    elif seconds is None and timeout is not None:
        refusal = GrpcFault(GrpcStatus.INTERNAL, "grpc-timeout is malformed")
    return Head(
        path,
        metadata,
        seconds=seconds,
        length=None if length is None else int(length),
        encoding=unique.get("grpc-encoding", "identity"),
        refusal=refusal,
    )


def check_trailers(fields: Iterable[Field]) -> None:
    """Check the header list that may follow a request's data (section 8.1).

    Raises:
        Malformed: it holds a pseudo-header field, or what a header list must not hold.
    """
    for field in fields:
        name, _ = field.text or field.checked()
        if name[0] == ":":
            raise Malformed("a pseudo-header field is among the trailers")


def _is_grpc(content_type: str) -> bool:
    if content_type in _GRPC:
        return True
    return content_type.partition(";")[0].rstrip(" \t").lower() in _GRPC


def _path(pseudo: Mapping[str, str]) -> str:
    """Section 8.3.1, and section 8.5 for CONNECT."""
    method, path = pseudo.get(":method"), pseudo.get(":path")
    if method == "CONNECT":
        if path is not None or ":scheme" in pseudo or not pseudo.get(":authority"):
            raise Malformed("CONNECT has other pseudo-header fields")
        return ""
    if not method or not path or not pseudo.get(":scheme"):
        raise Malformed("a pseudo-header field is missing")
    if path[0] != "/" and (path != "*" or method != "OPTIONS"):
        raise Malformed(":path is not one")
    return path
