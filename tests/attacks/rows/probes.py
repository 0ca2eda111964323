"""Requests through the gateway that look like Knative's probes, to an app that would see them.

acme-db takes nothing from outside, but its app `legacy` is on queue-proxy's port, without one.
"""

from __future__ import annotations

from typing import Any, Final

from authz.testing import NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import call, shown
from tests.attacks.box import Action, Without
from tests.attacks.row import Attack, Played

AGENT: Final = ("User-Agent", "Knative-Ingress-Probe")
MARK: Final = ("K-Network-Probe", "probe")
HASH: Final = ("K-Network-Hash", "x")


def _probe(
    host: str, path: str = "/healthz", *, headers: Any = (AGENT, MARK), **how: Any
) -> Action:
    url = f"http://{host}.example.com{path}"
    return call("outside/server", url, headers=[*headers, HASH], **how)


def _row(
    name: str,
    does: str,
    stopped_by: str,
    action: Action,
    without: Without,
    *,
    gets: str = "200",
) -> Attack:
    return Attack(
        f"probe-{name}",
        does,
        stopped_by,
        Played(shown(action, "acme-db/legacy"), f"{NOT_ALLOWED}, not seen"),
        Played(shown(_probe("slip"), "acme-db/hello"), "200, not seen"),
        without,
        f"{gets}, seen",
    )


ANSWERS: Final = "verify: the filter tells the pod's containers, and queue-proxy is none of them"
ONLY: Final = "verify: a probe is what the prober sends, method, path and headers together"

ROWS: Final = [
    _row(
        "app",
        "sends all of the ingress prober's probe to an app without queue-proxy",
        ANSWERS,
        _probe("legacy"),
        rules.QUEUE_PROXY,
    ),
    _row(
        "app-http2",
        "the same with HTTP/2",
        ANSWERS,
        _probe("legacy", http2=True),
        rules.QUEUE_PROXY,
    ),
    _row(
        "post",
        "the same with another method",
        ONLY,
        _probe("legacy", method="POST"),
        rules.probe_and("a probe has any method, and a body"),
    ),
    _row(
        "body",
        "the same with a body",
        f"{ONLY}, and no body",
        _probe("legacy", body=b"x"),
        rules.probe_and("a probe has any method, and a body"),
    ),
    _row(
        "path",
        "the same with another path",
        ONLY,
        _probe("legacy", "/admin"),
        rules.probe_and("a probe has any path"),
        gets="200 acme-db/legacy",
    ),
    _row(
        "agent",
        "the same by the header alone",
        ONLY,
        _probe("legacy", headers=[MARK]),
        rules.probe_and("a probe has any agent"),
    ),
    _row(
        "mark",
        "the same by the agent alone",
        ONLY,
        _probe("legacy", headers=[AGENT]),
        rules.probe_and(
            "a probe is one by its agent",
            "a probe has any method, and a body",
            "a probe has any path",
        ),
    ),
]
