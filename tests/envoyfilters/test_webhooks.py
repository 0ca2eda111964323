"""The API server calls webhooks without an identity of the mesh: only their ports are let be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from authz.envoyfilters import Patches, Proxy, directory, shipped
from tests.envoyfilters.configs import Json, config, http_chain, listener, tcp_chain

SERVING, EVENTING = "knative-serving", "knative-eventing"
IMC = "messaging.knative.dev/channel"
ROLE = "messaging.knative.dev/role"


class Pods(NamedTuple):
    """A Deployment, as far as istiod and the API server see its pods."""

    namespace: str
    labels: dict[str, str]
    port: int


WEBHOOKS = {
    # Serving 1.23, config/core/deployments/webhook.yaml
    "webhook": Pods(SERVING, {"app": "webhook", "role": "webhook"}, 8443),
    # net-istio of 2026-06, config/500-webhook-deployment.yaml
    "net-istio-webhook": Pods(SERVING, {"app": "net-istio-webhook"}, 8443),
    # net-gateway-api of 2026-07, config/400-webhook-deployment.yaml
    "net-gateway-api-webhook": Pods(SERVING, {"app": "net-gateway-api-webhook"}, 8443),
    # net-certmanager of 2024-04, config/webhook-deployment.yaml; part of Serving since 1.15
    "net-certmanager-webhook": Pods(SERVING, {"app": "net-certmanager-webhook"}, 8443),
    # Eventing of 2026-06, config/core/deployments/webhook.yaml; converts CRDs, too
    "eventing-webhook": Pods(EVENTING, {"app": "eventing-webhook"}, 8443),
    # the same, config/channels/in-memory-channel/deployments/controller.yaml
    "imc-controller": Pods(EVENTING, {IMC: "in-memory-channel", ROLE: "controller"}, 8443),
    # eventing-kafka-broker, control-plane/config/eventing-kafka-broker/200-webhook/500-webhook.yaml
    "kafka-webhook-eventing": Pods(EVENTING, {"app": "kafka-webhook-eventing"}, 8443),
    # cert-manager's chart of 2026-08, templates/webhook-deployment.yaml
    "cert-manager": Pods(
        "cert-manager",
        {"app.kubernetes.io/name": "webhook", "app.kubernetes.io/component": "webhook"},
        10250,
    ),
}
"""Each of Knative, and of what it brings, whose pods may have a sidecar; and where that is said."""

OTHERS = {
    # the same port, and there it is for events in TLS
    "broker-ingress": Pods(EVENTING, {"eventing.knative.dev/brokerRole": "ingress"}, 8443),
    "broker-filter": Pods(EVENTING, {"eventing.knative.dev/brokerRole": "filter"}, 8443),
    "imc-dispatcher": Pods(EVENTING, {IMC: "in-memory-channel", ROLE: "dispatcher"}, 8443),
    "job-sink": Pods(EVENTING, {"sinks.knative.dev/sink": "job-sink"}, 8443),
    "activator": Pods(SERVING, {"app": "activator"}, 8443),
    # a tenant that calls itself so
    "impostor": Pods("mallory", {"app": "webhook", ROLE: "controller"}, 8443),
}


def component() -> list[Json]:
    """What only installs with sidecars in cert-manager's namespace take."""
    file = directory() / "components" / "cert-manager" / "webhooks.yaml"
    return list(YAML(typ="safe").load_all(file))


def documents() -> list[Json]:
    return [*shipped(), *component()]


def inbound(port: int) -> Json:
    """Chains of virtualInbound as istiod makes them: of no Service, the webhook's, others."""

    def to(number: int) -> Json:
        return {"name": f"0.0.0.0_{number}", "filter_chain_match": {"destination_port": number}}

    router = "envoy.filters.http.router"
    return listener(
        "virtualInbound",
        http_chain(router, name="virtualInbound-catchall-http"),
        tcp_chain(name="virtualInbound"),
        tcp_chain(**to(port)),
        http_chain(router, **to(9090)),
        http_chain(router, **to(8080)),
        tcp_chain(**to(5000)),
    )


def asked(pods: Pods) -> dict[str, bool]:
    """Of each chain, whether somebody is asked there."""
    proxy = Proxy("sidecar", pods.namespace, pods.labels)
    patched = Patches.of(documents()).applied(proxy, config(inbound(pods.port)))
    (made,) = patched["static_resources"]["listeners"]
    questions = {"tenant-authz.tcp", "tenant-authz.verify", "tenant-authz.transit"}
    return {
        chain["name"]: bool(questions & set(names(chain["filters"])))
        for chain in made["filter_chains"]
    }


def names(filters: list[Json]) -> Iterator[str]:
    for it in filters:
        yield it["name"]
        yield from names(it["typed_config"].get("http_filters", []))


@pytest.mark.parametrize("name", WEBHOOKS)
def test_nobody_is_asked_on_a_webhook_s_port_and_everywhere_else(name: str) -> None:
    pods = WEBHOOKS[name]
    found = asked(pods)
    assert found.pop(f"0.0.0.0_{pods.port}") is False
    assert len(found) == 5
    assert all(found.values())


@pytest.mark.parametrize("name", OTHERS)
def test_that_port_of_others_is_asked_about(name: str) -> None:
    assert all(asked(OTHERS[name]).values())


@pytest.mark.parametrize("name", WEBHOOKS)
def test_the_api_server_can_connect_where_mutual_tls_is_strict(name: str) -> None:
    pods = WEBHOOKS[name]
    of_pods = [
        document["spec"]["portLevelMtls"]
        for document in documents()
        if document["kind"] == "PeerAuthentication"
        and document["metadata"]["namespace"] == pods.namespace
        and document["spec"]["selector"]["matchLabels"].items() <= pods.labels.items()
    ]
    assert of_pods == [{str(pods.port): {"mode": "PERMISSIVE"}}]  # istiod takes one, the oldest
    assert all("mtls" not in it["spec"] for it in documents() if "selector" in it["spec"])
