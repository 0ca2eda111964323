"""What happened, told once by the service and recorded by adapters: metrics and the audit log."""

from authz.observe.audit import AuditLog
from authz.observe.events import DecisionEvent, Recorder
from authz.observe.handshakes import HandshakeLog
from authz.observe.log import json_log
from authz.observe.metrics import Metrics
from authz.observe.sampling import Sampler
from authz.observe.sideport import SidePort

__all__ = [
    "AuditLog",
    "DecisionEvent",
    "HandshakeLog",
    "Metrics",
    "Recorder",
    "Sampler",
    "SidePort",
    "json_log",
]
