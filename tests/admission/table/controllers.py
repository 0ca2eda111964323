"""Attacks on what controllers write: addresses of Services, what Knative's parts believe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.admission.rows import EVENTING, IMC, KAFKA, SERVING, Account, Json, Row, changed, thing

_POLICY: Final = "tenant-authz-controllers"
ENDPOINTS: Final = Account.of("kube-system", "endpointslice-controller")
KUBE: Final = Account("system:kube-controller-manager")

ADDRESSES: Final = {
    "a pod of another's": ("IPv4", "10.244.0.9"),
    "another's Service": ("IPv4", "10.96.7.7"),
    "a pod of another's, IPv6": ("IPv6", "fd00::9"),
    "another's Service by name": ("FQDN", "db.victim-db.svc.cluster.local"),
}
_VICTIM: Final = {"url": "http://db.victim-db.svc.cluster.local"}


def slice_(kind: str, address: str) -> Json:
    """Addresses of the Service `web`."""
    made = thing(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "web-1",
        addressType=kind,
        endpoints=[{"addresses": [address]}],
        ports=[{"port": 80}],
    )
    made["metadata"]["labels"] = {"kubernetes.io/service-name": "web"}
    return made


def _addresses() -> Iterator[Row]:
    for name, (kind, address) in ADDRESSES.items():
        evil = slice_(kind, address)
        yield Row(f"EndpointSlice: {name}", _POLICY, "endpointslices", evil, twin_by=ENDPOINTS)
    own = changed(slice_("IPv4", "10.244.0.5"), {"metadata name": "old"})
    yield Row(
        "EndpointSlice: another's pod, later",
        _POLICY,
        "endpointslices",
        {"endpoints": [{"addresses": ["10.244.0.9"]}]},
        old=own,
        twin_by=KUBE,
    )
    subsets = [{"addresses": [{"ip": "10.244.0.9"}], "ports": [{"port": 80}]}]
    endpoints = thing("v1", "Endpoints", "web", subsets=subsets)
    yield Row("Endpoints: another's pod", _POLICY, "endpoints", endpoints, twin_by=SERVING)


STATUSES: Final[list[tuple[str, str, Account, Json]]] = [
    ("messaging.knative.dev/v1", "InMemoryChannel", IMC, {"status address": _VICTIM}),
    ("messaging.knative.dev/v1", "Channel", EVENTING, {"status address": _VICTIM}),
    (
        "messaging.knative.dev/v1",
        "Subscription",
        EVENTING,
        {"status physicalSubscription": {"subscriberUri": _VICTIM["url"]}},
    ),
    (
        "eventing.knative.dev/v1",
        "Broker",
        EVENTING,
        {"status annotations": {"knative.dev/channelAddress": _VICTIM["url"]}},
    ),
    ("eventing.knative.dev/v1", "Trigger", EVENTING, {"status subscriberUri": _VICTIM["url"]}),
    ("sinks.knative.dev/v1alpha1", "JobSink", EVENTING, {"status address": _VICTIM}),
    ("sources.knative.dev/v1", "PingSource", EVENTING, {"status sinkUri": _VICTIM["url"]}),
    ("flows.knative.dev/v1", "Sequence", EVENTING, {"status address": _VICTIM}),
    ("bindings.knative.dev/v1", "SinkBinding", EVENTING, {"status sinkUri": _VICTIM["url"]}),
    ("serving.knative.dev/v1", "Route", SERVING, {"status address": _VICTIM}),
    ("serving.knative.dev/v1", "Revision", SERVING, {"status containerStatuses": []}),
]

INTERNAL: Final[list[tuple[str, str, Account]]] = [
    ("networking.internal.knative.dev/v1alpha1", "Ingress", SERVING),
    ("networking.internal.knative.dev/v1alpha1", "ServerlessService", SERVING),
    ("networking.internal.knative.dev/v1alpha1", "Certificate", SERVING),
    ("autoscaling.internal.knative.dev/v1alpha1", "PodAutoscaler", SERVING),
    ("caching.internal.knative.dev/v1alpha1", "Image", SERVING),
    ("internal.kafka.eventing.knative.dev/v1alpha1", "ConsumerGroup", KAFKA),
]


def _written() -> Iterator[Row]:
    for version, kind, account, change in STATUSES:
        old = thing(version, kind, "web", spec={})
        yield Row(
            f"status of a {kind}",
            _POLICY,
            "/status: ",
            change,
            None,
            old,
            "status",
            twin_by=account,
        )
    for version, kind, account in INTERNAL:
        made = thing(version, kind, "web", spec={"rules": []})
        yield Row(f"a {kind} of Knative's own", _POLICY, "use the kinds", made, twin_by=account)
        old, change = changed(made, {"metadata name": "old"}), {"status x": "y"}
        yield Row(
            f"status of a {kind}",
            _POLICY,
            "/status: ",
            change,
            None,
            old,
            "status",
            twin_by=account,
        )


ROWS: Final = [*_addresses(), *_written()]
