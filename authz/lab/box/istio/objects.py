"""The fields of Istio's objects that the model knows: who they are for, and what they say.

Kubernetes documents, ours and the world's. EnvoyFilters are read by `authz.envoyfilters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from authz.lab.box.istio.world import DOMAIN, ROOT_NAMESPACE, Json, Pod

STRICT: Final = "STRICT"
PERMISSIVE: Final = "PERMISSIVE"


class Objects:
    """Istio's objects; of two with one kind, namespace and name, the later counts."""

    def __init__(self, documents: Iterable[Mapping[str, Any]]) -> None:
        by_name = {
            (it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"]): dict(it)
            for it in documents
        }
        self._documents: list[Json] = list(by_name.values())

    def of_kind(self, kind: str) -> Iterator[Json]:
        """All of one kind."""
        return (it for it in self._documents if it["kind"] == kind)

    def for_pod(self, kind: str, pod: Pod) -> Iterator[Json]:
        """Those that select `pod`: in its namespace or the root namespace, by labels if any."""
        for it in self.of_kind(kind):
            spec = it.get("spec", {})
            selector = spec.get("selector") or spec.get("workloadSelector") or {}
            labels = selector.get("matchLabels") or selector.get("labels") or {}
            near = it["metadata"]["namespace"] in {ROOT_NAMESPACE, pod.namespace}
            if near and labels.items() <= pod.labels.items():
                yield it

    def mutual_tls(self, pod: Pod, port: int = 0) -> str:
        """What PeerAuthentication says: the pod's word first, its namespace's, the mesh's."""
        policies = [*self.for_pod("PeerAuthentication", pod)]
        own = [it for it in policies if it["metadata"]["namespace"] == pod.namespace]
        chosen = [it for it in own if it["spec"].get("selector")]
        spaces = [it for it in own if not it["spec"].get("selector")]
        mesh = [
            it
            for it in policies
            if it["metadata"]["namespace"] == ROOT_NAMESPACE and not it["spec"].get("selector")
        ]
        for it in chosen:
            mode = _ports(it).get(port, {}).get("mode")
            if mode and mode != "UNSET":
                return str(mode)
        for it in (*chosen, *spaces, *mesh):
            mode = it["spec"].get("mtls", {}).get("mode", "UNSET")
            if mode != "UNSET":
                return str(mode)
        return PERMISSIVE

    def ports_of_their_own(self, pod: Pod) -> set[int]:
        """Ports for which a PeerAuthentication says something of their own."""
        return {
            port
            for it in self.for_pod("PeerAuthentication", pod)
            if it["spec"].get("selector")
            for port in _ports(it)
        }

    def traffic_policy(self, host: str) -> Json:
        """What a DestinationRule says of a host; nothing, if there is none."""
        for it in self.of_kind("DestinationRule"):
            if _full(it["spec"]["host"], it["metadata"]["namespace"]) == host:
                policy: Json = it["spec"].get("trafficPolicy", {})
                return policy
        return {}

    def gateway_server(self, gateway: str, port: int) -> Json:
        """The server of a Gateway, `namespace/name`, for a port; nothing, if there is none."""
        for it in self.of_kind("Gateway"):
            if f"{it['metadata']['namespace']}/{it['metadata']['name']}" == gateway:
                for server in it["spec"]["servers"]:
                    if server["port"]["number"] == port:
                        found: Json = server
                        return found
        return {}

    def imports(self, pod: Pod) -> list[str] | None:
        """What a Sidecar lets the pod see, such as `./*`; None if it sees everything."""
        if pod.proxy == "gateway":  # a Sidecar is for sidecars
            return None
        found = [it for it in self.for_pod("Sidecar", pod) if it["spec"].get("egress")]
        found.sort(
            key=lambda it: (
                it["metadata"]["namespace"] != pod.namespace,
                not it["spec"].get("workloadSelector"),
            )
        )
        for it in found[:1]:
            return [host for egress in it["spec"]["egress"] for host in egress["hosts"]]
        return None


def imported(imports: list[str] | None, own: str, namespace: str, host: str) -> bool:
    """Whether a Sidecar's hosts show a Service of `namespace` to a pod of the namespace `own`."""
    if imports is None:
        return True
    for line in imports:
        space, _, name = line.partition("/")
        near = space in {"*", namespace} or (space == "." and namespace == own)
        if near and (name in {"*", host} or (name[:2] == "*." and host.endswith(name[1:]))):
            return True
    return False


def _full(host: str, namespace: str) -> str:
    return host if "." in host else f"{host}.{namespace}.svc.{DOMAIN}"


def _ports(policy: Json) -> dict[int, Json]:
    """What a PeerAuthentication says of ports; keys of an object are text, as in YAML they are."""
    return {int(port): mtls for port, mtls in policy["spec"].get("portLevelMtls", {}).items()}
