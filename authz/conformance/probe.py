"""Runs inside a pod: makes the calls it is told, or is the app that is called.

    python probe.py call '[{"url": "http://hello.a/", ...}]'    prints a JSON list of what came
    python probe.py serve 8080 8000 tcp:7000                    answers with what it was sent

It is mounted as a file, so it imports nothing but the standard library. What it prints is short: a
pod's termination message has 4096 bytes. It ends at SIGTERM, also as process 1, to which the kernel
passes no signal that it does not handle itself.

A call has `url`, http:// or tcp://, and perhaps `connect`, `host:port` instead of what the URL
says, `headers` as pairs, and `host`. What came has `status` (0: no answer), `reason`, and `token`:
whether the app was sent a token.
"""

import http.client
import http.server
import json
import signal
import socket
import socketserver
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

SECONDS = 10.0
REASON = "x-tenant-authz-reason"
TOKEN = "x-tenant-token"  # noqa: S105 - a header's name
LONGEST = 1 << 16
ECHO = b"conformance\r\n"


def call(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make one call; whatever goes wrong is no answer."""
    url = urllib.parse.urlsplit(wanted["url"])
    host, _, port = wanted.get("connect", url.netloc).partition(":")
    address = (host, int(port or 80))
    try:
        if url.scheme == "tcp":
            return {"status": 200 if _echoes(address) else 0}
        return _http(address, url, wanted)
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "error": type(error).__name__}


def _http(
    address: tuple[str, int], url: urllib.parse.SplitResult, wanted: dict[str, Any]
) -> dict[str, Any]:
    connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    try:
        connection.putrequest("GET", url.path or "/", skip_host=True)
        connection.putheader("Host", wanted.get("host", url.netloc))
        for name, value in wanted.get("headers", ()):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        seen = answer.read(LONGEST).decode("utf-8", "replace").lower()
        came = {"status": answer.status}
        reason = {"reason": answer.headers[REASON]} if REASON in answer.headers else {}
        return {**came, **reason, **({"token": True} if TOKEN in seen else {})}
    finally:
        connection.close()


def _echoes(address: tuple[str, int]) -> bool:
    heard = b""
    with socket.create_connection(address, SECONDS) as connection:
        connection.sendall(ECHO)
        while ECHO not in heard and len(heard) < LONGEST:
            part = connection.recv(4096)
            if not part:
                break
            heard += part
    return ECHO in heard


class _Told(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that it was sent."""

    def do_GET(self) -> None:
        """Answer."""
        body = json.dumps(list(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Send back what comes, by lines."""
        for line in self.rfile:
            self.wfile.write(line)


def server(port: str) -> socketserver.TCPServer:
    """A server on a port, `tcp:` before it for raw TCP."""
    kind, _, number = port.rpartition(":")
    address = ("", int(number))
    if kind == "tcp":
        return socketserver.ThreadingTCPServer(address, _Echo)
    return http.server.ThreadingHTTPServer(address, _Told)


def main(words: list[str]) -> None:
    """Call or serve."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if words[0] == "serve":
        for it in map(server, words[1:]):
            threading.Thread(target=it.serve_forever, daemon=True).start()
        threading.Event().wait()
    said = json.dumps([call(request) for request in json.loads(words[1])], separators=(",", ":"))
    if len(words) > 2:
        Path(words[2]).write_text(said, "utf-8")
    else:
        print(said)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(sys.argv[1:])
