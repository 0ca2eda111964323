"""What a cluster of many tenants costs its control plane, and when to open another one.

Estimates, not measurements: each constant says where it is from. Compare with your own mesh
(`istioctl proxy-config all -o json`, istiod's metric `pilot_xds_config_size_bytes`) before you buy.
"""

import json
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

from authz.tenants.file import Tenants
from authz.tenants.render import gateway, server

VIRTUAL_HOST: Final = 1000
"""Bytes of one Knative service in the route table of port 80: four domains and two routes, as
protobuf. The table is one xDS resource, so that delta xDS, too, sends it whole."""
CLUSTER: Final = 1100
"""Bytes of one Envoy cluster with its TLS settings, as protobuf."""
CLUSTERS_PER_REVISION: Final = 8
"""Ports of a revision's two Services: 80 and 443; 80, 443, 8012, 8013, 9090, 9091."""
CHECK: Final = 45e-6
"""Seconds of CPU for a Check whose headers change each time: loadtest/README.md, Performance."""
CHECKS_PER_REQUEST: Final = 3
"""sign, transit at the activator, verify."""
CONNECTION: Final = 48_900
"""Bytes of an idle mTLS connection: loadtest/README.md, Performance."""
BASE: Final = 150_000_000
"""Bytes of a replica with its answers remembered, without connections."""
HANDSHAKE: Final = 1.7e-3
"""Seconds of CPU for a full handshake with ECDSA certificates, measured with Python's TLS 1.3."""
CONNECTIONS_PER_PROXY: Final = 2
"""One for each worker thread of Envoy; Istio's default is two in a sidecar."""
MAX_CONNECTIONS: Final = 20_000
"""Default of the setting max_connections, for each replica of one worker."""
BUSY: Final = 0.6
"""How much of a core a replica may use on average, so that bursts have room."""
OBJECT_LIMIT: Final = 1_572_864
"""Bytes of one request to etcd: --max-request-bytes, 1.5 MiB."""
MAX_NAMESPACES, MAX_SERVICES, MAX_PODS = 10_000, 10_000, 150_000
"""Kubernetes' scalability thresholds for one cluster (SIG Scalability, thresholds.md)."""
MAX_PUSH: Final = 125_000_000
"""Bytes a second that istiod's replicas together should send: one gigabit."""
CIPHERS: Final = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is on the cluster. `services`, `revisions` and `replicas` are averages."""

    tenants: int
    services: int
    """Knative services of a tenant."""
    revisions: int = 2
    """Revisions that a service keeps: the active one and those that are not collected yet."""
    replicas: float = 1.0
    """Running pods of a service."""
    changes: float = 0.5
    """Changes of services a second, in the whole cluster."""
    requests: float = 1000.0
    """Calls between services a second."""
    gateways: int = 3
    activators: int = 6
    debounce_after: float = 0.1
    debounce_max: float = 10.0

    @property
    def all_services(self) -> int:
        """Knative services of all tenants."""
        return self.tenants * self.services

    @property
    def pods(self) -> int:
        """Tenants' pods, each with a sidecar."""
        return ceil(self.all_services * self.replicas)

    @property
    def platform(self) -> int:
        """Proxies that know every service, whatever the scope of the others."""
        return self.gateways + self.activators


@dataclass(frozen=True, slots=True)
class Pushes:
    """What changes cost the mesh."""

    reached: int
    """Proxies that one change is sent to."""
    bytes_per_change: float
    bytes_per_second: float


def pushes_per_second(changes: float, after: float, longest: float) -> float:
    """How often istiod pushes, for changes that come by chance.

    A push waits until there was no change for `after` seconds, at most `longest`. For a Poisson
    process, such a busy time and the pause before it last e^(changes * after) / changes.
    """
    if changes <= 0:
        return 0.0
    if changes * after > 700:  # e to that is no float any more
        return 1 / (1 / changes + longest)
    return 1 / min(exp(changes * after) / changes, 1 / changes + longest)


