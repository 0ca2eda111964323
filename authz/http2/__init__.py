"""A server's side of HTTP/2 for unary gRPC: bytes in, events and bytes out. No sockets, no clock.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), the gRPC over HTTP/2 protocol.
"""

from authz.http2.connection import Connection
from authz.http2.events import Cancelled, Event, Request
from authz.http2.grpc import GrpcStatus
from authz.http2.limits import Limits

__all__ = ["Cancelled", "Connection", "Event", "GrpcStatus", "Limits", "Request"]
