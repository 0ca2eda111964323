"""One real API server for the tests of what ships, with a real istiod that reads and injects."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from authz.lab import controlplane
from authz.lab.controlplane import build
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import Plane
from authz.lab.controlplane.versions import ISTIO
from tests.admission.cluster import Cluster
from tests.admission.injector import injecting
from tests.kube.installed import others, webhooks


class Installed(Cluster):
    """A cluster with Istio, Serving's objects, and the kinds of cert-manager and Prometheus."""

    def __init__(self, plane: Plane, api: Api) -> None:
        super().__init__(api)
        self.plane = plane
        self.api = api

    async def kubectl(
        self, *arguments: str | Path, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a user of kubectl sees, as the cluster's admin."""
        return await asyncio.to_thread(
            subprocess.run,
            ["kubectl", "--kubeconfig", self.plane.kubeconfig, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(control_plane: None) -> AsyncIterator[Installed]:
    """As a platform's cluster is before anything of ours."""
    programs = [build.etcd(), build.api_server(), build.istiod(ISTIO)]
    for program in programs:
        build.built(program, lambda _: None)
    async with controlplane.running() as plane, plane.api() as api:
        made = Installed(plane, api)
        await made.apply(await asyncio.to_thread(lambda: [*others()]))
        async with injecting(plane, ISTIO) as injector:
            await made.apply(webhooks(injector))
            yield made
