"""Policy from the cluster, as a server follows it: what is told to log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from authz.domain.policy import Policy
from authz.errors import BadSettings, to_install
from authz.observe import Metrics
from authz.policysource.location import ConfigMapKey

if TYPE_CHECKING:
    from authz.policysource.configmap import PolicyMap
    from authz.policysource.merge import Merged
    from authz.policysource.source import ClusterPolicy

_MOST_LINES: Final = 20
"""Lines that one change may add to the log. What is left out is in the statuses of grants."""


def policy_map(where: ConfigMapKey) -> PolicyMap:
    """What follows a policy in a ConfigMap.

    Raises:
        BadSettings: the packages that it needs are not installed.
    """
    try:
        from authz.policysource.configmap import PolicyMap  # noqa: PLC0415 - 0.1 s, 6 MiB
    except ImportError as error:
        raise _missing("policy_configmap", error) from None
    return PolicyMap(*where)


def cluster_policy(
    use: Callable[[Policy], None],
    fresh: Callable[[], None],
    metrics: Metrics,
    log: structlog.typing.FilteringBoundLogger,
    clock: Callable[[], float],
) -> ClusterPolicy:
    """What follows the cluster once it is run, and gives each new policy to `use`.

    `fresh` is called whenever the cluster was seen to say what is in use.

    Raises:
        BadSettings: the packages that it needs are not installed.
    """
    try:
        from authz.policysource.source import ClusterPolicy  # noqa: PLC0415 - 0.1 s, 6 MiB
    except ImportError as error:
        raise _missing("policy_from_cluster", error) from None
    told = _Told(use, fresh, metrics, log)
    return ClusterPolicy(seen=told.seen, merged=told.merged, untold=told.untold, now=clock)


def _missing(setting: str, error: ImportError) -> BadSettings:
    problem = (
        f"{setting}: it needs more packages, {error.name} is missing: {to_install('kubernetes')}"
    )
    return BadSettings([problem])


class _Told:
    def __init__(
        self,
        use: Callable[[Policy], None],
        fresh: Callable[[], None],
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._use = use
        self._fresh = fresh
        self._metrics = metrics
        self._log = log
        self._problem: str | None = None
        self._untold: str | None = None
        self._known: set[str] = set()

    def seen(self, problem: str | None) -> None:
        """After each look at the cluster."""
        if problem is None:
            self._fresh()
            if self._problem is not None:
                self._log.info("cluster readable again")
        else:
            self._metrics.reload_failed("policy")
            if problem != self._problem:
                self._log.error("cluster not readable, the last policy stays", problem=problem)
        self._problem = problem

    def untold(self, problem: str) -> None:
        """Where a grant's status cannot be written."""
        if problem != self._untold:
            self._log.error("cannot say whether a Grant counts", problem=problem)
        self._untold = problem

    def merged(self, merged: Merged) -> None:
        """After each change of what the policy is made of."""
        refused = {
            f"grant {where}: {status.reason}: {status.message}"
            for where, status in merged.statuses.items()
            if not status.accepted
        }
        problems = refused.union(merged.problems)
        fresh = sorted(problems - self._known)
        self._known = problems
        for problem in fresh[:_MOST_LINES]:
            self._log.warning("does not count in the policy", problem=problem)
        if len(fresh) > _MOST_LINES:
            self._log.warning("does not count in the policy", more=len(fresh) - _MOST_LINES)
        self._use(merged.policy)
