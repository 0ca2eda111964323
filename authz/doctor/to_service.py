"""The way from a proxy to the service: HTTP/2, mutual TLS, nobody else, and round the dead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.doctor.dump import Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.wire import host_of_cluster

_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS: Final = "UpstreamTlsContext"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)")
_OUTLIERS: Final = {
    "consecutive5xxErrors": "consecutive_5xx",
    "interval": "interval",
    "baseEjectionTime": "base_ejection_time",
    "maxEjectionPercent": "max_ejection_percent",
}
"""Fields of a DestinationRule's outlierDetection, and what istiod makes of them."""


def service(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What is wrong with the clusters that our filters, or our DestinationRules, are about."""
    policies = dict(expected.mutual())
    asked = {name for name in expected.clusters if _is_asked(workload, name)}
    gateway = workload.proxy.kind == "gateway"
    missing = Rule.GATEWAY_CLUSTER_MISSING if gateway else Rule.CLUSTER_MISSING
    for name in sorted(asked):
        if name not in workload.clusters:
            yield Finding(workload.name, f"cluster {name}", "it is not there", missing)
    for name, cluster in sorted(workload.clusters.items()):
        host = host_of_cluster(name)
        if host is None or host not in policies:
            continue
        checking = _Cluster(workload.name, name, cluster, policies[host])
        yield from checking.tls()
        if name in asked:
            yield from checking.http2()
            yield from checking.resilience()


def _is_asked(workload: Workload, name: str) -> bool:
    """Whether a filter of this proxy asks by this cluster."""
    return any(_mentions(listener, name) for listener in workload.listeners)


def _mentions(value: Any, name: str) -> bool:
    match value:
        case dict():
            return value.get("cluster_name") == name or any(
                _mentions(it, name) for it in value.values()
            )
        case list():
            return any(_mentions(it, name) for it in value)
    return False


class _Cluster:
    """One cluster under examination."""

    def __init__(self, workload: str, name: str, cluster: Json, policy: Mapping[str, Any]) -> None:
        self._workload = workload
        self._where = f"cluster {name}"
        self._cluster = cluster
        self._policy = policy

    def _finding(self, rule: Rule, what: str) -> Finding:
        return Finding(self._workload, self._where, what, rule)

    def tls(self) -> Iterator[Finding]:
        """TLS on every way, and nobody else in its place; `clusters` looks at the rest."""
        matches = self._cluster.get("transport_socket_matches", ())
        sockets = [match.get("transport_socket", {}) for match in matches]
        if not sockets or "transport_socket" in self._cluster:
            sockets.append(self._cluster.get("transport_socket", {}))
        for socket in sockets:
            context = socket.get("typed_config", {})
            if not str(context.get("@type", "")).endswith(_TLS):
                yield self._finding(Rule.CLUSTER_PLAINTEXT, "it does not speak TLS")
                continue
            common = context.get("common_tls_context", {})
            wanted = set(self._policy["tls"].get("subjectAltNames", ()))
            found = set(_names(common))
            if wanted and found != wanted:
                says = ", ".join(sorted(found)) or "anybody"
                what = f"who answers may be {says}; must be {', '.join(sorted(wanted))}"
                yield self._finding(Rule.CLUSTER_IDENTITY, what)

    def http2(self) -> Iterator[Finding]:
        """What gRPC needs."""
        explicit = self._options().get("explicit_http_config", {})
        old = self._cluster.get("http2_protocol_options")  # of Envoys before 1.36
        if explicit.get("http2_protocol_options") is None and old is None:
            yield self._finding(Rule.CLUSTER_HTTP2, "it does not speak HTTP/2")

    def resilience(self) -> Iterator[Finding]:
        """Dead replicas are left alone, and connections age."""
        wanted = self._policy.get("outlierDetection", {})
        found: Json = self._cluster.get("outlier_detection", {})
        for name, ours in _OUTLIERS.items():
            if name in wanted and _number(found.get(ours)) != _number(wanted[name]):
                what = f"outlier detection: {ours} is {found.get(ours, 'not set')}"
                yield self._finding(Rule.CLUSTER_OUTLIER, f"{what}, must be {wanted[name]}")
        pool = self._policy.get("connectionPool", {}).get("tcp", {})
        age = self._options().get("common_http_protocol_options", {})
        times = {
            "connectTimeout": self._cluster.get("connect_timeout"),
            "maxConnectionDuration": age.get("max_connection_duration"),
        }
        for name, value in times.items():
            if name in pool and _number(value) != _number(pool[name]):
                what = f"{name} is {value or 'not set'}, must be {pool[name]}"
                yield self._finding(Rule.CLUSTER_TIMES, what)

    def _options(self) -> Json:
        options: Json = self._cluster.get("typed_extension_protocol_options", {}).get(_OPTIONS, {})
        return options


def _names(common: Json) -> Iterator[str]:
    """Which names a certificate may have; anything but an exact name as Envoy writes it."""
    combined = common.get("combined_validation_context", {})
    contexts: tuple[Json, ...] = (
        common.get("validation_context", {}),
        combined.get("default_validation_context", {}),
    )
    for context in contexts:
        for it in context.get("match_typed_subject_alt_names", ()):
            yield it.get("matcher", {}).get("exact") or str(it.get("matcher"))
        for it in context.get("match_subject_alt_names", ()):
            yield it.get("exact") or str(it)


def _number(value: Any) -> Any:
    """Durations of Envoy (`5s`, `0.250s`) and of Istio (`5s`, `10m`) in seconds."""
    if found := _DURATION.fullmatch(str(value)):
        return float(found["number"]) * _UNITS[found["unit"]]
    return value
