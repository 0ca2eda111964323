"""A cluster's labels, grants and claims, and what follows them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from authz.domain.names import Namespace
from authz.domain.policy import Policy
from authz.kube import Pace
from authz.policysource.merge import Merged
from authz.policysource.source import ClusterPolicy
from tests.kube_double import Object

NOW = 1_800_000_000.0

WEB, DB, SHOP = map(Namespace, ("web", "db", "shop"))


def namespace(name: str, **labels: str) -> Object:
    ours = {f"tenant-authz.dev/{key}": value for key, value in labels.items()}
    return {"metadata": {"name": name, "labels": {"team": "x", **ours}}}


def grant(name: str, to: str, generation: int = 1, **spec: Any) -> Object:
    if "from_" in spec:
        spec["from"] = spec.pop("from_")
    metadata = {
        "name": name,
        "namespace": to,
        "generation": generation,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }
    return {
        "apiVersion": "tenant-authz.dev/v1alpha1",
        "kind": "Grant",
        "metadata": metadata,
        "spec": spec,
    }


class Followed:
    """What a followed cluster came to."""

    def __init__(self) -> None:
        self.merged: Merged | None = None
        self.problems: list[str] = []
        self.well = 0

    def take(self, merged: Merged) -> None:
        self.merged = merged

    def seen(self, problem: str | None) -> None:
        if problem is None:
            self.well += 1
        else:
            self.problems.append(problem)

    @property
    def policy(self) -> Policy:
        assert self.merged is not None
        return self.merged.policy


@asynccontextmanager
async def followed(base: Policy | None = None) -> AsyncIterator[tuple[Followed, ClusterPolicy]]:
    followed = Followed()

    async def soon(_: float) -> None:
        await asyncio.sleep(0.005)

    cluster = ClusterPolicy(
        seen=followed.seen,
        merged=followed.take,
        untold=followed.problems.append,
        now=lambda: NOW,
        pace=Pace(sleep=soon),
    )
    cluster.use(base or Policy())
    task = asyncio.create_task(cluster.run())
    try:
        yield followed, cluster
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.close()


def claim(host: str, namespace: object) -> Object:
    return {"metadata": {"name": host}, "spec": {"namespace": namespace}}
