"""initech, which acme-db and acme-web have granted one port of their pods, tries all else."""

from __future__ import annotations

from typing import Final

from authz.testing import NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import TTL, call, eventing, past, post, signed, sinks, steered, wakes
from tests.attacks.box import Action
from tests.attacks.row import Attack, Played
from tests.attacks.rows.eventing import BROKER, CHANNEL, JOBS, REPLY, SINK, SINK_TWIN
from tests.attacks.rows.eventing import TWIN as EVENT_TWIN

ACTIVATOR: Final = "the activator is asked on the port on which it would call the pod"
BY_PATH: Final = "a grant for a port is for no event: no pod asks again"
TOKEN: Final = signed("initech/hello", "idle-00001.acme-db")
WOKEN: Final = Played(
    wakes(call("acme-web/plain", "http://idle.acme-db/")), "200 acme-db/idle, woken"
)


def _wakes(name: str, does: str, action: Action) -> Attack:
    return Attack(
        f"port-{name}",
        does,
        f"transit: {ACTIVATOR}",
        Played(wakes(action), f"{NOT_ALLOWED}, asleep"),
        WOKEN,
        rules.PORT_OF_THE_ACTIVATOR,
        f"{NOT_ALLOWED}, woken",
    )


def _event(name: str, does: str, action: Action, twin: Played, gets: str) -> Attack:
    expected = f"{NOT_ALLOWED}, 0 events"
    attack = Played(action, expected)
    return Attack(
        f"port-{name}", does, f"transit: {BY_PATH}", attack, twin, rules.PORT_OF_EVENTS, gets
    )


ROWS: Final = [
    _wakes(
        "woken",
        "calls a scaled-to-zero service, to wake pods that then deny it",
        call("initech/hello", "http://idle.acme-db/"),
    ),
    _wakes(
        "woken-by-header",
        "the same, and tells the activator itself whom to wake",
        past(
            "initech/hello",
            "knative-serving/activator:8012",
            headers=steered("acme-db"),
            token=TOKEN,
        ),
    ),
    _wakes(
        "woken-by-gateway",
        "the same through the local gateway",
        past(
            "initech/hello",
            "istio-system/gateway:8081",
            host="idle.acme-db.svc.cluster.local",
            token=TOKEN,
        ),
    ),
    Attack(
        "port-other",
        "another port of the same pod",
        "verify: the port is the pod's own",
        Played(
            past(
                "initech/hello",
                "acme-db/hello:8012",
                token=signed("initech/hello", "hello-00001.acme-db"),
            ),
            NOT_ALLOWED,
        ),
        Played(past("initech/hello", "acme-db/hello:9091", path="/metrics"), "200"),
        rules.ANY_PORT,
        "200 acme-db/hello",
    ),
    _event(
        "broker",
        "sends an event to the broker of a namespace that granted it a port",
        eventing(post("initech/hello", f"{BROKER}/acme-web/default")),
        EVENT_TWIN,
        "202, 1 events",
    ),
    _event(
        "channel",
        "the same to its channel",
        eventing(post("initech/hello", CHANNEL.format("acme-web"), TTL)),
        EVENT_TWIN,
        "202, 1 events",
    ),
    _event(
        "job-sink",
        "the same to its JobSink",
        eventing(sinks(post("initech/hello", f"{SINK}/acme-web/jobs")), JOBS),
        SINK_TWIN,
        "202, 1 events",
    ),
    _event(
        "request-reply",
        "the same to its RequestReply",
        eventing(sinks(post("initech/hello", f"{REPLY}/acme-web/asked"))),
        EVENT_TWIN,
        "200, 1 events",
    ),
]
