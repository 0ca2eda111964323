"""Events: what Eventing delivers in a namespace's name, and to whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.mesh import Mesh
from authz.lab.box.paths.table import IN, SOURCES, Fate, Relation, asked_of
from authz.lab.world.model import DOMAIN
from authz.lab.world.paths import CHANNEL
from authz.testing import LEAKED, Outcome
from authz.wire import TOKEN_HEADER

TO: Final = "acme-db/hello"
BROKER: Final = "broker"
INGRESS: Final = "knative-eventing/broker-ingress"
DISPATCHER: Final = "knative-eventing/imc-dispatcher"
FILTER: Final = "knative-eventing/broker-filter"
JOB_SINK: Final = "knative-eventing/job-sink"
REQUEST_REPLY: Final = "knative-eventing/request-reply"
PINGSOURCE: Final = "knative-eventing/pingsource"
EVENT: Final = (
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-type", "demo"),
    ("ce-source", "/demo"),
    ("content-type", "text/plain"),
)
_SUBSCRIBER: Final = f"http://hello.acme-db.svc.{DOMAIN}/"
_SINK: Final = f"http://job-sink.knative-eventing.svc.{DOMAIN}/acme-db/jobs"
_HOPS: Final = frozenset({"broker", "channel", "trigger", "job_sink", "request_reply"})


@dataclass(frozen=True)
class Delivery:
    """How an event of a namespace gets to a subscriber."""

    name: str
    way: str
    """In words."""
    send: Callable[[Mesh, str], Awaitable[None]]
    """Sends an event of a namespace's to something private of acme-db's."""
    hops: tuple[tuple[str, str], ...]
    """The pods and filters that ask on the way, but for the sender's sidecar."""
    outcomes: Mapping[Relation, Fate]
    to: str = TO
    """Whose app, or Job, gets it."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions on the way."""
        return tuple(_question(filter_) for _, filter_ in self.hops)

    def expected(self, relation: Relation) -> str:
        """What must be seen: whether it got there, and what was asked."""
        came = "delivered" if self.outcomes[relation] == IN else "not delivered"
        return f"{came}; {', '.join(self.asked)}"


def _question(filter_: str) -> str:
    return "transit" if filter_ in _HOPS else filter_


async def _ping(mesh: Mesh, namespace: str) -> None:
    await mesh.control(PINGSOURCE, "POST", f"/ping/{namespace}", {"sink": _SUBSCRIBER})


async def _to_channel(mesh: Mesh, namespace: str) -> None:
    channel = {"subscribers": [_SUBSCRIBER]}
    await mesh.control(DISPATCHER, "PUT", f"/channels/{namespace}/{CHANNEL}", channel)
    await _post(mesh, namespace, f"http://{CHANNEL}.{namespace}.svc.{DOMAIN}/")


async def _to_sink(mesh: Mesh, namespace: str) -> None:
    await mesh.control(JOB_SINK, "PUT", "/sinks/acme-db/jobs", {})
    await _post(mesh, namespace, _SINK)


async def _to_broker_and_sink(mesh: Mesh, namespace: str) -> None:
    await mesh.control(JOB_SINK, "PUT", "/sinks/acme-db/jobs", {})
    await _to_broker(mesh, namespace, _SINK)


async def _to_request_reply(mesh: Mesh, namespace: str) -> None:
    broker = {"broker": _broker_of(namespace)}
    await mesh.control(REQUEST_REPLY, "PUT", f"/replies/{namespace}/asked", broker)
    to = f"http://request-reply.knative-eventing.svc.{DOMAIN}/{namespace}/asked"
    await _to_broker(mesh, namespace, by=to)


