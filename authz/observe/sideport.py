"""The HTTP side port: /metrics for Prometheus, /healthz and /readyz for the kubelet.

It runs in threads of its own, so that a slow scrape never holds up a Check.
"""

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import ThreadingWSGIServer

from authz.errors import ProblemsError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class SidePort:
    """Serves what functions tell: metrics, the truths that must all hold to be ready, and why not.

    They are called in threads.

    Raises:
        ProblemsError: the address cannot be bound.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        metrics: Callable[[], bytes],
        truths: Callable[[], Mapping[str, bool]],
        reasons: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._metrics = metrics
        self._reasons = reasons
        self._truths = truths
        host, port = address
        kind = _IPv6Server if ":" in host else ThreadingWSGIServer
        try:
            self._server = make_server(host, port, self._answer, kind, _Handler)
        except OSError as error:
            problem = f"http_listen: cannot listen on {address}: {error.strerror}"
            raise ProblemsError([problem]) from None
        self.port: int = self._server.server_port

    def start(self) -> None:
        """Answer requests until `stop`."""
        Thread(target=self._server.serve_forever, name="side-port", daemon=True).start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self.close()

    def close(self) -> None:
        """Let go of the port, where nothing was answered yet."""
        self._server.server_close()

    def _answer(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                status, kind, body = "200 OK", CONTENT_TYPE_LATEST, self._metrics()
            case "/healthz":
                status, kind, body = "200 OK", "text/plain", b"alive\n"
            case "/readyz":
                truths = self._truths()
                status = "200 OK" if all(truths.values()) else "503 Service Unavailable"
                because = dict(self._reasons())
                said = {**truths, "because": because} if because else dict(truths)
                kind, body = "application/json", json.dumps(said).encode() + b"\n"
            case _:
                status, kind = "404 Not Found", "text/plain"
                body = b"there are /metrics, /healthz and /readyz\n"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]


class _IPv6Server(ThreadingWSGIServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Take IPv4, too, where every address is meant, whatever the machine's default is."""
        only = self.server_address[0] != "::"
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds; an idle connection must not keep a thread

    def log_message(self, *_: object) -> None:
        """Requests to the side port are nobody's concern."""
