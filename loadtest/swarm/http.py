"""Requests as apps make them, through real Envoys: the mix of a cluster that tenants share."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Final

from locust import FastHttpUser, between, task

from authz.lab.loopback.names import app, idle
from authz.lab.loopback.scenarios.row import NOT_ALLOWED
from authz.lab.recordings.loopback import ORIGINAL_DESTINATION
from authz.wire import REASON_HEADER, TOKEN_HEADER
from loadtest.swarm import changed
from loadtest.swarm.changed import INITECH
from loadtest.swarm.expect import LEAKED, UNTOUCHED
from loadtest.swarm.session import now, record, session

GATEWAY: Final = "gateway"
_WRITTEN: Final = "v1.a.b.c"


@dataclass(frozen=True)
class Flow:
    """Requests of one kind."""

    name: str
    weight: int
    source: str
    """The namespace whose sidecar they enter, or `GATEWAY`."""
    host: str
    expected: str
    external: bool = False


FLOWS: Final = [
    Flow("own namespace", 15, "acme-web", app("acme-web"), "200 acme-web"),
    Flow("own namespace, by the hop", 10, "acme-web", idle("acme-web"), "200 acme-web"),
    Flow("sibling", 15, "acme-web", app("acme-db"), "200 acme-db"),
    Flow("sibling, by the hop", 10, "acme-web", idle("acme-db"), "200 acme-db"),
    Flow("granted", 10, INITECH, app("acme-db"), "200 acme-db"),
    Flow("granted, by the hop", 10, INITECH, idle("acme-db"), "200 acme-db"),
    Flow("foreign", 5, "globex", app("acme-db"), NOT_ALLOWED),
    Flow("foreign, by the hop", 5, "globex", idle("acme-db"), NOT_ALLOWED),
    Flow("external", 5, "acme-web", "api.example.org", "200 external", external=True),
    Flow("public", 5, GATEWAY, "hello.acme-web.example.com", "200 acme-web"),
    Flow("public, by the hop", 5, GATEWAY, "idle.acme-web.example.com", "200 acme-web"),
    Flow("public, refused", 5, GATEWAY, "acme-db-mapped.example.com", NOT_ALLOWED),
]


class ThroughEnvoy(FastHttpUser):
    """An app of any tenant, or somebody on the Internet."""

    host = "http://mesh"  # no request uses it: each has the address of a sidecar
    wait_time = between(0.02, 0.08)
    network_timeout = connection_timeout = 10.0

    @task
    def call(self) -> None:
        """Make a request of some kind."""
        (flow,) = random.choices(FLOWS, [flow.weight for flow in FLOWS])  # noqa: S311 - a mix
        headers = {"Host": flow.host}
        if flow.external:
            # What the app writes there must not leave the mesh.
            headers |= {ORIGINAL_DESTINATION: session.site["external"], TOKEN_HEADER: _WRITTEN}
        address = (
            session.site["gateway"]
            if flow.source == GATEWAY
            else session.site["tenants"][flow.source]
        )
        begun = now()
        # Locust's own session would count what it takes for a failure: we count outcomes.
        answer = self.client._send_request_safe_mode(  # noqa: SLF001
            "GET", f"http://{address}/hello", headers=headers
        )
        seen = _seen(answer)
        expected = changed.outcome(flow.source, flow.expected, begun, now())
        record(self, "HTTP", flow.name, begun, seen=seen, expected=expected)


def _seen(answer: Any) -> str:
    """The outcome, in the words of `authz demo`."""
    status: int = answer.status_code
    if not status:
        return f"no answer: {answer.error!r}"
    if status != 200:
        return f"{status} {answer.headers.get(REASON_HEADER, '')}".rstrip()
    echoed = json.loads(answer.content)
    seen = f"200 {echoed['app']}"
    match [value for name, value in echoed["headers"] if name == TOKEN_HEADER]:
        case []:
            return seen
        case [value] if value == _WRITTEN:
            return f"{seen}, {UNTOUCHED}"
    return f"{seen}, {LEAKED}"
