"""All that can be told from one proxy's dump."""

from __future__ import annotations

from authz.doctor.capture import capture
from authz.doctor.clusters import clusters
from authz.doctor.dump import Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import listeners
from authz.doctor.routes import routes


def examine(workload: Workload, expected: Expected) -> list[Finding]:
    """Every hole in what a proxy has in force; nothing, if it is sound.

    Raises:
        CannotRead: the documents do not fit this proxy.
    """
    refused = [Finding(workload.name, *it, Rule.REFUSED) for it in workload.refused]
    checks = (listeners, capture, clusters, routes)
    found = [it for check in checks for it in check(workload, expected)]
    return list(dict.fromkeys([*refused, *found]))
