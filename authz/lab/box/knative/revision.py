"""A revision as the activator sees it: its pods, whether they are well, and who waits for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from authz.lab.box.knative.messages import Headers, Request
from authz.lab.box.knative.net import call

PROBE_TIMEOUT: Final = 0.3
PROBE_FREQUENCY: Final = 0.2
"""Seconds (knative/serving pkg/activator/net/revision_backends.go)."""


@dataclass
class Revision:
    """A revision's backends, watched as revision_backends.go `revisionWatcher` does."""

    mesh: bool
    """config-network `mesh-compatibility-mode: enabled`: never try the pods' own addresses."""

    pods: list[str] = field(default_factory=list)
    cluster_ip: str = ""
    destination: str = ""
    """Where requests go; empty until a probe has passed."""

    wakeups: int = 0
    waiting: int = 0
    probes: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    pods_addressable: bool = True

    async def scale(self, pods: list[str], cluster_ip: str) -> None:
        """Its endpoints are these from now on."""
        async with self.changed:
            if pods != self.pods or cluster_ip != self.cluster_ip:
                self.destination = ""
            self.pods, self.cluster_ip = pods, cluster_ip
            self.changed.notify_all()

    async def watch(self) -> None:
        """Probe while there are pods and none is known to be well."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.pods and not self.destination)
                pods, cluster_ip = self.pods, self.cluster_ip
            found = await self._check(pods, cluster_ip)
            async with self.changed:
                if found and pods is self.pods:
                    self.destination = found
                    self.changed.notify_all()
            if not found:
                await asyncio.sleep(PROBE_FREQUENCY)

    async def _check(self, pods: list[str], cluster_ip: str) -> str:
        """revision_backends.go: checkDests. The pods; through the Service if it may be a mesh."""
        if self.pods_addressable and not self.mesh:
            answers = {pod: await self._probe(pod) for pod in pods}
            well = [pod for pod, (passed, _) in answers.items() if passed]
            if well:
                return well[0]
            if any(not_mesh for _, not_mesh in answers.values()):
                return ""  # it answered, and not as a mesh would: the Service is not tried
        if cluster_ip and (await self._probe(cluster_ip))[0]:
            self.pods_addressable = False
            return cluster_ip
        return ""

    async def _probe(self, destination: str) -> tuple[bool, bool]:
        """revision_backends.go: probe. Whether it passed; whether it shows that no mesh is there.

        502 and 503 may come from a mesh (knative/networking pkg/http/error.go), and so may no
        answer at all; any other status may not.
        """
        headers = [("user-agent", "Knative-Activator-Probe"), ("k-network-probe", "queue")]
        request = Request("GET", "/healthz", destination, Headers(headers))
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                response, content = await call(destination, request)
        except (OSError, TimeoutError):
            self.probes["no answer"] += 1
            return False, False
        self.probes[str(response.status)] += 1
        passed = response.status == 200 and content == b"queue"
        return passed, response.status not in {502, 503}

    async def wait(self, seconds: float) -> str:
        """Where to send a request; after its revision's cold start if need be.

        Raises:
            TimeoutError: there was no ready pod in time.
        """
        if self.destination:
            return self.destination
        self.wakeups += 1
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: self.destination)
                return self.destination
        finally:
            self.waiting -= 1

    def status(self) -> dict[str, Any]:
        """For the control socket."""
        return {
            "ready": bool(self.destination),
            "pods": len(self.pods),
            "destination": self.destination,
            "wakeups": self.wakeups,
            "waiting": self.waiting,
            "probes": dict(self.probes),
        }
