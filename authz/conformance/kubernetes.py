"""The matrix on Kubernetes: makes two tenants, calls from pods of theirs, takes everything away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from authz.conformance import objects
from authz.conformance.matrix import Caller
from authz.conformance.run import CouldNotProve
from authz.kube import ApiServer, KubeError, Resource

Json = dict[str, Any]

NAMES: Final = {"a": "tenant-authz-conformance-a", "b": "tenant-authz-conformance-b"}
_POLL: Final = 1.0  # seconds
_KNATIVE: Final = "serving.knative.dev"
_REFUSED: Final = frozenset({400, 403, 422})  # by an admission policy


@dataclass(frozen=True)
class Site:
    """What the tenants are made with.

    Args:
        image: has `python3`; ours does.
        labels: of both namespaces, so that their pods get sidecars.
        prepared: the namespaces are there and stay; else they are made, and deleted at the end.
        patience: how many polls, a second apart, to wait for what was made.
    """

    image: str
    labels: Mapping[str, str] = field(default_factory=lambda: {"istio-injection": "enabled"})
    prepared: bool = False
    patience: int = 300


Pause = Callable[[], Awaitable[None]]


async def _second() -> None:
    await asyncio.sleep(_POLL)


@asynccontextmanager
async def driver(site: Site, pause: Pause = _second) -> AsyncIterator[KubernetesTenants]:
    """Two tenants as long as the block lasts, on the cluster that KUBECONFIG or our pod names.

    Raises:
        CouldNotProve: they did not come up, or are there already.
        KubeError: the API server does not let us.
    """
    api = ApiServer()
    tenants = KubernetesTenants(api, site, pause)
    try:
        try:
            await tenants.make()
            yield tenants
        finally:
            await tenants.clean()
    finally:
        await api.close()


class KubernetesTenants:
    """Two tenants in a cluster."""

    def __init__(self, api: ApiServer, site: Site, pause: Pause) -> None:
        self._api = api
        self._site = site
        self._pause = pause
        self._made: list[tuple[Resource, str]] = []
        self._numbers = count(1)

    # ---- making ----

    async def make(self) -> None:
        """Make everything, and wait until it runs.

        Raises:
            CouldNotProve: there is something of an earlier run, or it does not come up.
            KubeError: the API server does not let us.
        """
        image = self._site.image
        for space in NAMES.values():
            if not self._site.prepared:
                made = objects.namespace(space, self._site.labels)
                await self._create(Resource("namespaces"), made)
            await self._create(Resource("configmaps", namespace=space), objects.config_map(space))
            for service in objects.services(space):
                await self._create(Resource("services", namespace=space), service)
            await self._create(_deployments(space), objects.deployment(space, image))
            for name in ("hello", "idle"):
                made = objects.knative_service(space, name, image, activator=name == "idle")
                await self._create(_knative(space), made)
        for space in NAMES.values():
            await self._until(_deployments(space), "plain", _is_available)
            for name in ("hello", "idle"):
                await self._until(_knative(space), name, _is_ready)

    async def clean(self) -> None:
        """Delete what was made, the last first. What is deleted with its namespace is not named.

        Raises:
            KubeError: something could not be deleted; the rest was.
        """
        failed: KubeError | None = None
        spaces = [it for it in self._made if it[0].plural == "namespaces"]
        for resource, name in reversed(spaces or self._made):
            try:
                await self._api.delete(resource, name)
            except KubeError as error:
                if error.status != 404:
                    failed = failed or error
        self._made.clear()
        if failed is not None:
            raise failed

    async def _create(self, resource: Resource, made: Json) -> None:
        """Make an object; where one of that name is about to go, when it is gone."""
        name = made["metadata"]["name"]
        for _ in range(self._site.patience):
            try:
                await self._api.create(resource, made)
            except KubeError as error:
                if error.unknown_outcome:
                    self._made.append((resource, name))  # perhaps: it is deleted in any case
                if error.status != 409:
                    raise
            else:
                self._made.append((resource, name))
                return
            if not await self._is_ending(resource, name):
                break
            await self._pause()
        raise CouldNotProve(
            f"{resource} {name} is there already, of an earlier run or not ours: delete it"
        )

    async def _is_ending(self, resource: Resource, name: str) -> bool:
        with suppress(KubeError):  # not all kinds may be listed by a Job
            found, _ = await self._api.list(replace(resource, name=name))
            return all("deletionTimestamp" in it["metadata"] for it in found)
        return False

    # ---- using ----

    async def names(self) -> Mapping[str, str]:
        """Namespaces, and addresses of pods of `a`."""
        space = NAMES["a"]
        pods, _ = await self._api.list(Resource("pods", namespace=space), _address)
        by_app = {pod["app"]: pod["address"] for pod in pods}
        if not {"plain", "hello"} <= by_app.keys():
            raise CouldNotProve(f"pods of plain and hello in {space} have no address yet")
        return {**NAMES, "a_plain": by_app["plain"], "a_hello": by_app["hello"]}

    async def probe(self, caller: Caller, calls: Sequence[Json]) -> list[Json]:
        """Run a pod that makes the calls; one that is not admitted is kept out."""
        space = NAMES["a" if caller == "a" else "b"]
        name = f"probe-{caller}-{next(self._numbers)}"
        sidecar = caller != "bare"
        pods = Resource("pods", namespace=space)
        made = objects.probe(space, name, self._site.image, calls, sidecar=sidecar)
        try:
            await self._create(pods, made)
        except KubeError as error:
            if sidecar or error.status not in _REFUSED or "admission" not in str(error).lower():
                raise
            return [{"status": 0, "error": "its pod is not admitted"} for _ in calls]
        said = await self._until(pods, name, _message)
        with suppress(ValueError):
            came = json.loads(said)
            if isinstance(came, list) and all(isinstance(it, dict) for it in came):
                return came
        raise CouldNotProve(f"pod {space}/{name} says what is no result: {str(said)[:200]!r}")

    async def _until(self, resource: Resource, name: str, found: Callable[[Json], Any]) -> Any:
        one = replace(resource, name=name)
        for _ in range(self._site.patience):
            objects_, _version = await self._api.list(one)
            for it in objects_:
                if result := found(it):
                    return result
            await self._pause()
        raise CouldNotProve(f"{one} was not ready after {self._site.patience} polls: describe it")


def _deployments(space: str) -> Resource:
    return Resource("deployments", group="apps", namespace=space)


def _knative(space: str) -> Resource:
    return Resource("services", group=_KNATIVE, namespace=space)


def _is_available(deployment: Json) -> bool:
    return bool(deployment.get("status", {}).get("availableReplicas"))


def _is_ready(service: Json) -> bool:
    conditions = service.get("status", {}).get("conditions", ())
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


def _message(pod: Json) -> str:
    for status in pod.get("status", {}).get("containerStatuses", ()):
        if status["name"] == objects.PROBE and "terminated" in status.get("state", {}):
            return str(status["state"]["terminated"].get("message") or "nothing")
    return ""


def _address(pod: Json) -> Json | None:
    if "deletionTimestamp" in pod["metadata"]:  # of an earlier run
        return None
    labels = pod["metadata"].get("labels", {})
    app = labels.get(f"{_KNATIVE}/service") or labels.get("app")
    address = pod.get("status", {}).get("podIP")
    return {"app": app, "address": address} if app and address else None
