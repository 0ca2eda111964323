"""Writes into each `Grant` whether it counts: the condition `Accepted`.

Every server writes, and no one leads. Each writes once for each thing that it has to say of a
generation, and only if the object does not say so already: servers that for a moment have different
policy files do not go on contradicting each other.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from authz.backoff import Backoff
from authz.kube import ApiServer, KubeError, Pace
from authz.kube.api import Object
from authz.policysource.cluster_objects import GRANTS
from authz.policysource.merge import GrantName, GrantStatus

TYPE: Final = "Accepted"

_PAUSE: Final = 0.05  # seconds between two writes: policy is no reason to storm the API server
_HESITATE: Final = 2.0  # seconds at most, in which another server may have said it


class StatusWriter:
    """`saw` objects, `want` statuses, `run` for ever.

    `now` is in seconds since the epoch; `complain` is told why a status cannot be written.
    """

    def __init__(
        self,
        api: ApiServer,
        pace: Pace,
        now: Callable[[], float],
        complain: Callable[[str], None],
    ) -> None:
        self._api = api
        self._pace = pace
        self._now = now
        self._complain = complain
        self._backoff = Backoff(pace.uniform)
        self._objects: dict[GrantName, Object] = {}
        self._wanted: Mapping[GrantName, GrantStatus] = {}
        self._written: dict[GrantName, tuple[Any, Any, GrantStatus]] = {}
        self._to_do = asyncio.Event()

    def saw(self, where: GrantName, thing: Object) -> None:
        """This is what the object says now."""
        self._objects[where] = thing
        uid, generation, _ = self._written.get(where, (None, None, None))
        metadata = thing["metadata"]
        if where in self._wanted and (metadata.get("uid"), metadata.get("generation")) != (
            uid,
            generation,
        ):
            self._to_do.set()

    def forget(self, where: GrantName) -> None:
        """The object is gone."""
        self._objects.pop(where, None)
        self._written.pop(where, None)

    def want(self, statuses: Mapping[GrantName, GrantStatus]) -> None:
        """This is what became of the grants."""
        self._wanted = statuses
        self._to_do.set()

    async def run(self) -> None:
        """Write what is to be written, for ever."""
        while True:
            await self._to_do.wait()
            await self._pace.sleep(self._pace.uniform(0, _HESITATE))
            self._to_do.clear()
            for where in list(self._wanted):
                try:
                    if await self._tell(where):
                        await self._pace.sleep(_PAUSE)
                except KubeError as error:
                    self._complain(f"status of grant {where}: {error}")
                    await self._pace.sleep(max(self._backoff.after(0), error.retry_after))
                    self._to_do.set()

    async def _tell(self, where: GrantName) -> bool:
        """Whether anything was written.

        Raises:
            KubeError: it could not be, and is to be tried again.
        """
        thing, wanted = self._objects.get(where), self._wanted.get(where)
        if thing is None or wanted is None:
            return False
        metadata = thing["metadata"]
        generation = metadata.get("generation")
        saying = metadata.get("uid"), generation, wanted
        if self._written.get(where) == saying:
            return False
        conditions = _conditions(thing)
        before = next((c for c in conditions if c.get("type") == TYPE), None)
        said = {
            "type": TYPE,
            "status": "True" if wanted.accepted else "False",
            "reason": wanted.reason,
            "message": wanted.message,
            **({} if generation is None else {"observedGeneration": generation}),
        }
        if before is not None and said.items() <= before.items():
            self._written[where] = saying
            return False
        same = before is not None and before.get("status") == said["status"]
        since = before["lastTransitionTime"] if before and same else _moment(self._now())
        others = [condition for condition in conditions if condition.get("type") != TYPE]
        status = {"conditions": [*others, {**said, "lastTransitionTime": since}]}
        try:
            there = replace(GRANTS, namespace=where.namespace)
            await self._api.replace(there, {**thing, "status": status}, subresource="status")
        except KubeError as error:
            # It changed or is gone, which is seen soon; then it is said of what it is by then.
            if error.status not in (404, 409):
                raise
            return True
        self._written[where] = saying
        return True


def _conditions(thing: Object) -> list[dict[str, Any]]:
    status = thing.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if not isinstance(conditions, list):
        return []
    return [condition for condition in conditions if isinstance(condition, dict)]


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
