"""Many processes on one port: a supervisor, and its line to each of its workers."""

from authz.server.workers.link import Link
from authz.server.workers.supervisor import supervise

__all__ = ["Link", "supervise"]
