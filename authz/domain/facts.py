"""What is asked: one of five questions, and the facts that come with it.

Who asks is proven by mTLS. All else in the facts is said by the asking proxy or its client, and
is used so that a lie hurts only whoever tells it.
"""

import enum
from typing import Final, NamedTuple

from authz.domain.identity import SpiffeId


class Question(enum.StrEnum):
    """What a filter asks, in the metadata `x-authz-question`."""

    SIGN = "sign"
    VERIFY = "verify"
    TRANSIT = "transit"
    PUBLIC = "public"
    TCP = "tcp"


class Hop(enum.StrEnum):
    """How the hop that asks `transit` chooses where a request goes, in `x-authz-hop`."""

    GATEWAY = "gateway"
    """By route: the namespace of the upstream cluster."""
    ACTIVATOR = "activator"
    """By Knative-Serving-Namespace if -Revision is there too, else by Host."""
    BROKER = "broker"
    """By the first segment of the path: Eventing's broker-ingress."""
    TRIGGER = "trigger"
    """By the second segment of the path, behind `triggers`: Eventing's broker-filter."""
    CHANNEL = "channel"
    """By the first segment of the path, by Host if there is none: Eventing's channel dispatcher."""
    JOB_SINK = "job-sink"
    """By a segment of the path, which one its length tells: Eventing's job-sink."""
    REQUEST_REPLY = "request-reply"
    """By the first segment of the path: Eventing's request-reply."""


BY_PATH: Final = frozenset({Hop.BROKER, Hop.TRIGGER, Hop.CHANNEL, Hop.JOB_SINK, Hop.REQUEST_REPLY})
"""Hops that choose by the path, which nobody looks at when a token is made for the way to them."""


class Asked(NamedTuple):
    """What the connection of a Check and its metadata say."""

    caller: SpiffeId | None
    """Who asks, proven by mTLS; `None`: nobody."""
    question: Question | None = None
    """`None` where it is missing, repeated or unknown."""
    hop: Hop | None = None
    upstream: str | None = None
    """The cluster that Envoy chose (`x-authz-upstream`); `None` outside Istio."""
    forwarded: bool = False
    """Whether a proxy passed the Check on, as a request of somebody else's."""
    queue_proxy: bool = False
    """Whether the asking pod has Knative's queue-proxy, which answers probes itself."""
    trace: str = ""
    """The trace that the Check is part of (`traceparent`), as it came; for the log only."""


class Facts(NamedTuple):
    """All that a decision may look at, parsed and not yet believed.

    Header fields that are tuples hold every value that was sent; the others are joined by a
    comma, as Envoy joins them. What is absent is empty.
    """

    caller: SpiffeId
    hop: Hop | None = None
    upstream: str | None = None
    virtual_service: str = ""
    """The route's `istio.config` metadata."""
    principal: str = ""
    """The peer of the request's connection, proven by mTLS to the caller; empty on plaintext."""
    port: int = 0
    """Where the request arrived."""
    host: str = ""
    path: str = ""
    tokens: tuple[str, ...] = ()
    user_agent: str = ""
    network_probe: str = ""
    kn_namespace: tuple[str, ...] = ()
    serving_namespace: tuple[str, ...] = ()
    serving_revision: tuple[str, ...] = ()
    forwarded: bool = False
    """Whether a proxy passed the question on, whose certificate is then the caller's."""
    queue_proxy: bool = False
    """Whether the asking pod has Knative's queue-proxy."""
    method: str = ""
    """Of a request with K-Network-Probe that announces no body; else empty."""

    def __repr__(self) -> str:
        """Without the tokens."""
        return f"Facts(caller={self.caller}, principal={self.principal!r}, host={self.host!r})"
