"""Pods of a cluster that nobody started, and what their admin endpoints say."""

from __future__ import annotations

import json
from typing import Any

from tests.doctor.proxies import Bench, Json
from tests.kube_double import ApiDouble


def pod(name: str, *containers: Any, **metadata: Any) -> Json:
    """A running one; a container is its name or the whole of it."""
    namespace, name = name.split("/")
    spec = {"containers": [{"name": it} if isinstance(it, str) else it for it in containers]}
    return {
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": spec,
        "status": {"phase": "Running"},
    }


def answer(dump: Json) -> bytes:
    """As Envoy's admin endpoint gives it."""
    body = json.dumps(dump).encode()
    parts = [body[: len(body) // 2], body[len(body) // 2 :], b""]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%s\r\n" % (len(it), it) for it in parts)


def put(api: ApiDouble, bench: Bench, *names: str) -> None:
    """Proxies that are sound."""
    for it in names:
        api.put("pods", pod(it, "app", "istio-proxy"))
        namespace, name = it.split("/")
        api.ports[namespace, name, 15000] = answer(bench.dump(it, dynamic=True))
