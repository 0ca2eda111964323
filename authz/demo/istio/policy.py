"""The policy that the box starts with."""

from __future__ import annotations

from typing import Final

POLICY: Final = """\
cluster_domains: [cluster.local]
trust_domains: [cluster.local]
relays:
  - knative-local-gateway.istio-system
  - imc-dispatcher.knative-eventing
default_mode: enforce
roles:
  transit: ["spiffe://cluster.local/ns/knative-serving/sa/activator"]
  gateway: ["spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"]
  on-behalf-of:
    - spiffe://cluster.local/ns/knative-eventing/sa/mt-broker-filter
    - spiffe://cluster.local/ns/knative-eventing/sa/imc-dispatcher
tenants:
  acme: {namespaces: [acme-web, acme-db]}
namespaces:
  acme-db: {public: false}
  umbrella: {mode: shadow}
grants:
  - {to: acme-db, from: initech}
exemptions:
  - {peer: "spiffe://cluster.local/ns/knative-serving/sa/controller", port: 9090, path: /metrics}
  - {peer: "spiffe://cluster.local/ns/monitoring/sa/prometheus", port: 9091, path: /metrics}
"""
