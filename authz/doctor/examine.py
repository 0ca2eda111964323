"""All that can be told from one proxy's dump."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.doctor.around import hops
from authz.doctor.bootstrap import bootstrap
from authz.doctor.capture import capture
from authz.doctor.clusters import clusters
from authz.doctor.complete import complete
from authz.doctor.dump import Workload, of_the_form
from authz.doctor.expected import Expected
from authz.doctor.filters import filters
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import listeners
from authz.doctor.policies import policies
from authz.doctor.routes import outbound
from authz.doctor.to_service import service

_CHECKS: Final = (filters, listeners, policies, capture, service, clusters, hops)


def examine(workload: Workload, expected: Expected) -> list[Finding]:
    """Every hole in what a proxy has in force; nothing, if it is sound.

    Raises:
        CannotRead: the documents do not fit this proxy, or it says what no Envoy says.
    """
    with of_the_form(workload.name):
        return _examine(workload, expected)


def _examine(workload: Workload, expected: Expected) -> list[Finding]:
    found = [Finding(workload.name, *it, Rule.REFUSED) for it in workload.refused]
    found += [it for check in _CHECKS for it in check(workload, expected)]
    found += [*_delivered_routes(workload, expected), *complete(workload), *bootstrap(workload)]
    return list(dict.fromkeys(found))


def _delivered_routes(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """Routes that istiod delivers apart from the listeners."""
    shape = outbound(expected.known(workload), hop=workload.proxy.kind == "gateway")
    for config in workload.routes:
        for odd in shape(config, ""):
            yield Finding(workload.name, f"routes {config.get('name', '')}", str(odd), odd.rule)
