"""Follow objects: list them, watch from there, and never stop, whatever the API server does."""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from authz.backoff import Backoff
from authz.kube.api import ApiServer, Object, Resource
from authz.kube.errors import Gone, Interrupted, KubeError

_CHANGES: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})


class Listed(NamedTuple):
    """All objects there are. What was known before and is not among them is gone."""

    objects: list[Object]


class Changed(NamedTuple):
    """One object was made, changed or deleted."""

    object: Object
    deleted: bool


class Alive(NamedTuple):
    """The API server just showed that it would tell of changes, and told of none."""


class Failed(NamedTuple):
    """The API server could not be asked; it will be asked again."""

    error: KubeError


Seen = Listed | Changed | Alive | Failed


@dataclass(frozen=True, slots=True)
class Pace:
    """When to do what, in seconds.

    `lease` is for how long one watch runs, or a third less or more. Each new one proves that the
    API server is there and still lets us, so the age of what is known is told to within a lease.
    After `relist`, the first new watch begins with a list: where the cluster was restored from a
    backup, a watch may wait in silence for versions that are yet to come.
    """

    lease: float = 30.0
    relist: float = math.inf
    uniform: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


async def follow(
    api: ApiServer,
    resource: Resource,
    pace: Pace = Pace(),
    keep: Callable[[Object], Object | None] = lambda thing: thing,
) -> AsyncGenerator[Seen, None]:
    """Yield what is seen, for ever. Close it to end it. For `keep`, see `ApiServer.list`.

    A connection that breaks is news only if the next one fails: the watch goes on from the last
    version that it heard of. Where the API server has forgotten that one, all is listed again.
    """
    backoff = Backoff(pace.uniform)
    version, listed = None, 0.0
    while True:
        retry_after, opened = 0.0, None
        try:
            if version is None or pace.monotonic() - listed >= pace.relist:
                objects, version = await api.list(resource, keep)
                listed = pace.monotonic()
                yield Listed(objects)
            lease = pace.uniform(pace.lease * 2 / 3, pace.lease * 4 / 3)
            async with aclosing(api.watch(resource, version, lease)) as events:
                async for event in events:
                    if event is None:
                        opened = pace.monotonic()
                        yield Alive()
                        continue
                    version, seen = _read(event, resource)
                    yield seen
        except Gone:
            version = None
        except KubeError as error:
            # A busy server is not asked for more. Else what we know may be part of the problem.
            if not (isinstance(error, Interrupted) or error.retry_after):
                version = None
            if opened is None or not isinstance(error, Interrupted):
                yield Failed(error)
            retry_after = error.retry_after
        well = 0.0 if opened is None else pace.monotonic() - opened
        await pace.sleep(max(backoff.after(well), retry_after))


def _read(event: Object, resource: Resource) -> tuple[str, Seen]:
    kind, thing = event.get("type"), event.get("object")
    metadata: Any = thing.get("metadata") if isinstance(thing, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version or not isinstance(thing, dict):
        raise KubeError(f"a watch of {resource} sent something that is not an event")
    if kind == "BOOKMARK":
        return version, Alive()
    if kind not in _CHANGES:
        raise KubeError(f"a watch of {resource} sent something that is not an event")
    return version, Changed(thing, deleted=kind == "DELETED")
