"""The server's life: start up, serve, drain."""

from authz.server.run import run
from authz.server.server import Server

__all__ = ["Server", "run"]
