"""Keeps what the cluster says of policy up to date, and tells each `Grant` what became of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from authz.domain.names import Namespace
from authz.domain.policy import Grant, Policy
from authz.kube import ApiServer, Changed, Failed, Listed, Pace, Resource, Seen, follow
from authz.kube.api import Object
from authz.policysource.cluster_objects import (
    CLAIMS,
    GRANTS,
    NAMESPACES,
    claim_of,
    grant_name,
    grant_of,
    labels_of,
)
from authz.policysource.merge import GrantName, Labels, Merged, merge
from authz.policysource.status import StatusWriter

_PACE: Final = Pace()
_GATHER: Final = 0.1  # seconds in which changes are gathered into one merge
_MISSING: Final = "; install deploy/components/policy-from-cluster"
_METADATA: Final = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"}
)
_LONGEST_FIELD: Final = 300
_MOST_FIELDS: Final = 8
_SOMETHING_ELSE: Final = {"(something else)": True}

Age = tuple[str, str]


class ClusterPolicy:
    """Follows namespaces, grants and domain claims from `run` on. All calls are of one event loop.

    Nothing is merged before all were read and `use` was called: a policy without the labels would
    deny what it should allow, and one without the platform's part as well. Where the cluster does
    not know the kind of the claims, there are none.

    Args:
        seen: told after each look at the cluster what was wrong, or `None`: all is well.
        merged: given each new policy.
        untold: told why a grant's status cannot be written.
        now: seconds since the epoch.
        pace: when to watch anew.
    """

    def __init__(
        self,
        *,
        seen: Callable[[str | None], None],
        merged: Callable[[Merged], None],
        untold: Callable[[str], None],
        now: Callable[[], float],
        pace: Pace = _PACE,
    ) -> None:
        self._base: Policy | None = None
        self._seen = seen
        self._merged = merged
        self._pace = pace
        self._api = ApiServer()
        self._labels: dict[Namespace, Labels] = {}
        self._grants: dict[GrantName, tuple[Age, Grant | str]] = {}
        self._claims: dict[str, Namespace] = {}
        self._statuses = StatusWriter(self._api, pace, now, complain=untold)
        self._to_list = {NAMESPACES, GRANTS, CLAIMS}
        self._failing: dict[Resource, str] = {}
        self._changed = asyncio.Event()

    def use(self, base: Policy) -> None:
        """This is what the platform's own policy says from now on."""
        self._base = base
        self._changed.set()

    async def run(self) -> None:
        """Follow the cluster for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(NAMESPACES, self._namespaces_listed, self._namespace))
            tasks.create_task(self._follow(GRANTS, self._grants_listed, self._grant))
            tasks.create_task(self._follow(CLAIMS, self._claims_listed, self._claim))
            tasks.create_task(self._merge())
            tasks.create_task(self._statuses.run())

    async def close(self) -> None:
        """Let go of the API server."""
        await self._api.close()

    # -- what is seen --------------------------------------------------------------------------

    async def _follow(
        self,
        resource: Resource,
        listed: Callable[[list[dict[str, Any]]], None],
        changed: Callable[[dict[str, Any], bool], None],
    ) -> None:
        keep = _KEPT[resource]
        seen: AsyncGenerator[Seen, None] = follow(self._api, resource, self._pace, keep)
        async with aclosing(seen):
            async for look in seen:
                match look:
                    case Failed(error) if resource is CLAIMS and error.status == 404:
                        listed([])
                        self._to_list.discard(resource)
                        self._changed.set()
                    case Failed(error):
                        hint = _MISSING if resource is GRANTS and error.status == 404 else ""
                        self._failing[resource] = f"{error}{hint}"
                        self._seen(self._failing[resource])
                        continue
                    case Listed(objects):
                        listed(objects)
                        self._to_list.discard(resource)
                        self._changed.set()
                    case Changed(thing, deleted):
                        changed(thing, deleted)
                self._failing.pop(resource, None)
                if not self._failing:
                    self._seen(None)

    def _namespaces_listed(self, objects: list[dict[str, Any]]) -> None:
        self._labels.clear()
        for thing in objects:
            self._namespace(thing, False)

    def _namespace(self, thing: dict[str, Any], deleted: bool) -> None:
        metadata = thing.get("metadata") or {}
        name, said = Namespace(str(metadata.get("name"))), labels_of(metadata)
        if deleted:
            said = None
        if said == self._labels.get(name):
            return
        if said is None:
            del self._labels[name]
        else:
            self._labels[name] = said
        self._changed.set()

    def _grants_listed(self, objects: list[dict[str, Any]]) -> None:
        names = {grant_name(thing.get("metadata") or {}) for thing in objects}
        for gone in [name for name in self._grants if name not in names]:
            del self._grants[gone]
            self._statuses.forget(gone)
        for thing in objects:
            self._grant(thing, False)

    def _grant(self, thing: dict[str, Any], deleted: bool) -> None:
        metadata = thing.get("metadata") or {}
        where = grant_name(metadata)
        if where is None:
            return
        if deleted:
            self._statuses.forget(where)
            if self._grants.pop(where, None) is not None:
                self._changed.set()
            return
        thing = _needed(thing)
        self._statuses.saw(where, thing)
        age = str(metadata.get("creationTimestamp", "")), str(metadata.get("uid", ""))
        known = age, grant_of(thing, where.namespace)
        if self._grants.get(where) != known:
            self._grants[where] = known
            self._changed.set()

    def _claims_listed(self, objects: list[dict[str, Any]]) -> None:
        self._claims = dict(filter(None, map(claim_of, objects)))

    def _claim(self, thing: dict[str, Any], deleted: bool) -> None:
        self._claims.pop(str((thing.get("metadata") or {}).get("name")), None)
        if not deleted and (said := claim_of(thing)) is not None:
            self._claims.update([said])
        self._changed.set()

    # -- what it comes to ----------------------------------------------------------------------

    async def _merge(self) -> None:
        last: Merged | None = None
        while True:
            await self._changed.wait()
            await self._pace.sleep(_GATHER)
            self._changed.clear()
            if self._base is None or self._to_list:
                continue
            oldest_first = sorted(self._grants.items(), key=lambda item: (item[1][0], item[0]))
            grants = {where: grant for where, (_, grant) in oldest_first}
            # With 10,000 namespaces it takes 25 ms, for which requests must not wait.
            known = dict(self._labels), grants, dict(self._claims)
            merged = await asyncio.to_thread(merge, self._base, *known)
            self._statuses.want(merged.statuses)
            if merged != last:
                last = merged
                self._merged(merged)


def _with_labels(thing: Object) -> Object | None:
    """A namespace that says something to us, and no more of it than that."""
    metadata = thing.get("metadata") or {}
    if labels_of(metadata) is None:
        return None
    return {"metadata": {"name": metadata.get("name"), "labels": metadata["labels"]}}


def _needed(thing: Object) -> Object:
    """A grant as far as it is read or written here: the rest may be whatever a tenant likes."""
    metadata = thing.get("metadata") or {}
    small: Object = {"apiVersion": f"{GRANTS.group}/{GRANTS.version}", "kind": "Grant"}
    if "status" in thing:
        small["status"] = thing["status"]
    small["metadata"] = {name: metadata[name] for name in _METADATA if name in metadata}
    spec = thing.get("spec")
    small["spec"] = spec if _is_flat_and_small(spec) else _SOMETHING_ELSE
    return small


def _small_claim(thing: Object) -> Object | None:
    """What a claim says, and no more of it."""
    said = claim_of(thing)
    return said and {"metadata": {"name": said[0]}, "spec": {"namespace": said[1]}}


_KEPT: Final[dict[Resource, Callable[[Object], Object | None]]] = {
    NAMESPACES: _with_labels,
    GRANTS: _needed,
    CLAIMS: _small_claim,
}


def _is_flat_and_small(spec: object) -> bool:
    """Whether it may be a grant's. What is nested is none, and may be too deep to be written."""
    return (
        isinstance(spec, dict)
        and len(spec) <= _MOST_FIELDS
        and all(
            isinstance(value, str | int | float | None) and len(f"{name}{value}") <= _LONGEST_FIELD
            for name, value in spec.items()
        )
    )
