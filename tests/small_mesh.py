"""A small mesh to decide about: who is in it, and its policy."""

from typing import Any

from authz.domain import tokens
from authz.domain.decision import Rules
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace, Service
from authz.domain.policy import (
    EVERYONE,
    Exemption,
    Grant,
    Mode,
    NamespacePolicy,
    Policy,
    Role,
)
from authz.testing import NOW, root_key, workload

ACTIVATOR = workload("knative-serving", "activator")

GATEWAY = workload("istio-system", "gateway")

EVENTING = workload("knative-eventing", "mt-broker-filter")

PROMETHEUS = workload("monitoring", "prometheus")

AUTOSCALER = workload("knative-serving", "controller")

WEB, DB = workload("acme-web"), workload("acme-db")  # one tenant

FOREIGN, PARTNER = workload("globex"), workload("initech")

N = Namespace

POLICY = Policy(
    relays=frozenset({Service("local-gateway", N("istio-system"))}),
    namespaces={
        N("acme-web"): NamespacePolicy(tenant="acme"),
        N("acme-db"): NamespacePolicy(tenant="acme", accepts_public=False),
        N("umbrella"): NamespacePolicy(mode=Mode.SHADOW),
        N("carefree"): NamespacePolicy(mode=Mode.OFF),
        N("legacy"): NamespacePolicy(plaintext_peers=True),
    },
    grants=(
        Grant(N("acme-db"), N("initech")),
        Grant(N("acme-web"), N("narrow"), "reader", 8080, int(NOW) + 60),
        Grant(N("library"), EVERYONE),
    ),
    roles={
        ACTIVATOR: frozenset({Role.TRANSIT}),
        GATEWAY: frozenset({Role.GATEWAY, Role.TRANSIT}),
        EVENTING: frozenset({Role.ON_BEHALF_OF}),
    },
    exemptions={
        PROMETHEUS: (
            Exemption(9091, path="/metrics", user_agent="Prometheus/"),
            Exemption(5432),
        ),
        AUTOSCALER: tuple(
            Exemption(port, "/healthz", "Knative-Autoscaling-Probe", "activator")
            for port in (8012, 8013)
        ),
    },
    hosts={"api.internal": N("acme-web")},
)

OWN = N("authz-system")

RULES = Rules(POLICY, Keyring((root_key(1),)), TokenLife(), OWN)

IN_ISTIO = "outbound|80||app.{}.svc.cluster.local"

HELLO = "/apis/networking.istio.io/v1/namespaces/acme-web/virtual-service/hello"

LOCAL_GATEWAY = "outbound|80||local-gateway.istio-system.svc.cluster.local"


def token(source: str, destination: str, account: str = "default", now: float = NOW) -> str:
    """A good token."""
    return tokens.mint(
        source=N(source),
        service_account=account,
        destination=N(destination),
        keyring=RULES.keyring,
        now=now,
        life=RULES.life,
    )


SCRAPE: dict[str, Any] = {"port": 9091, "path": "/metrics", "user_agent": "Prometheus/3.1"}

SCALING: dict[str, Any] = {
    "host": "r.acme-db.svc.cluster.local:80",
    "port": 8012,
    "path": "/healthz",
    "user_agent": "Knative-Autoscaling-Probe",
    "network_probe": "activator",
    "method": "GET",
}
