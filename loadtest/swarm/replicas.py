"""Two replicas of the service, of several workers each, and a place for the one that replaces one.

A replica is replaced as the Deployment of `deploy/` does it: the new one is ready before the old
one gets SIGTERM; then the old one leaves the list of endpoints that sidecars have, and drains.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.lab.harness.ports import Endpoint
from authz.lab.harness.processes import Child
from authz.lab.harness.service import serving
from authz.lab.world.model import Json
from loadtest import processes
from loadtest.swarm.control import StackFailed

COUNT: Final = 2
WORKERS: Final = 2
_KNOWN_SECONDS: Final = 0.5  # until sidecars hear that a pod is going


@dataclass
class Place:
    """Where a replica may run."""

    listen: Endpoint
    http: Endpoint
    child: Child | None = field(default=None, repr=False)


class Replicas:
    """The servers, and the list of endpoints that the sidecars read."""

    def __init__(
        self,
        places: Sequence[Place],
        environment: Mapping[str, str],
        cluster: str,
        directory: Path,
        stack: AsyncExitStack,
    ) -> None:
        self._places = places
        self._environment = environment
        self._cluster = cluster
        self._directory = directory
        self._stack = stack
        self.endpoints_file = directory / "endpoints.json"
        self._version = 0

    @property
    def addresses(self) -> list[str]:
        """All places, in use or not."""
        return [str(place.listen) for place in self._places]

    async def start(self) -> None:
        """Run as many as there should be."""
        await asyncio.gather(*(self._run(place) for place in self._places[:COUNT]))
        self._publish()

    async def replace(self) -> None:
        """Replace the one that runs longest.

        Raises:
            CouldNotStart: the new one did not come up.
            StackFailed: the old one did not end well.
        """
        fresh = next(place for place in self._places if place.child is None)
        await self._run(fresh)
        self._publish()
        old = next(place for place in self._places if place is not fresh and place.child)
        leaving, old.child = old.child, None
        assert leaving is not None  # noqa: S101 - looked for just now
        leaving.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(_KNOWN_SECONDS)
        self._publish()
        if code := await leaving.process.wait():
            raise StackFailed(f"a replica that should drain ended with {code}")
        self._places = [place for place in self._places if place is not old] + [old]

    def kill_worker(self) -> None:
        """End a worker of some replica without warning."""
        running = random.choice([it.child for it in self._places if it.child])  # noqa: S311
        parent = running.process.pid
        worker = random.choice(sorted(processes.family(parent) - {parent}))  # noqa: S311
        os.kill(worker, signal.SIGKILL)

    def some(self) -> Endpoint:
        """Where the one listens that runs longest."""
        return next(place.listen for place in self._places if place.child)

    async def crash(self) -> None:
        """End all of them without warning."""
        await asyncio.gather(*(it.child.kill() for it in self._places if it.child))

    def memory(self) -> int:
        """Bytes that all of them hold."""
        return sum(
            processes.resident(processes.family(it.child.process.pid))
            for it in self._places
            if it.child
        )

    async def _run(self, place: Place) -> None:
        named = {
            "AUTHZ_LISTEN": str(place.listen),
            "AUTHZ_HTTP_LISTEN": str(place.http),
            "AUTHZ_WORKERS": str(WORKERS),
        }
        log = self._directory / f"authz-{place.listen.port}.log"
        started = serving({**self._environment, **named}, log)
        place.child = await self._stack.enter_async_context(started)

    def _publish(self) -> None:
        """Tell the sidecars, as istiod does by EDS. Envoy watches for a file that is moved here."""
        self._version += 1
        endpoints: list[Json] = [
            {"endpoint": {"address": place.listen.address}} for place in self._places if place.child
        ]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": self._cluster,
            "endpoints": [{"lb_endpoints": endpoints}],
        }
        fresh = self.endpoints_file.with_suffix(".new")
        fresh.write_text(
            json.dumps({"version_info": str(self._version), "resources": [assignment]})
        )
        fresh.replace(self.endpoints_file)
