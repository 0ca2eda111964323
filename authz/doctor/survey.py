"""Looks at all of a cluster: which pods there are, each proxy, and what is around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from authz.doctor import pods
from authz.doctor.dump import CannotRead
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.pods import Pod, Standing
from authz.doctor.remote import Cluster, only, reached
from authz.doctor.summary import Report
from authz.kube import Resource

Json = dict[str, Any]

_NAMESPACES: Final = Resource("namespaces", metadata_only=True)
_NETWORK: Final = Resource("configmaps", namespace="knative-serving", name="config-network")


def look(
    report: Report,
    expected: Expected,
    namespaces: Iterable[str],
    tell: Callable[[int, int], None],
) -> None:
    """Examine each proxy of a cluster.

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
        ambient = pods.ambient_namespaces(_may_list(cluster, _NAMESPACES, report))
        found = [
            pod
            for space in only(wanted)
            for pod in pods.pods(
                cluster.listed(Resource("pods", namespace=space), pods.slim), ambient
            )
        ]
        what = f"its label {pods.MODE} is ambient"
        report.findings += [
            Finding(it, "namespace", what, Rule.AMBIENT)
            for it in sorted(ambient)
            if not wanted or it in wanted
        ]
        report.findings += pods.uncovered(found)
        report.skipped |= pods.skipped(found)
        _examine(cluster, found, report, expected.beside(_mesh_mode(cluster)), tell)


def _examine(
    cluster: Cluster,
    found: Sequence[Pod],
    report: Report,
    expected: Expected,
    tell: Callable[[int, int], None],
) -> None:
    asked = [it for it in found if it.standing is Standing.PROXY and not it.waits]
    revisions = {str(it): it.revision for it in asked}
    for number, source in enumerate(cluster.dumps(asked), 1):
        report.look(source, expected, pod=source.name, revision=revisions[source.name])
        tell(number, len(asked))


def _may_list(cluster: Cluster, resource: Resource, report: Report) -> list[Json]:
    """What there is of a kind; if it may not be looked at, that is told."""
    if not cluster.sees_objects:
        return []
    try:
        return cluster.listed(resource)
    except CannotRead as error:
        report.unreadable.append(str(error))
        return []


def _mesh_mode(cluster: Cluster) -> str:
    """Knative's `mesh-compatibility-mode`; empty, if it cannot be had."""
    try:
        [found] = cluster.listed(_NETWORK)
        return str((found.get("data") or {}).get("mesh-compatibility-mode", "auto"))
    except (CannotRead, ValueError, AttributeError):
        return ""
