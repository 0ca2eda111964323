"""A client of the API server for what recordings and live boxes need: apply, delete, look.

Where two of Istio's objects contend, istiod prefers the older, and of one age the one whose name
comes first; Kubernetes knows age by the second. So that a world gives the same result each time,
objects whose age counts are created in the order of their names, one after the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx

from authz.errors import AuthzError

Json: TypeAlias = dict[str, Any]

_MANAGER: Final = "tenant-authz-lab"
_AT_ONCE: Final = 16
_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.02
_FIRST: Final = ("CustomResourceDefinition", "Namespace", "ServiceAccount", "Pod")
"""Kinds that come before all others, in this order; their age does not count."""


class Refused(AuthzError):
    """The API server did not take an object, or does not have it."""


class Api:
    """What an API server can be asked."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    async def apply(self, objects: Iterable[Json]) -> None:
        """Create or change objects, with their status.

        Raises:
            Refused: the API server does not take one.
        """
        kinds = _by_kind(objects)
        for kind in _FIRST:
            if found := kinds.pop(kind, []):
                await self.path(found[0])  # sooner than all at once ask for it
                await self._each(self._apply, found)
                if kind == "CustomResourceDefinition":
                    await self._each(self._established, found)
        await asyncio.gather(*map(self._one_after_the_other, kinds.values()))

    async def delete(self, objects: Iterable[Json]) -> None:
        """Delete objects at once, without grace; those that are not there are no error."""
        kinds = _by_kind(objects)
        last = [kinds.pop(kind, []) for kind in reversed(_FIRST)]
        for found in ([it for kind in kinds.values() for it in kind], *last):
            await self._each(self._delete, found)

    async def replace(self, before: Sequence[Json], wanted: Sequence[Json]) -> None:
        """Let `wanted` be there instead of what was applied `before`.

        Where a kind's objects differ and their age counts, all of that kind are made anew.

        Raises:
            Refused: the API server does not take one.
        """
        old, new = _by_kind(before), _by_kind(wanted)
        gone: list[Json] = []
        made: list[Json] = []
        for kind in dict.fromkeys([*old, *new]):
            was, becomes = old.get(kind, []), new.get(kind, [])
            stays = [it for it in was if it in becomes]
            if kind not in _FIRST and len(stays) != max(len(was), len(becomes)):
                stays = []
            gone += [it for it in was if it not in stays]
            made += [one for one in becomes if one not in stays]
        await self.delete(gone)
        await self.apply(made)

    async def read(self, path: str) -> Json:
        """What a GET says.

        Raises:
            Refused: any status but 200.
        """
        return _content(await self.http.get(path), path)

    async def path(self, item: Json) -> str:
        """Where an object is."""
        version, kind = item["apiVersion"], item["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in self._kinds.get(version, {}):
            found = (await self.read(base))["resources"]
            self._kinds[version] = {
                it["kind"]: (it["name"], it["namespaced"]) for it in found if "/" not in it["name"]
            }
        try:
            plural, namespaced = self._kinds[version][kind]
        except KeyError:
            raise Refused(f"{version} has no kind {kind}: is its CRD applied?") from None
        space = f"/namespaces/{item['metadata']['namespace']}" if namespaced else ""
        return f"{base}{space}/{plural}/{item['metadata']['name']}"

    async def _one_after_the_other(self, objects: Sequence[Json]) -> None:
        for it in sorted(objects, key=_precedence):
            await self._apply(it)

    async def _apply(self, item: Json) -> Json:
        path = await self.path(item)
        made = await self._patch(path, {key: it for key, it in item.items() if key != "status"})
        if "status" in item:
            await self._patch(f"{path}/status", item)
        return made

    async def _patch(self, path: str, item: Json) -> Json:
        answer = await self.http.patch(
            path,
            params={"fieldManager": _MANAGER, "force": "true"},
            headers={"content-type": "application/apply-patch+yaml"},
            json=item,
        )
        return _content(answer, path)

    async def _delete(self, item: Json) -> None:
        path = await self.path(item)
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        answer = await self.http.request("DELETE", path, json=options)
        if answer.status_code != 404:
            _content(answer, path)
        if item["kind"] == "Namespace":  # nobody else here does what a namespace's end needs
            await self.http.put(f"{path}/finalize", json={**item, "spec": {"finalizers": []}})

            async def gone() -> bool:
                return (await self.http.get(path)).status_code == 404

            await _until(gone, f"{path} to be gone")

    async def _established(self, item: Json) -> None:
        path = await self.path(item)

        async def established() -> bool:
            said = (await self.read(path)).get("status", {}).get("conditions") or []
            return any(it["type"] == "Established" and it["status"] == "True" for it in said)

        await _until(established, f"{path} to be established")

    async def _each(self, act: Any, objects: Sequence[Json]) -> list[Any]:
        """Do something to all, some at once."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(item: Json) -> Any:
            async with slots:
                return await act(item)

        return await asyncio.gather(*map(one, objects))


@asynccontextmanager
async def connected(address: str, token: str, ca_file: Path) -> AsyncIterator[Api]:
    """A client of the API server at `address`, as long as the block lasts."""
    client = httpx.AsyncClient(
        base_url=address,
        headers={"authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=ca_file),
        limits=httpx.Limits(max_connections=_AT_ONCE),
        timeout=_SECONDS,
        trust_env=False,
    )
    async with client:
        yield Api(client)


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            while not await condition():  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise Refused(f"waited {_SECONDS:.0f} s for {what}") from None


def _by_kind(objects: Iterable[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for it in objects:
        found.setdefault(it["kind"], []).append(it)
    return found


def _precedence(item: Json) -> tuple[str, ...]:
    """istio/istio pilot/pkg/model/config.go, push_context.go; for EnvoyFilters envoyfilter.go."""
    name, namespace = item["metadata"]["name"], item["metadata"].get("namespace", "")
    return (f"{name}.{namespace}",) if item["kind"] == "EnvoyFilter" else (name, namespace)


def _content(answer: httpx.Response, path: str) -> Json:
    if answer.status_code not in {200, 201, 202}:
        method = answer.request.method
        raise Refused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
    found: Json = answer.json()
    return found
