"""Random worlds: policies as people write them, and keyrings with a past and a future."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final

from authz.domain.keys import Keyring, NamespaceKeys, RootKey
from authz.domain.names import Namespace
from authz.testing import NOW, root_key
from tests.oracle.policy_file import World

FIXED: Final = (1, 2, 3, 4)
TODAY: Final = date.today().toordinal()
COUNT: Final = 4_000
"""Questions of a seed: 20,000 with those of today's."""

TENANTS: Final = ("acme-web", "acme-db", "globex", "initech", "umbrella", "svc")
NAMESPACES: Final = (
    *TENANTS,
    *("monitoring", "knative-serving", "knative-eventing", "istio-system", "authz-system"),
)
LONG: Final = "reader-" + "x" * 70
ACCOUNTS: Final = ("default", "default", "default", "reader", "read.er", LONG)
DOMAINS: Final = ("cluster.local", "corp.example", "elsewhere.example")
SERVING: Final = "spiffe://cluster.local/ns/knative-serving/sa"
EVENTING: Final = "spiffe://cluster.local/ns/knative-eventing/sa"
ACTIVATOR: Final = f"{SERVING}/activator"
AUTOSCALER: Final = f"{SERVING}/controller"
GATEWAY: Final = "spiffe://cluster.local/ns/istio-system/sa/gateway"
PROMETHEUS: Final = "spiffe://cluster.local/ns/monitoring/sa/prometheus"
BROKER: Final = f"{EVENTING}/mt-broker-ingress"
FILTER: Final = f"{EVENTING}/mt-broker-filter"
DISPATCHER: Final = f"{EVENTING}/imc-dispatcher"
PINGSOURCE: Final = f"{EVENTING}/pingsource-mt-adapter"
ROLES: Final = {
    "transit": [ACTIVATOR, GATEWAY, BROKER, FILTER, DISPATCHER],
    "gateway": [GATEWAY],
    "on-behalf-of": [FILTER, DISPATCHER, PINGSOURCE],
}
HOLDERS: Final = sorted({holder for holders in ROLES.values() for holder in holders})
RELAYS: Final = ("knative-local-gateway.istio-system", "imc-dispatcher.knative-eventing")
AGENTS: Final = (
    *("Knative-Activator-Probe", "Knative-Ingress-Probe", "Knative-Autoscaling-Probe"),
    *("kube-probe/1.37", "curl"),
)
PROBES: Final = ("probe", "queue", "activator", "probe,probe")
PORTS: Final = (8012, 8013, 8080, 9091)
TEMPLATES: Final = (
    ["{{.Name}}.{{.Namespace}}.example.com"],
    ["{{.Name}}.{{.Namespace}}.example.com", "{{.Namespace}}.{{.Name}}.apps.example"],
)
MODES: Final = ("enforce", "enforce", "shadow", "off")
DAY: Final = 86_400  # seconds


def world(random: Random) -> World:
    """All that is decided by."""
    midnight = NOW - NOW % DAY + DAY
    moments = [NOW + random.randrange(DAY), midnight - 1, midnight]
    now = random.choices(moments, [8, 1, 1])[0] + random.choice([0.0, 0.25, 0.999])
    claims = {"shop.example": random.choice(TENANTS), "hello.claimed.example": "globex"}
    own = random.choice([*["authz-system"] * 8, "acme-web", None])
    reuse = random.choice([(0, 0), (30, 2), (30, 2), (7, 60)])
    return World(policy(random), keyring(random, int(now)), now, claims, own, reuse=reuse)


def policy(random: Random) -> dict[str, Any]:
    """A policy that the program takes."""
    likely = random.random
    trusted = random.choice([["cluster.local"], ["cluster.local"], list(DOMAINS[:2])])
    made: dict[str, Any] = {
        "trust_domains": trusted,
        "cluster_domains": random.choice([["cluster.local"], ["cluster.local", "k8s.corp"]]),
        "default_mode": random.choice(MODES),
        "relays": [relay for relay in RELAYS if likely() < 0.8],
        "roles": {role: [it for it in who if likely() < 0.9] for role, who in ROLES.items()},
        "tenants": {"acme": {"namespaces": ["acme-web", "acme-db"]}},
        "namespaces": {name: _namespace(random) for name in random.sample(NAMESPACES, 5)},
        "grants": _grants(random),
        "default_public": likely() < 0.7,
        "route_owners": random.sample(NAMESPACES, 1),
        "host_templates": random.choice(TEMPLATES),
        "hosts": {"api.internal": random.choice(TENANTS), "shop.example": "acme-web"},
    }
    if likely() < 0.2:
        made["relays"].append("hello.acme-web")
    if likely() < 0.2:
        role = random.choice(list(ROLES))
        made["roles"][role].append(workload(random, domain=trusted[-1]))
    if likely() < 0.5:
        made["tenants"]["acme"]["mode"] = random.choice(MODES)
    if likely() < 0.3:
        made["tenants"]["one"] = {"namespaces": ["initech"]}
    made["exemptions"] = _exemptions(
        random, trusted, [it for who in made["roles"].values() for it in who]
    )
    return {
        field: value
        for field, value in made.items()
        if value and (likely() < 0.8 or field in {"roles", "trust_domains"})
    }


