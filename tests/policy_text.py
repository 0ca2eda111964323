"""A policy file that uses every field."""

ACTIVATOR = "spiffe://cluster.local/ns/knative-serving/sa/activator"

MONITOR = "spiffe://cluster.local/ns/monitoring/sa/prometheus"

WHOLE = f"""\
# Who belongs together, and who may reach whom.
cluster_domains: [cluster.local, corp.example]
trust_domains: [cluster.local, old_domain]
relays: [knative-local-gateway.istio-system]
default_mode: shadow
default_public: false
route_owners: [ops]
host_templates: ["{{{{.Name}}}}.{{{{.Namespace}}}}.example.com"]
roles:
  transit: ["{ACTIVATOR}"]
  gateway: ["{ACTIVATOR}", "spiffe://old_domain/ns/istio-system/sa/gateway"]
  on-behalf-of: []
tenants:
  acme:
    namespaces: [shop, shop-db]
    mode: enforce
  other: {{namespaces: []}}
namespaces:
  shop-db: {{public: false, mode: off}}
  legacy: {{plaintext_peers: true, reuse: false}}
  web: {{public: [hello, api]}}
  open: {{public: true}}
grants:
  - {{to: shop, from: partner}}
  - {{to: shop, from: "*", service_account: robot, port: 8080, until: 2027-01-31}}
exemptions:
  - {{peer: "{MONITOR}", port: 9090, path: /metrics, user_agent: Prometheus/, network_probe: probe}}
hosts:
  shop.example: shop
"""
