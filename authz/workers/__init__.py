"""Many processes on one port: a supervisor, and its line to each of its workers."""

from authz.workers.link import Link
from authz.workers.supervisor import supervise

__all__ = ["Link", "supervise"]