def workload(random: Random, *, namespace: str = "", domain: str = "") -> str:
    """Anybody; one without a role, most often."""
    domain = domain or random.choices(DOMAINS, [30, 3, 1])[0]
    namespace = namespace or random.choice(NAMESPACES)
    return f"spiffe://{domain}/ns/{namespace}/sa/{random.choice(ACCOUNTS)}"


def _namespace(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if random.random() < 0.5:
        made["mode"] = random.choice(MODES)
    if random.random() < 0.6:
        services = random.choice([["hello"], ["kiali"], ["hello-00001", "kiali"]])
        made["public"] = random.choice([True, False, False, services, services])
    if random.random() < 0.4:
        made["plaintext_peers"] = random.random() < 0.8
    if random.random() < 0.2:
        made["reuse"] = random.random() < 0.3
    return made or {"public": True}


def _grants(random: Random) -> list[dict[str, Any]]:
    today = datetime.fromtimestamp(NOW, UTC).date()
    made: dict[tuple[object, ...], dict[str, Any]] = {}
    for _ in range(random.randrange(8)):
        to, source = random.choice(NAMESPACES), random.choice([*NAMESPACES, "*", "*"])
        if source == to:
            continue
        it: dict[str, Any] = {"to": to, "from": source}
        if random.random() < 0.3:
            it["service_account"] = random.choice(ACCOUNTS)
        if random.random() < 0.4:
            it["port"] = random.choice(PORTS)
        if random.random() < 0.3:
            day: date = today + timedelta(days=random.choice([-9, -1, 0, 0, 1, 9]))
            it["until"] = random.choice([day, str(day)])
        made[to, source, it.get("service_account"), it.get("port")] = it
    return list(made.values())


def _exemptions(random: Random, trusted: list[str], held: list[str]) -> list[dict[str, Any]]:
    scaling = {"user_agent": "Knative-Autoscaling-Probe", "network_probe": "activator"}
    made: list[dict[str, Any]] = [
        {"peer": AUTOSCALER, "port": port, "path": "/healthz", **scaling} for port in PORTS[:2]
    ]
    for _ in range(random.randrange(5)):
        peer = random.choice([PROMETHEUS, AUTOSCALER, workload(random, domain=trusted[-1])])
        it = {"peer": peer, "port": random.choice(PORTS)}
        if random.random() < 0.5:
            it["path"] = random.choice(["/metrics", "/healthz"])
        if random.random() < 0.3:
            it["user_agent"] = random.choice(AGENTS)
        if random.random() < 0.4:
            it["network_probe"] = random.choice(PROBES)
        if peer not in held:
            made.append(it)
    return made


def keyring(random: Random, now: int) -> Keyring:
    """One with rotations and revocations behind it, under way, and to come."""
    past, soon = now - 5000, now + 1800
    key = [root_key(number) for number in range(7)]
    ended = random.choice([now, now - 50])
    others = [
        RootKey(key[2].id, key[2].secret, soon),
        RootKey(key[3].id, key[3].secret, past - 9000, soon),
        RootKey(key[4].id, key[4].secret, past - 9000, ended),
        RootKey(key[5].id, key[5].secret, now - 40, now - 40),  # overtaken before it began
        RootKey(key[6].id, b"", past - 9000, revoked=True),
    ]
    roots = [
        RootKey(key[1].id, key[1].secret, past),
        *(it for it in others if random.random() < 0.5),
    ]
    random.shuffle(roots)
    namespaces = {}
    for name in random.sample([*NAMESPACES, "@public"], 5):
        until = random.choice([0, now - 30, now, now + 900, now + 3000])
        begins = [now - 4000, now - 30, now] + [now + 900] * (until > now)
        keys = NamespaceKeys(random.randint(1, 3), random.choice(begins), until)
        namespaces[Namespace(name)] = keys
    return Keyring(tuple(roots), namespaces, frozenset({"000000aa"}))
