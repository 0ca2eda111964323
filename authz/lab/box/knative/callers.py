"""Requests that the platform itself makes to a tenant's pod or to a gateway.

`python -m authz.lab.box.knative.callers WHICH URL` makes one, and prints what it took it for:
JSON {"status", "headers", "body", "verdict"}; a status of 0 is no answer. WHICH is one of

    autoscaler    the scrape of port 9090; verdict: whether there are metrics
    scaler        the probe before it scales to zero; verdict: whether the activator answers
    activator     the probe before a request is forwarded; ready, mesh (502, 503) or not ready
    prober        net-istio's status prober; ready or not ready
    kubelet       an HTTP probe; success or failure
    prometheus    a scrape; up or down
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from authz.lab.box.knative.command import parser
from authz.lab.box.knative.messages import Headers, Request, Response
from authz.lab.box.knative.net import address, call

GO_AGENT: Final = "Go-http-client/1.1"
"""net/http request.go: defaultUserAgent, where a program sets none."""

_GO: Final = [("user-agent", GO_AGENT), ("accept-encoding", "gzip")]
_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Caller:
    """A request's headers, and what its sender makes of the answer."""

    headers: list[tuple[str, str]]
    verdict: Callable[[Response, bytes], str]


def _scraped(response: Response, _content: bytes) -> str:
    protobuf = response.headers.get("content-type") == "application/protobuf"
    return "metrics" if 200 <= response.status < 300 and protobuf else "no metrics"


def _scaler(response: Response, content: bytes) -> str:
    return "ready" if response.status == 200 and content == b"activator" else "not ready"


def _activator(response: Response, content: bytes) -> str:
    if response.status == 200 and content == b"queue":
        return "ready"
    return "mesh" if response.status in {502, 503} else "not ready"


def _prober(response: Response, _content: bytes) -> str:
    if response.status == 200:
        hash_seen = response.headers.get("k-network-hash")
        return "not ready" if hash_seen == "override" else "ready"
    return "not ready" if response.status in {404, 503} else "ready"


CALLERS: Final = {
    # knative/serving pkg/autoscaler/metrics/http_scrape_client.go: Do
    "autoscaler": Caller([*_GO, ("accept", "application/protobuf")], _scraped),
    # knative/serving pkg/reconciler/autoscaling/kpa/scaler.go: probeOptions
    "scaler": Caller(
        [
            ("user-agent", "Knative-Autoscaling-Probe"),
            ("k-network-probe", "activator"),
            ("accept-encoding", "gzip"),
        ],
        _scaler,
    ),
    # knative/serving pkg/activator/net/revision_backends.go: probe
    "activator": Caller(
        [
            ("user-agent", "Knative-Activator-Probe"),
            ("k-network-probe", "queue"),
            ("accept-encoding", "gzip"),
        ],
        _activator,
    ),
    # knative/networking pkg/status/status.go: processWorkItem, probeVerifier. An `override` that
    # comes back was not replaced by any route, so it is not the expected hash.
    "prober": Caller(
        [
            ("user-agent", "Knative-Ingress-Probe"),
            ("k-network-probe", "probe"),
            ("k-network-hash", "override"),
            ("accept-encoding", "gzip"),
        ],
        _prober,
    ),
    # kubernetes pkg/probe/http/request.go, http.go
    "kubelet": Caller(
        [("user-agent", "kube-probe/1.33"), ("accept", "*/*"), ("connection", "close")],
        lambda response, _: "success" if 200 <= response.status < 400 else "failure",
    ),
    # prometheus scrape/scrape.go: targetScraper.scrape
    "prometheus": Caller(
        [
            ("user-agent", "Prometheus/3.5.0"),
            ("accept", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            ("accept-encoding", "gzip"),
            ("x-prometheus-scrape-timeout-seconds", "10"),
        ],
        lambda response, _: "up" if response.status == 200 else "down",
    ),
}


def request_for(url: str, *, via: str | None = None, method: str = "GET") -> tuple[str, Request]:
    """Where to connect to, and what to ask for there, for an `http` URL.

    Raises:
        ValueError: it is not such a URL, or `via` is not host:port.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host[:port][/path]")
    where = via or f"{parts.hostname}:{parts.port or 80}"
    address(where)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return where, Request(method, target, parts.netloc)


async def make(which: str, url: str, *, via: str | None = None, host: str = "") -> dict[str, Any]:
    """Make a caller's request, once.

    Raises:
        ValueError: see `request_for`.
    """
    where, request = request_for(url, via=via)
    request.host = host or request.host
    request.headers = Headers(CALLERS[which].headers)
    try:
        async with asyncio.timeout(_SECONDS):
            response, content = await call(where, request)
    except (OSError, TimeoutError) as problem:
        return {"status": 0, "headers": [], "body": repr(problem), "verdict": "no answer"}
    return {
        "status": response.status,
        "headers": response.headers,
        "body": content.decode(errors="replace"),
        "verdict": CALLERS[which].verdict(response, content),
    }


def _options() -> argparse.Namespace:
    options = parser("callers", __doc__)
    options.add_argument("which", choices=sorted(CALLERS))
    options.add_argument("url", help="http://host[:port][/path]")
    options.add_argument("--via", metavar="HOST:PORT", help="connect there, whatever the URL says")
    options.add_argument("--host", default="", help="the Host header, if not the URL's")
    return options.parse_args()


if __name__ == "__main__":
    asked = _options()
    answer = asyncio.run(make(asked.which, asked.url, via=asked.via, host=asked.host))
    sys.stdout.write(json.dumps(answer) + "\n")
