"""A tenant's objects: what onboarding puts into the cluster, as plain data in a stable order.

Everything is a function of the tenants file, so that applying twice changes nothing and two renders
can be compared line by line.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from authz.tenants.file import Limits, Quota, Tenant, Tenants
from authz.wire import GROUP, TENANT_LABEL

Manifest = dict[str, Any]
"""A Kubernetes object."""

DOMAINS: Final = f"{GROUP}/domains"
"""Annotation: domains under which the namespace's hosts must lie, by commas."""
EXTERNAL_NAMES: Final = f"{GROUP}/external-names"
"""Annotation: domains under which its Services of type ExternalName may point, by commas."""

_MANAGED: Final = {"app.kubernetes.io/managed-by": "tenant-authz"}
_READ: Final = ["get", "list", "watch"]
_ALL: Final = [*_READ, "create", "update", "patch", "delete"]
_RULES: Final = [
    # No networking.istio.io, no NetworkPolicy, quota, role or namespace: those are the platform's.
    # No Ingress and no routes of the Gateway API: hosts come from Knative and DomainMapping.
    (["serving.knative.dev"], ["services", "routes", "configurations", "domainmappings"], _ALL),
    (["serving.knative.dev"], ["revisions"], [*_READ, "delete"]),
    (["eventing.knative.dev"], ["brokers", "triggers"], _ALL),
    (["messaging.knative.dev"], ["channels", "subscriptions"], _ALL),
    (["sinks.knative.dev"], ["jobsinks"], _ALL),
    (["sources.knative.dev"], ["pingsources"], _ALL),
    (["tenant-authz.dev"], ["grants"], _ALL),  # each opens its own namespace and no other
    (["batch"], ["jobs", "cronjobs"], _ALL),
    ([""], ["configmaps", "secrets", "serviceaccounts"], _ALL),
    ([""], ["pods"], [*_READ, "delete"]),
    ([""], ["pods/log"], ["get"]),
    ([""], ["events", "services", "resourcequotas", "limitranges"], _READ),
]
_QUEUE_PROXY: Final = [8012, 8013]
"""Knative's ports in each pod, both behind `verify`."""


def manifests(file: Tenants, name: str) -> Iterator[Manifest]:
    """The objects of one tenant."""
    tenant = file.of(name)
    namespaces = file.namespaces_of(name)
    for namespace in namespaces:
        yield _namespace(file, name, tenant, namespace)
        yield _quota(namespace, tenant.quota or file.quota)
        yield _limits(namespace, tenant.limits or file.limits)
        yield _role(namespace)
        if tenant.owners:
            yield _binding(namespace, tenant.owners)
        yield _network_policy(file, name, tenant, namespace)
        yield _sidecar(tenant, namespace, namespaces)
    gateways = list(_gateways(file, name))
    if gateways:
        hosts = {host.partition("/")[2] for own in gateways for host in own.hosts}
        yield _certificate(file, name, sorted(hosts))
    for own in gateways:
        yield gateway(file, name, own.name, [server(name, own.hosts), redirect(name, own.hosts)])


def knative_gateways(file: Tenants, names: list[str]) -> Manifest | None:
    """The key of config-istio that sends each tenant's routes to its own Gateways.

    It names all tenants, so it is right only for the whole file. A change makes net-istio look at
    every route again.
    """
    service = f"{file.gateway}.{file.gateway_namespace}.svc.{file.cluster_domain}"
    entries = [
        "- name: knative-ingress-gateway",
        "  namespace: knative-serving",
        f"  service: {service}",
    ]
    for name in names:
        for own in _gateways(file, name):
            entries += [
                f"- name: {own.name}",
                f"  namespace: {file.gateway_namespace}",
                f"  service: {service}",
                "  labelSelector:",
                "    matchExpressions:",
                f"    - key: {own.label}",
                "      operator: In",
                f"      values: [{', '.join(file.namespaces_of(name))}]",
            ]
    if len(entries) == 3:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config-istio", "namespace": "knative-serving"},
        "data": {"external-gateways": "\n".join(entries) + "\n"},
    }


def gateway(file: Tenants, tenant: str, name: str, servers: list[Manifest]) -> Manifest:
    """An Istio Gateway next to the gateway's pods, where its certificates are."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": _metadata(name, file.gateway_namespace, tenant),
        "spec": {"selector": dict(file.gateway_labels), "servers": servers},
    }


def server(name: str, hosts: list[str], ciphers: list[str] | None = None) -> Manifest:
    """An HTTPS server of a Gateway. TLS versions and ciphers are mesh-wide unless given."""
    tls: Manifest = {"mode": "SIMPLE", "credentialName": f"tenant-{name}-tls"}
    if ciphers:
        tls["cipherSuites"] = ciphers
    return {
        "port": {"number": 443, "name": f"https-{name}", "protocol": "HTTPS"},
        "hosts": hosts,
        "tls": tls,
    }


def redirect(name: str, hosts: list[str]) -> Manifest:
    """Its server for who still says http://: net-istio knows that nothing is to be probed there."""
    return {
        "port": {"number": 80, "name": f"http-{name}", "protocol": "HTTP"},
        "hosts": hosts,
        "tls": {"httpsRedirect": True},
    }