async def _to_broker(
    mesh: Mesh, namespace: str, subscriber: str = _SUBSCRIBER, by: str = ""
) -> None:
    trigger = {"uid": "1", "subscriber": subscriber}
    to_filter = f"http://broker-filter.knative-eventing.svc.{DOMAIN}/triggers/{namespace}/t/1"
    channel = f"http://{CHANNEL}.{namespace}.svc.{DOMAIN}/"
    await mesh.control(FILTER, "PUT", f"/triggers/{namespace}/t", trigger)
    await mesh.control(
        DISPATCHER, "PUT", f"/channels/{namespace}/{CHANNEL}", {"subscribers": [to_filter]}
    )
    await mesh.control(INGRESS, "PUT", f"/brokers/{namespace}/{BROKER}", {"channel": channel})
    await _post(mesh, namespace, by or _broker_of(namespace))


def _broker_of(namespace: str) -> str:
    return f"http://broker-ingress.knative-eventing.svc.{DOMAIN}/{namespace}/{BROKER}"


async def _post(mesh: Mesh, namespace: str, url: str) -> None:
    await mesh.call(f"{namespace}/hello", url, method="POST", headers=EVENT, body=b"event")


_OUTCOMES: Final[dict[Relation, Fate]] = {
    "own": IN,
    "sibling": IN,
    "granted": IN,
    "foreign": "verify not-allowed",
}

_BROKER_HOPS: Final = (
    (INGRESS, "broker"),
    (INGRESS, "sign"),
    (DISPATCHER, "channel"),
    (DISPATCHER, "sign"),
    (FILTER, "trigger"),
    (FILTER, "sign"),
)

DELIVERIES: Final = (
    Delivery("ping", "PingSource → pod", _ping, ((PINGSOURCE, "sign"), (TO, "verify")), _OUTCOMES),
    Delivery(
        "channel",
        "sidecar → channel → pod",
        _to_channel,
        (
            ("sender", "sign"),
            (DISPATCHER, "channel"),
            (DISPATCHER, "sign"),
            (TO, "verify"),
        ),
        _OUTCOMES,
    ),
    Delivery(
        "broker",
        "sidecar → broker → channel → trigger → pod",
        _to_broker,
        (("sender", "sign"), *_BROKER_HOPS, (TO, "verify")),
        _OUTCOMES,
    ),
    Delivery(
        "job-sink",
        "sidecar → JobSink",
        _to_sink,
        (("sender", "sign"), (JOB_SINK, "job_sink")),
        _OUTCOMES | {"foreign": "transit not-allowed"},
        JOB_SINK,
    ),
    Delivery(
        "broker-job-sink",
        "sidecar → broker → channel → trigger → JobSink",
        _to_broker_and_sink,
        (("sender", "sign"), *_BROKER_HOPS, (JOB_SINK, "job_sink")),
        _OUTCOMES | {"foreign": "transit not-allowed"},
        JOB_SINK,
    ),
    Delivery(
        "request-reply",
        "sidecar → RequestReply → broker → channel → trigger → pod",
        _to_request_reply,
        (
            ("sender", "sign"),
            (REQUEST_REPLY, "request_reply"),
            (REQUEST_REPLY, "sign"),
            *_BROKER_HOPS,
            (TO, "verify"),
        ),
        _OUTCOMES,
    ),
)
"""By knative/eventing; broker, channel and RequestReply are the sender's own in all of them."""


async def played(mesh: Mesh, delivery: Delivery, relation: Relation) -> Outcome:
    """Send an event; say whether it was delivered, and what was asked on the way."""
    namespace = SOURCES[relation]
    hops = [(f"{namespace}/hello" if it == "sender" else it, by) for it, by in delivery.hops]
    await mesh.forget(delivery.to)
    before = await asked_of(mesh, [pod for pod, _ in hops])
    try:
        await delivery.send(mesh, namespace)
    except NoAnswer:
        return Outcome.of(0)
    after = await asked_of(mesh, [pod for pod, _ in hops])
    times = Counter(after) - Counter(before)
    asked = [_question(by) for hop, by in hops for _ in range(times[hop, by])]
    seen = await mesh.seen(delivery.to)
    came = Outcome("delivered" if seen else "not delivered")
    more = [LEAKED] if any(it.header(TOKEN_HEADER) for it in seen) else []
    return came.also(*more, asked=asked)
