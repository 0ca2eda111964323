"""Looks at all of a cluster: which pods there are, each proxy, and what is around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from authz.doctor import around, pods
from authz.doctor.capture import annotated
from authz.doctor.dump import CannotRead
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.pods import Pod, Standing
from authz.doctor.remote import Cluster, Keep, everything, only, reached
from authz.doctor.summary import Report
from authz.kube import Resource

Json = dict[str, Any]

_NAMESPACES: Final = Resource("namespaces", metadata_only=True)
_NETWORK: Final = Resource("configmaps", namespace="knative-serving", name="config-network")
_AUTOSCALER: Final = Resource("configmaps", namespace="knative-serving", name="config-autoscaler")
_SERVICES: Final = Resource("services")
_ENVOY_FILTERS: Final = Resource("envoyfilters", "networking.istio.io", "v1alpha3")
_ADMISSION: Final = "admissionregistration.k8s.io"
_WEBHOOKS: Final = (
    Resource("validatingwebhookconfigurations", _ADMISSION),
    Resource("mutatingwebhookconfigurations", _ADMISSION),
)
_DEFINITIONS: Final = Resource("customresourcedefinitions", "apiextensions.k8s.io")
_API_SERVICES: Final = Resource("apiservices", "apiregistration.k8s.io")


def look(
    report: Report,
    expected: Expected,
    namespaces: Iterable[str],
    tell: Callable[[int, int], None],
) -> None:
    """Examine each proxy of a cluster; of all of it, also what is around them.

    Args:
        report: where to tell what was found.
        expected: what should be in force.
        namespaces: only of these; all, if there are none.
        tell: is told how many proxies of how many were examined.

    Raises:
        KubeError: there is no way to the cluster.
        CannotRead: its pods cannot be listed.
    """
    wanted = [*namespaces]
    with reached() as cluster:
        survey = _Survey(cluster, report, expected, tell)
        survey.proxies(wanted)
        if not wanted and cluster.sees_objects:
            survey.around()


class _Survey:
    def __init__(
        self,
        cluster: Cluster,
        report: Report,
        expected: Expected,
        tell: Callable[[int, int], None],
    ) -> None:
        self._cluster = cluster
        self._report = report
        self._expected = expected.beside(self._mesh_mode())
        self._tell = tell
        self._pods: list[Json] = []
        self._free: dict[str, frozenset[int]] = {}

    def proxies(self, wanted: Sequence[str]) -> None:
        """Which pods there are, and each of their proxies."""
        report = self._report
        ambient = pods.ambient_namespaces(self._listed(_NAMESPACES))
        for space in only(wanted):
            listed = self._cluster.listed(Resource("pods", namespace=space), pods.slim)
            self._pods += [it for it in listed if not pods.has_ended(it)]
        found = [*pods.pods(self._pods, ambient)]
        what = f"its label {pods.MODE} is ambient"
        report.findings += [
            Finding(it, "namespace", what, Rule.AMBIENT)
            for it in sorted(ambient)
            if not wanted or it in wanted
        ]
        report.findings += pods.uncovered(found)
        for pod, it in zip(found, self._pods, strict=True):
            if pod.standing is Standing.PROXY:
                annotations = it["metadata"].get("annotations") or {}
                report.findings += annotated(str(pod), annotations, self._expected)
        report.skipped |= pods.skipped(found)
        self._examine([it for it in found if it.standing is Standing.PROXY and not it.waits])

    def _examine(self, asked: Sequence[Pod]) -> None:
        revisions = {str(it): it.revision for it in asked}
        for number, source in enumerate(self._cluster.dumps(asked), 1):
            revision = revisions[source.name]
            workload = self._report.look(source, self._expected, pod=source.name, revision=revision)
            if workload is not None and workload.proxy.kind == "sidecar":
                self._free[source.name] = around.opened(workload, self._expected)
            self._tell(number, len(asked))

    def around(self) -> None:
        """What takes from the proxies or leads past them."""
        hooks = [it for kind in _WEBHOOKS for it in self._listed(kind)]
        definitions = self._listed(_DEFINITIONS, _conversion)
        calls = around.called(hooks, definitions, self._listed(_API_SERVICES))
        services = self._listed(_SERVICES)
        report = self._report
        report.findings += around.unreachable(calls, services, self._pods, self._free)
        report.findings += around.copies(self._listed(_ENVOY_FILTERS))
        report.notes += around.notes(self._listed(_AUTOSCALER))

    def _listed(self, resource: Resource, keep: Keep = everything) -> list[Json]:
        """What there is of a kind; if it may not be looked at, that is told."""
        if not self._cluster.sees_objects:
            return []
        try:
            return self._cluster.listed(resource, keep)
        except CannotRead as error:
            self._report.unreadable.append(str(error))
            return []

    def _mesh_mode(self) -> str:
        """Knative's `mesh-compatibility-mode`; empty, if it cannot be had."""
        try:
            [found] = self._cluster.listed(_NETWORK)
            return str((found.get("data") or {}).get("mesh-compatibility-mode", "auto"))
        except (CannotRead, ValueError, AttributeError):
            return ""


def _conversion(definition: Json) -> Json:
    """All that is looked at of a CustomResourceDefinition, whose schemas are long."""
    conversion = (definition.get("spec") or {}).get("conversion")
    return {
        "metadata": {"name": definition["metadata"]["name"]},
        "spec": {"conversion": conversion},
    }
