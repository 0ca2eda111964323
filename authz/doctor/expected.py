"""What should be in force: read from the documents that are installed, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from authz.doctor.dump import CannotRead, Json, Workload
from authz.envoyfilters import CannotPatch, Patches, Proxy
from authz.wire import QUESTION

ASKS: Final = ".ext_authz.v3.ExtAuthz"
_INSERTS: Final = frozenset({"INSERT_FIRST", "INSERT_BEFORE", "INSERT_AFTER", "ADD"})


class Known(NamedTuple):
    """What shapes of a proxy's configuration depend on."""

    ours: frozenset[str]
    """Names of our filters."""
    token_headers: frozenset[str]
    trust_domains: tuple[str, ...]
    domain: str
    """The cluster's."""
    static: bool
    """Whether no istiod feeds the proxy."""


class Expected:
    """The documents that are installed, and what follows from them.

    Args:
        documents: Kubernetes objects, such as `authz.envoyfilters.shipped()`.
        plaintext: namespaces that take plaintext on purpose.
        root_namespace: Istio's.
        mesh_mode: Knative's `mesh-compatibility-mode`; empty, if it is not known.

    Raises:
        CannotPatch: an EnvoyFilter uses what is unknown here.
    """

    def __init__(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        plaintext: Iterable[str] = (),
        root_namespace: str = "istio-system",
        mesh_mode: str = "",
    ) -> None:
        self.documents = tuple(documents)
        self.plaintext = frozenset(plaintext)
        self.mesh_mode = mesh_mode
        self._root = root_namespace
        self._all = Patches.of(self.documents, root_namespace)
        self._without_removals = Patches.of(map(_without_removals, self.documents), root_namespace)

    def beside(self, mesh_mode: str) -> Expected:
        """The same where Knative's `mesh-compatibility-mode` is known."""
        other = copy.copy(self)
        other.mesh_mode = mesh_mode
        return other

    def known(self, workload: Workload) -> Known:
        """What the shapes of this proxy's configuration depend on."""
        return Known(
            self.ours, self.token_headers, self.trust_domains, self.domain, workload.is_static
        )

    @cached_property
    def trust_domains(self) -> tuple[str, ...]:
        """Of whose identities callers may be: those of whoever must answer our questions."""
        names = [
            it for _, policy in self.mutual() for it in policy["tls"].get("subjectAltNames", ())
        ]
        found = {it.removeprefix("spiffe://").partition("/")[0] for it in names}
        return tuple(sorted(found)) or ("cluster.local",)

    @cached_property
    def domain(self) -> str:
        """The cluster's DNS domain, as the cluster by which we are asked says."""
        found = sorted(cluster.partition(".svc.")[2] for cluster in self.clusters)
        return found[0] if found else "cluster.local"

    # ---- filters ----

    @cached_property
    def ours(self) -> frozenset[str]:
        """Names of the filters that we insert."""
        return frozenset(it["name"] for it in self._inserted())

    @cached_property
    def asking(self) -> frozenset[str]:
        """Those of them that ask the service."""
        return frozenset(it["name"] for it in self._inserted() if _asks(it))

    @cached_property
    def clusters(self) -> frozenset[str]:
        """By which clusters they ask it."""
        services = (it["typed_config"]["grpc_service"] for it in self._inserted() if _asks(it))
        return frozenset(service["envoy_grpc"]["cluster_name"] for service in services)

    @cached_property
    def own_namespaces(self) -> frozenset[str]:
        """Where the service runs, as the clusters by which it is asked say."""
        return frozenset(it.rpartition("|")[2].split(".")[1] for it in self.clusters)

    @cached_property
    def token_headers(self) -> frozenset[str]:
        """Which headers are ours: those that strip removes."""
        rules = (it["typed_config"].get("request_rules", ()) for it in self._inserted())
        return frozenset(rule["header"] for several in rules for rule in several)

    def bare(self, listener: Json) -> Json:
        """The listener without our filters, as istiod would have made it without us."""
        result = dict(listener)
        if "filter_chains" in listener:
            result["filter_chains"] = [self._bare_chain(it) for it in listener["filter_chains"]]
        if "default_filter_chain" in listener:
            result["default_filter_chain"] = self._bare_chain(listener["default_filter_chain"])
        return result

    def listeners(self, workload: Workload, *, removals: bool = True) -> list[Json]:
        """What its listeners should be; without `removals`, as if we took no filter away anywhere.

        Raises:
            CannotRead: the patches do not fit these listeners.
        """
        patches = self._all if removals else self._without_removals
        bare = [self.bare(it) for it in workload.listeners]
        config = {"static_resources": {"listeners": bare}}
        try:
            applied = patches.applied(workload.proxy, config)
        except (CannotPatch, KeyError) as error:
            raise CannotRead(f"{workload.name}: its listeners cannot be patched: {error}") from None
        listeners: list[Json] = applied["static_resources"]["listeners"]
        return listeners

    def source(self, name: str, proxy: Proxy) -> str:
        """Which EnvoyFilter should have inserted a filter: `namespace/name`."""
        for it in self._of("EnvoyFilter"):
            spec, metadata = it["spec"], it["metadata"]
            labels = spec.get("workloadSelector", {}).get("labels", {})
            if (
                metadata["namespace"] in {self._root, proxy.namespace}
                and labels.items() <= proxy.labels.items()
                and any(value["name"] == name for value in _values(it))
            ):
                return f"{metadata['namespace']}/{metadata['name']}"
        return ""

    def asks(self, question: str, proxy: Proxy) -> bool:
        """Whether an EnvoyFilter picks this proxy's pod to ask this question."""
        for it in self._of("EnvoyFilter"):
            labels = it["spec"].get("workloadSelector", {}).get("labels", {})
            if (
                labels
                and it["metadata"]["namespace"] in {self._root, proxy.namespace}
                and labels.items() <= proxy.labels.items()
                and any(_question(value) == question for value in _values(it) if _asks(value))
            ):
                return True
        return False

    # ---- other objects ----

    def selected(self, kind: str, proxy: Proxy) -> Iterator[Mapping[str, Any]]:
        """Objects with a selector that picks this proxy's pod."""
        for it in self._of(kind):
            labels = it["spec"].get("selector", {}).get("matchLabels", {})
            if it["metadata"]["namespace"] == proxy.namespace and labels.items() <= (
                proxy.labels.items()
            ):
                yield it

    def mutual(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Hosts to which DestinationRules demand mutual TLS of the mesh, and their policy."""
        for it in self._of("DestinationRule"):
            policy = it["spec"].get("trafficPolicy", {})
            if policy.get("tls", {}).get("mode") == "ISTIO_MUTUAL":
                yield it["spec"]["host"], policy

    def _of(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (document for document in self.documents if document["kind"] == kind)

    def _inserted(self) -> Iterator[Json]:
        for it in self._of("EnvoyFilter"):
            yield from _values(it)

    def _bare_chain(self, chain: Json) -> Json:
        filters = [self._bare_filter(it) for it in self._without(chain.get("filters", ()))]
        return chain | {"filters": filters}

    def _bare_filter(self, one: Json) -> Json:
        typed = one.get("typed_config", {})
        if "http_filters" not in typed:
            return one
        return one | {
            "typed_config": typed | {"http_filters": self._without(typed["http_filters"])}
        }

    def _without(self, filters: Iterable[Json]) -> list[Json]:
        return [it for it in filters if it.get("name") not in self.ours]


def _values(envoy_filter: Mapping[str, Any]) -> Iterator[Json]:
    for patch in envoy_filter["spec"]["configPatches"]:
        filters = patch["applyTo"] in {"HTTP_FILTER", "NETWORK_FILTER"}
        if filters and patch["patch"]["operation"] in _INSERTS:
            yield patch["patch"]["value"]


def _asks(value: Json) -> bool:
    return str(value["typed_config"]["@type"]).endswith(ASKS)


def _question(value: Json) -> str:
    said = value["typed_config"].get("grpc_service", {}).get("initial_metadata", ())
    return next((str(it.get("value", "")) for it in said if it["key"] == QUESTION), "")


def _without_removals(document: Mapping[str, Any]) -> Mapping[str, Any]:
    if document["kind"] != "EnvoyFilter":
        return document
    patches = document["spec"]["configPatches"]
    kept = [patch for patch in patches if patch["patch"]["operation"] != "REMOVE"]
    return {**document, "spec": {**document["spec"], "configPatches": kept}}