def pushes(load: Load, *, scoped: bool) -> Pushes:
    """What a change of one service costs, with `Sidecar` scoping or without."""
    changed = CLUSTERS_PER_REVISION * CLUSTER
    everything = load.all_services * VIRTUAL_HOST
    rate = pushes_per_second(load.changes, load.debounce_after, load.debounce_max)
    batch = load.changes / rate if rate else 0.0
    platform = load.platform * (everything + changed)
    if scoped:
        pods = ceil(load.services * load.replicas)
        own = load.services * VIRTUAL_HOST
        # Tenants that a batch of changes, spread by chance, touches.
        touched = load.tenants * (1 - (1 - 1 / load.tenants) ** batch) if load.tenants else 0.0
        sidecars = pods * (own + changed)
        a_push = touched * pods * own + batch * pods * changed
    else:
        pods = load.pods
        sidecars = pods * (everything + changed)
        a_push = pods * (everything + batch * changed)
    a_push += load.platform * (everything + batch * changed)
    return Pushes(pods + load.platform, sidecars + platform, rate * a_push)


def gateway_bytes(servers: int, *, ciphers: bool) -> int:
    """Bytes of one Gateway with a server for each tenant, as JSON, as etcd holds it.

    Without managedFields, which add about as much again where it is applied by the server.
    """
    tenants = Tenants()
    one = gateway(
        tenants,
        "all",
        "all-tenants",
        [
            server(
                f"tenant-{number:05}",
                [f"tenant-{number:05}/*.tenant-{number:05}.apps.example.com"],
                CIPHERS if ciphers else None,
            )
            for number in range(servers)
        ],
    )
    return len(json.dumps(one, separators=(",", ":")))


def most_servers(*, ciphers: bool) -> int:
    """How many servers one Gateway holds within etcd's limit."""
    none, thousand = gateway_bytes(0, ciphers=ciphers), gateway_bytes(1000, ciphers=ciphers)
    return int((OBJECT_LIMIT - none) / ((thousand - none) / 1000))


@dataclass(frozen=True, slots=True)
class Replicas:
    """What the service itself needs."""

    checks_per_second: float
    cores: float
    connections: int
    replicas: int
    memory: float
    """Bytes of one replica."""
    recovery: float
    """Seconds until a replica that lost all its connections has shaken hands again."""


def replicas(load: Load) -> Replicas:
    """How many replicas of one worker the checks and connections need, and one more."""
    checks = load.requests * CHECKS_PER_REQUEST
    connections = (load.pods + load.platform) * CONNECTIONS_PER_PROXY
    least = max(ceil(checks * CHECK / BUSY), ceil(connections / MAX_CONNECTIONS), 1)
    # Each proxy asks one replica at a time; with one of them gone, the others hold its share.
    held = connections / least
    return Replicas(
        checks, checks * CHECK, connections, least + 1, BASE + held * CONNECTION, held * HANDSHAKE
    )


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a limit is used."""

    what: str
    value: float
    limit: float

    @property
    def share(self) -> float:
        """1 is all of it."""
        return self.value / self.limit


def uses(load: Load) -> list[Use]:
    """The limits of one cluster, the fullest first. Pushes are counted with scoping."""
    services = load.all_services * (1 + 2 * load.revisions)  # its own, and two of each revision
    found = [
        Use("namespaces", load.tenants, MAX_NAMESPACES),
        Use("Kubernetes Services", services, MAX_SERVICES),
        Use("pods", load.pods, MAX_PODS),
        Use("istiod's bytes per second", pushes(load, scoped=True).bytes_per_second, MAX_PUSH),
    ]
    return sorted(found, key=lambda use: -use.share)


def clusters(load: Load) -> int:
    """How many clusters the tenants need, so that none is over four fifths of a limit.

    What istiod sends falls with the square of the cluster's size, so this errs on the safe side.
    """
    return max(1, ceil(uses(load)[0].share / 0.8))
