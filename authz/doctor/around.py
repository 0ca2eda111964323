"""What stands around the proxies and takes from them or leads past them: as its objects say.

Sources: admissionregistration.k8s.io/v1, apiextensions.k8s.io/v1 and apiregistration.k8s.io/v1 for
what the API server calls; Knative Serving's config/core/configmaps/autoscaler.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from authz.doctor.dump import Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import labelled
from authz.wire import UPSTREAM

_STATISTICS: Final = "%UPSTREAM_CLUSTER%"
_HOPS: Final[Mapping[str, frozenset[str]]] = {
    "eventing.knative.dev/brokerRole": frozenset({"ingress", "filter"}),
    "eventing.knative.dev/part-of": frozenset({"request-reply"}),
    "messaging.knative.dev/role": frozenset({"dispatcher"}),
    "sinks.knative.dev/sink": frozenset({"job-sink", "integration-sink"}),
    "app": frozenset({"kafka-broker-receiver", "kafka-channel-receiver", "kafka-sink-receiver"}),
}
"""Labels of what passes tenants' events on by the path of a request."""
_EVENTING: Final = "knative-eventing"
_ALWAYS: Final = "-1"


class Called(NamedTuple):
    """A Service that the API server calls, without an identity of the mesh."""

    by: str
    namespace: str
    name: str
    port: int
    on_failure: str
    """What happens when it cannot."""


def hops(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """A hop of everybody's events for which no filter of ours asks where they go."""
    proxy = workload.proxy
    if proxy.namespace != _EVENTING or proxy.kind != "sidecar":
        return
    labels = [it for it, values in _HOPS.items() if proxy.labels.get(it) in values]
    if labels and not expected.asks("transit", proxy):
        what = f"{labels[0]}={proxy.labels[labels[0]]}: no EnvoyFilter asks `transit` here"
        yield Finding(workload.name, "pod", what, Rule.HOP)


def opened(workload: Workload, expected: Expected) -> frozenset[int]:
    """Ports on which whoever has no identity of the mesh reaches the app unasked."""
    return frozenset(
        port
        for listener in workload.listeners
        if listener.get("traffic_direction") == "INBOUND"
        for _, chain in labelled(listener)
        if "transport_socket" not in chain
        and (port := chain.get("filter_chain_match", {}).get("destination_port", 0))
        and expected.asking.isdisjoint(it.get("name") for it in chain.get("filters", ()))
    )


def called(
    webhooks: Iterable[Json], definitions: Iterable[Json], services: Iterable[Json]
) -> Iterator[Called]:
    """What the API server calls.

    Args:
        webhooks: Validating- and MutatingWebhookConfigurations.
        definitions: CustomResourceDefinitions.
        services: APIServices.
    """
    for it in webhooks:
        for hook in it.get("webhooks") or ():
            by = f"webhook {hook['name']} of {it['metadata']['name']}"
            yield from _service(by, hook["clientConfig"], hook.get("failurePolicy", "Fail"))
    for it in definitions:
        conversion = ((it.get("spec") or {}).get("conversion") or {}).get("webhook") or {}
        by = f"the conversion of {it['metadata']['name']}"
        yield from _service(by, conversion.get("clientConfig") or {}, "Fail")
    for it in services:
        yield from _service(f"APIService {it['metadata']['name']}", it.get("spec") or {}, "Fail")


def _service(by: str, config: Json, on_failure: str) -> Iterator[Called]:
    if it := config.get("service"):
        yield Called(by, it["namespace"], it["name"], it.get("port", 443), on_failure)


def unreachable(
    calls: Iterable[Called],
    services: Iterable[Json],
    pods: Iterable[Json],
    free: Mapping[str, frozenset[int]],
) -> Iterator[Finding]:
    """Those for which a pod has a sidecar that denies the API server.

    Args:
        calls: whom it calls.
        services: all Services.
        pods: all pods, see `pods.slim`.
        free: `opened` of each pod whose proxy was examined, by `namespace/pod`.
    """
    by_name = {(it["metadata"]["namespace"], it["metadata"]["name"]): it for it in services}
    by_space: dict[str, list[Json]] = {}
    for it in pods:
        by_space.setdefault(it["metadata"]["namespace"], []).append(it)
    for call in calls:
        spec = by_name.get((call.namespace, call.name), {}).get("spec") or {}
        selector = spec.get("selector") or {}
        target = next((it for it in spec.get("ports") or () if it["port"] == call.port), None)
        if not selector or target is None:
            continue
        for pod in by_space.get(call.namespace, ()):
            name = f"{call.namespace}/{pod['metadata']['name']}"
            labels = pod["metadata"].get("labels") or {}
            if name in free and selector.items() <= labels.items():
                port = _port(pod, target.get("targetPort", call.port))
                if port is not None and port not in free[name]:
                    what = f"{call.by} calls it, failurePolicy {call.on_failure}"
                    yield Finding(name, f"port {port}", what, Rule.WEBHOOK)


def _port(pod: Json, target: int | str) -> int | None:
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for it in container.get("ports") or ():
            if it.get("name") == target:
                number: int = it["containerPort"]
                return number
    return None


def copies(envoy_filters: Iterable[Json]) -> Iterator[Finding]:
    """EnvoyFilters that send us the name for statistics, in which there is no destination."""
    for it in envoy_filters:
        text = json.dumps(it.get("spec"))
        if f'"{UPSTREAM}"' in text and _STATISTICS in text:
            name = f"{it['metadata']['namespace']}/{it['metadata']['name']}"
            what = f"it sends {_STATISTICS} as {UPSTREAM}"
            yield Finding(name, "EnvoyFilter", what, Rule.UPSTREAM)


def notes(autoscaler: Iterable[Json]) -> Iterator[str]:
    """What is no hole and good to know; `autoscaler` is Knative's ConfigMap of that name."""
    for it in autoscaler:
        said: Any = (it.get("data") or {}).get("target-burst-capacity", "211, the default")
        if said != _ALWAYS:
            yield (
                f"target-burst-capacity is {said}: while there is room, requests pass Knative's "
                "activator by, pods alone judge them, and Services' endpoints change with each of "
                'their pods; deploy/platform/knative sets "-1"'
            )
