"""Header lists: what a request's must and must not hold. Source: RFC 9113, section 8.3."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz.http2.events import Head
from authz.http2.faults import HttpFault, Malformed
from authz.http2.fields import Field
from authz.http2.grpc import GrpcFault, GrpcStatus, timeout_of

_length = re.compile(r"[0-9]{1,15}", re.ASCII)

_GRPC: Final = frozenset({"application/grpc", "application/grpc+proto"})


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
