"""Who asks, where it is not the client certificate of the connection that says so."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from authz.domain.identity import SpiffeId, workload_of_xfcc
from authz.errors import InvalidIdentity
from authz.wire import INSECURE_CALLER

CallerSource = Callable[[Sequence[tuple[str, str]]], SpiffeId]
"""Reads the caller from a Check's metadata. Raises InvalidIdentity where that names none."""

XFCC: Final = "x-forwarded-client-cert"

_MAX_KNOWN: Final = 16_384
_LONGEST_KNOWN: Final = 512  # characters


def from_xfcc(own: SpiffeId) -> CallerSource:
    """Believe the x-forwarded-client-cert of our own sidecar, whose identity is `own`.

    What a header says depends on nothing else, so it is read once; long ones are not remembered.
    """
    known = lru_cache(_MAX_KNOWN)(partial(workload_of_xfcc, own=own))

    def caller_of(metadata: Sequence[tuple[str, str]]) -> SpiffeId:
        header = _only(metadata, XFCC)
        return known(header) if len(header) <= _LONGEST_KNOWN else workload_of_xfcc(header, own=own)

    return caller_of


def from_insecure_metadata() -> CallerSource:
    """Believe anybody who names a SPIFFE ID. For development, on loopback."""
    return lambda metadata: SpiffeId.parse(_only(metadata, INSECURE_CALLER))


def _only(metadata: Sequence[tuple[str, str]], key: str) -> str:
    values = [value for name, value in metadata if name == key]
    if len(values) != 1:
        raise InvalidIdentity(f"{key} was sent {len(values)} times, expected once")
    return values[0]
