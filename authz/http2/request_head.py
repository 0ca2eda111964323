"""Header lists: what a request's must and must not hold. Source: RFC 9113, sections 8.2 and 8.3.

What can be said of a field alone is found out once for each `Field`. Entries of the dynamic table,
which most fields of a busy connection are, are so checked once and used by many requests.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from authz.http2.events import Head
from authz.http2.faults import HttpFault, Malformed
from authz.http2.grpc import GrpcFault, GrpcStatus, timeout_of
from authz.http2.hpack import Field

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

TOO_LARGE: Final = Head(refusal=HttpFault(431))
"""The head of a request whose header list is not kept, since it is too large (section 10.5.1)."""


def head_of(fields: Iterable[Field]) -> Head:
    """Check a request's header list.

    Raises:
        Malformed: it is. One that is well-formed and no gRPC request has a `refusal`.
    """
    pseudo: dict[str, str] = {}
    unique: dict[str, str] = {}
    metadata: list[tuple[str, str]] = []
    for field in fields:
        text = field.text or _check(field)
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
) -> Head:
    """What a well-formed request asks for, or why it is no gRPC request."""
    path = _path(pseudo)
    length = unique.get("content-length")
    if length is not None and _length.fullmatch(length) is None:
        raise Malformed("content-length is no length")
    timeout = unique.get("grpc-timeout")
    head = Head(
        path,
        metadata,
        seconds=None if timeout is None else timeout_of(timeout),
        length=None if length is None else int(length),
        encoding=unique.get("grpc-encoding", "identity"),
    )
    if pseudo[":method"] != "POST":
        head.refusal = HttpFault(405)
    elif not _is_grpc(unique.get("content-type", "")):
        head.refusal = HttpFault(415)
    elif head.seconds is None and timeout is not None:
        head.refusal = GrpcFault(GrpcStatus.INTERNAL, "grpc-timeout is malformed")
    return head


def check_trailers(fields: Iterable[Field]) -> None:
    """Check the header list that may follow a request's data (section 8.1).

    Raises:
        Malformed: it holds a pseudo-header field, or what a header list must not hold.
    """
    for field in fields:
        name, _ = field.text or _check(field)
        if name[0] == ":":
            raise Malformed("a pseudo-header field is among the trailers")


def _check(field: Field) -> tuple[str, str]:
    """Sections 8.2.1 and 8.2.2."""
    value = field.value
    name = _known_name(field.name) if len(field.name) <= _LONGEST_KNOWN else _name_of(field.name)
    if value.translate(None, b"\0\r\n") != value or value.strip(b" \t") != value:
        raise Malformed("a field's value is not one")
    if name == "te" and value != b"trailers":
        raise Malformed("te is about the connection")
    field.alone = name[0] != ":" and name not in _UNIQUE
    field.text = text = name, value.decode("latin-1")
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
