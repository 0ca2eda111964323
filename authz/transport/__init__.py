"""Listeners: they find out who asks, hand the bytes to the service and send its bytes back."""

from authz.transport.callers import CallerSource, from_insecure_metadata, from_xfcc
from authz.transport.descriptors import make_room
from authz.transport.health import Health
from authz.transport.interface import Limits, Listener, Service
from authz.transport.listener import Http2Listener
from authz.transport.sockets import every_address
from authz.transport.tls import TlsFiles, TlsMaterial, load_tls

__all__ = [
    "CallerSource",
    "Health",
    "Http2Listener",
    "Limits",
    "Listener",
    "Service",
    "TlsFiles",
    "TlsMaterial",
    "every_address",
    "from_insecure_metadata",
    "from_xfcc",
    "load_tls",
    "make_room",
]
