"""Is the dump complete: is all there that a proxy of this kind must have?"""

from __future__ import annotations

from collections.abc import Iterator

from authz.doctor.dump import Json, Workload
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import OUTBOUND, labelled


def complete(workload: Workload) -> Iterator[Finding]:
    """What is missing, or not understood."""

    def missing(where: str, what: str) -> Finding:
        return Finding(workload.name, where, what, Rule.INCOMPLETE)

    names = {listener["name"] for listener in workload.listeners}
    if not names:
        yield missing("listeners", "there is none")
    elif workload.proxy.kind == "sidecar" and OUTBOUND not in names:
        yield missing("listeners", f"{OUTBOUND} is missing: what leaves is not captured")
    if not workload.clusters:
        yield missing("clusters", "there is none")
    delivered = {route.get("name") for route in workload.routes}
    for name in sorted(_referred(workload) - delivered):
        yield missing(f"routes {name}", "a listener refers to them, and they are not in the dump")
    for kind in workload.unread:
        yield missing(kind, "the doctor does not know this part of a dump")


def _referred(workload: Workload) -> set[str]:
    """Names of route configurations that listeners get by RDS."""
    return {
        manager["rds"].get("route_config_name", "")
        for listener in workload.listeners
        for _, chain in labelled(listener)
        for manager in _managers(chain)
        if "rds" in manager
    }


def _managers(chain: Json) -> Iterator[Json]:
    for it in chain.get("filters", ()):
        if isinstance(it.get("typed_config"), dict):
            yield it["typed_config"]