class _Gateway(NamedTuple):
    """One of a tenant's Gateways, and the label by which Knative's routes are known to be its."""

    name: str
    label: str
    hosts: list[str]
    """As `namespace/host`: only VirtualServices of that namespace may take the host."""


def _gateways(file: Tenants, name: str) -> Iterator[_Gateway]:
    namespaces, domains = file.namespaces_of(name), file.of(name).domains
    if file.domain is not None:
        yield _Gateway(
            f"tenant-{name}",
            "serving.knative.dev/routeNamespace",
            [f"{namespace}/*.{namespace}.{file.domain}" for namespace in namespaces],
        )
    if domains:
        yield _Gateway(
            f"tenant-{name}-domains",
            "serving.knative.dev/domainMappingNamespace",
            [
                f"{namespace}/{host}"
                for namespace in namespaces
                for domain in domains
                for host in (domain, f"*.{domain}")
            ],
        )


def _domains_of(file: Tenants, tenant: Tenant, namespace: str) -> list[str]:
    return [*([f"{namespace}.{file.domain}"] if file.domain else []), *tenant.domains]


def _metadata(name: str, namespace: str | None = None, tenant: str | None = None) -> Manifest:
    labels = dict(_MANAGED) | ({TENANT_LABEL: tenant} if tenant else {})
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}


def _namespace(file: Tenants, name: str, tenant: Tenant, namespace: str) -> Manifest:
    metadata = _metadata(namespace, tenant=name)
    metadata["labels"] |= (
        {"istio.io/rev": file.istio_revision}
        if file.istio_revision
        else {"istio-injection": "enabled"}
    )
    metadata["labels"] |= {
        f"pod-security.kubernetes.io/{what}": file.pod_security
        for what in ("enforce", "warn", "audit")
    }
    listed = {DOMAINS: _domains_of(file, tenant, namespace), EXTERNAL_NAMES: tenant.external_names}
    if annotations := {key: ",".join(names) for key, names in listed.items() if names}:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _quota(namespace: str, quota: Quota) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata("tenant", namespace),
        "spec": {
            "hard": {
                "count/services.serving.knative.dev": str(quota.apps),
                "count/revisions.serving.knative.dev": str(quota.revisions),
                "count/secrets": str(quota.secrets),
                "count/grants.tenant-authz.dev": str(quota.grants),
                "pods": str(quota.instances),
                # Requests: the limits of two sidecars in each pod would use up a quota of limits.
                "requests.cpu": quota.cpu,
                "requests.memory": quota.memory,
                # Ways in that pass neither gateway nor sidecar.
                "services.loadbalancers": "0",
                "services.nodeports": "0",
            }
        },
    }


def _limits(namespace: str, limits: Limits) -> Manifest:
    given = {"cpu": limits.default_cpu, "memory": limits.default_memory}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _metadata("tenant", namespace),
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "max": {"cpu": limits.cpu, "memory": limits.memory},
                    "default": given,
                    "defaultRequest": dict(given),
                }
            ]
        },
    }


def _role(namespace: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata("tenant", namespace),
        "rules": [
            {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}
            for groups, resources, verbs in _RULES
        ],
    }


def _binding(namespace: str, owners: list[str]) -> Manifest:
    pairs = (owner.split(":", 1) for owner in owners)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata("tenant", namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": kind.capitalize(), "name": subject}
            for kind, subject in pairs
        ],
    }


def _network_policy(file: Tenants, name: str, tenant: Tenant, namespace: str) -> Manifest:
    def of_namespace(whose: str) -> list[Manifest]:
        labels = {"kubernetes.io/metadata.name": whose}
        return [{"namespaceSelector": {"matchLabels": labels}}]

    def ports(*numbers: int) -> list[Manifest]:
        return [{"port": number, "protocol": "TCP"} for number in numbers]

    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata("tenant", namespace),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"namespaceSelector": {"matchLabels": {TENANT_LABEL: name}}}]},
                # What verify covers may come from everywhere in the cluster.
                {
                    "from": [{"namespaceSelector": {}}],
                    "ports": ports(*sorted({*_QUEUE_PROXY, *tenant.ports})),
                },
                {"from": of_namespace("knative-serving"), "ports": ports(9090)},  # autoscaler
                {"from": of_namespace(file.monitoring), "ports": ports(9091, 15020, 15090)},
            ],
        },
    }


def _sidecar(tenant: Tenant, namespace: str, namespaces: list[str]) -> Manifest:
    platform = ("authz-system", "istio-system", "knative-serving", "knative-eventing")
    others = sorted({*platform, *tenant.calls, *namespaces} - {namespace})
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": _metadata("default", namespace),
        "spec": {"egress": [{"hosts": ["./*", *(f"{other}/*" for other in others)]}]},
    }


def _certificate(file: Tenants, name: str, hosts: list[str]) -> Manifest:
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": _metadata(f"tenant-{name}", file.gateway_namespace, name),
        "spec": {
            "secretName": f"tenant-{name}-tls",
            "dnsNames": hosts,
            "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": file.issuer},
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        },
    }
