"""Requests as apps make them, through real Envoys: the mix of a cluster that tenants share."""

from __future__ import annotations

import json
import random
from typing import Any, Final, NamedTuple

from locust import FastHttpUser, between, task

from authz.lab.loopback.names import app, idle
from authz.lab.recordings.loopback import ORIGINAL_DESTINATION
from authz.testing import LEAKED, NOT_ALLOWED, Case, Outcome
from authz.wire import REASON_HEADER, TOKEN_HEADER
from loadtest.swarm import changed
from loadtest.swarm.changed import INITECH
from loadtest.swarm.expect import UNTOUCHED
from loadtest.swarm.session import now, record, session

GATEWAY: Final = "gateway"
_WRITTEN: Final = "v1.a.b.c"


class Way(NamedTuple):
    """How requests of one kind go."""

    source: str
    """The namespace whose sidecar they enter, or `GATEWAY`."""
    host: str
    external: bool = False


def _flow(
    name: str, weight: int, source: str, host: str, expected: str, *, external: bool = False
) -> tuple[int, Case[Way]]:
    shows = f"{weight} of 100 requests"
    return weight, Case(name, shows, expected, Way(source, host, external))


FLOWS: Final = [
    _flow("own namespace", 15, "acme-web", app("acme-web"), "200 acme-web"),
    _flow("own namespace, by the hop", 10, "acme-web", idle("acme-web"), "200 acme-web"),
    _flow("sibling", 15, "acme-web", app("acme-db"), "200 acme-db"),
    _flow("sibling, by the hop", 10, "acme-web", idle("acme-db"), "200 acme-db"),
    _flow("granted", 10, INITECH, app("acme-db"), "200 acme-db"),
    _flow("granted, by the hop", 10, INITECH, idle("acme-db"), "200 acme-db"),
    _flow("foreign", 5, "globex", app("acme-db"), NOT_ALLOWED),
    _flow("foreign, by the hop", 5, "globex", idle("acme-db"), NOT_ALLOWED),
    _flow("external", 5, "acme-web", "api.example.org", "200 external", external=True),
    _flow("public", 5, GATEWAY, "hello.acme-web.example.com", "200 acme-web"),
    _flow("public, by the hop", 5, GATEWAY, "idle.acme-web.example.com", "200 acme-web"),
    _flow("public, refused", 5, GATEWAY, "acme-db-mapped.example.com", NOT_ALLOWED),
]


class ThroughEnvoy(FastHttpUser):
    """An app of any tenant, or somebody on the Internet."""

    host = "http://mesh"  # no request uses it: each has the address of a sidecar
    wait_time = between(0.02, 0.08)
    network_timeout = connection_timeout = 10.0

    @task
    def call(self) -> None:
        """Make a request of some kind."""
        weights = [weight for weight, _ in FLOWS]
        ((_, flow),) = random.choices(FLOWS, weights)  # noqa: S311 - a mix
        begun = now()
        seen = self.play(flow)
        expected = changed.expected(flow.call.source, flow.expected, begun, now())
        record(self, "HTTP", flow.name, begun, seen=seen, expected=expected)

    def play(self, case: Case[Way]) -> Outcome:
        """Make the request."""
        way = case.call
        headers = {"Host": way.host}
        if way.external:
            # What the app writes there must not leave the mesh.
            headers |= {ORIGINAL_DESTINATION: session.site["external"], TOKEN_HEADER: _WRITTEN}
        gateway = way.source == GATEWAY
        address = session.site["gateway"] if gateway else session.site["tenants"][way.source]
        # Locust's own session would count what it takes for a failure: we count outcomes.
        answer = self.client._send_request_safe_mode(  # noqa: SLF001
            "GET", f"http://{address}/hello", headers=headers
        )
        return _seen(answer)


def _seen(answer: Any) -> Outcome:
    status: int = answer.status_code
    if not status:
        return Outcome.of(0, repr(answer.error))
    if status != 200:
        return Outcome.of(status, answer.headers.get(REASON_HEADER, ""))
    echoed = json.loads(answer.content)
    arrived = [value for name, value in echoed["headers"] if name == TOKEN_HEADER]
    more = [UNTOUCHED if arrived == [_WRITTEN] else LEAKED] if arrived else []
    return Outcome.of(status, echoed["app"], *more)
