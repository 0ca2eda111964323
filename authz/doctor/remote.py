"""All of a cluster: its objects, and the dump of each proxy, by the Kubernetes API.

A proxy's admin endpoint listens on the pod's loopback only, so it is reached as `kubectl
port-forward` does. Where no credentials are found that our own client knows, but there is a kubectl
that has some (that of k3s knows its own), kubectl is asked for pods and proxies.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

from authz.doctor.collect import LONGEST, Source
from authz.doctor.dump import CannotRead
from authz.doctor.pods import PROXY, Pod
from authz.doctor.summary import Gone
from authz.kube import ApiServer, KubeError, NoCluster, Resource
from authz.kube.credentials import environment_of_others
from authz.kube.forward import get_from_pod

Json = dict[str, Any]

_SECONDS: Final = 60.0
_AT_ONCE: Final = 8  # each is a stream through the API server and a node
_TARGET: Final = "/config_dump"
_ADMIN: Final = ("pilot-agent", "request", "GET", "config_dump")
_NOWHERE: Final = "localhost:8080"
"""Whom kubectl asks where it is not configured either."""

Keep: TypeAlias = Callable[[Json], Json]


def everything(thing: Json) -> Json:
    """The whole of an object."""
    return thing


class Cluster(Protocol):
    """A way to a cluster."""

    sees_objects: bool
    """Whether it can be asked for more than pods and proxies."""

    def listed(self, resource: Resource, keep: Keep = everything) -> list[Json]:
        """The objects of a kind, of each what `keep` makes of it; none without such a kind.

        Raises:
            CannotRead: the cluster does not let us, or does not answer.
        """

    def dumps(self, pods: Sequence[Pod]) -> Iterator[Source]:
        """The dump of each pod's proxy, as they come; no more in memory than are asked at once."""


@contextmanager
def reached() -> Iterator[Cluster]:
    """A way to the cluster, as long as the block lasts.

    Raises:
        KubeError: there is none.
    """
    with asyncio.Runner() as runner:
        server = ApiServer()
        try:
            runner.run(server.namespace())
        except NoCluster as error:
            # Never for a configuration that we refuse: kubectl takes an API server that proves
            # nothing, and whoever answers there may send sound dumps.
            if shutil.which("kubectl") is None:
                raise
            yield _Kubectl(error)
            return
        try:
            yield _Api(runner, server)
        finally:
            runner.run(server.close())


class _Api:
    """By the Kubernetes API, with `list` of what is looked at and `pods/portforward`."""

    sees_objects = True

    def __init__(self, runner: asyncio.Runner, server: ApiServer) -> None:
        self._runner = runner
        self._server = server

    def listed(self, resource: Resource, keep: Keep = everything) -> list[Json]:
        try:
            found, _ = self._runner.run(self._server.list(resource, keep))
        except KubeError as error:
            if error.status == 404:
                return []
            raise CannotRead(str(error)) from None
        return found

    def dumps(self, pods: Sequence[Pod]) -> Iterator[Source]:
        come: asyncio.Queue[Source] = asyncio.Queue(1)
        workers = self._runner.run(self._started(pods, come))
        try:
            for _ in pods:
                yield self._runner.run(come.get())
        finally:
            for worker in workers:
                worker.cancel()

    async def _started(
        self, pods: Sequence[Pod], come: asyncio.Queue[Source]
    ) -> list[asyncio.Task[None]]:
        left = iter(pods)

        async def work() -> None:
            for pod in left:
                try:
                    source = await self._dump(pod)
                except Exception as error:  # noqa: BLE001 - or who reads would wait for ever
                    source = _failed(str(pod), error)
                await come.put(source)

        return [asyncio.create_task(work()) for _ in range(_AT_ONCE)]

    async def _dump(self, pod: Pod) -> Source:
        try:
            place = (pod.namespace, pod.name, pod.admin_port, _TARGET)
            content = await get_from_pod(self._server, *place, longest=LONGEST, seconds=_SECONDS)
        except KubeError as error:
            return _failed(str(pod), await self._problem(pod, error))
        text = content.decode("utf-8", "replace")
        return Source(str(pod), lambda: text)

    async def _problem(self, pod: Pod, error: KubeError) -> CannotRead:
        """What to say of it: a pod that has ended meanwhile is no problem."""
        try:
            one = Resource("pods", namespace=pod.namespace, name=pod.name)
            found, _ = await self._server.list(one)
        except KubeError:
            return CannotRead(f"{pod}: {error}")
        if not found or "deletionTimestamp" in found[0]["metadata"]:
            return Gone(f"{pod}: it ended meanwhile")
        if found[0].get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            return Gone(f"{pod}: it ended meanwhile")
        return CannotRead(f"{pod}: {error}")


class _Kubectl:
    """By kubectl, which has credentials of its own; it takes the right to `create` `pods/exec`."""

    sees_objects = False

    def __init__(self, why: NoCluster) -> None:
        self._why = why
        """Why our own client is not asked."""

    def listed(self, resource: Resource, keep: Keep = everything) -> list[Json]:
        if resource.namespace:
            places = [f"--namespace={resource.namespace}"]
        else:
            places = ["--all-namespaces"]
        kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        name = [resource.name] if resource.name else []
        try:
            text = _run("get", kind, *name, *places, "--output=json")
        except CannotRead as error:
            if _NOWHERE in str(error):
                raise self._why from None
            raise
        try:
            found = json.loads(text)
            return [keep(it) for it in ([found] if resource.name else found["items"])]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CannotRead(f"kubectl get {kind}: its answer is no list of objects") from None

    def dumps(self, pods: Sequence[Pod]) -> Iterator[Source]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(pods), _AT_ONCE):
                several = pods[start : start + _AT_ONCE]
                for pod, future in [(it, pool.submit(_executed, it)) for it in several]:
                    yield Source(str(pod), future.result)


def _executed(pod: Pod) -> str:
    place = (f"--namespace={pod.namespace}", pod.name, f"--container={PROXY}")
    return _run("exec", *place, "--", *_ADMIN)


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and names come from the API server
            ["kubectl", *arguments],  # noqa: S607 - the one that is used otherwise
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env=environment_of_others(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRead(f"kubectl {' '.join(arguments)}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[:300]
        raise CannotRead(f"kubectl {' '.join(arguments)}: {said}")
    return done.stdout.decode(errors="replace")


def _failed(name: str, error: Exception) -> Source:
    def read() -> str:
        raise error

    return Source(name, read)


def only(namespaces: Iterable[str]) -> tuple[str | None, ...]:
    """Where to list: in each of these namespaces, or once in all."""
    return tuple(dict.fromkeys(namespaces)) or (None,)
