"""Whoever types what the pages say, and what no part of a test's cluster does for him."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import Plane
from tests.admission.rows import Json, thing
from tests.deploy.manifests import ROOT

HOME = "authz-system"
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
DAEMON_SET = f"/apis/apps/v1/namespaces/{HOME}/daemonsets/authz"
JOBS = f"/apis/batch/v1/namespaces/{HOME}/jobs"


def commands(page: str, title: str) -> list[str]:
    """The commands of a section, block by block."""
    text = (ROOT / page).read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = FENCE.findall(section)
    assert found, title
    return list(found)


class Newcomer:
    """Who has a clone, kubectl, and a registry."""

    def __init__(
        self, clone: Path, plane: Plane, registry: str, environment: Mapping[str, str]
    ) -> None:
        self.clone = clone
        self.registry = registry
        self.environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), **environment}

    async def types(self, text: str, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Have a shell do what a page says."""
        text = re.sub(r"(?m)^registry=.*$", "", text)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", f"set -eu\nregistry={self.registry}\n{text}"],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ok or done.returncode == 0, (
            f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
        return done


@asynccontextmanager
async def controllers(api: Api) -> AsyncIterator[None]:
    """What others would do: every pod is ready, every Job done, every namespace ends."""

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.1)
            found = await api.http.get(DAEMON_SET)
            if found.status_code == 200:
                await _ready(api, found.json())
            for it in (await api.read(JOBS))["items"]:
                if not it["status"].get("succeeded"):
                    await _done(api, it)
            for it in (await api.read("/api/v1/namespaces"))["items"]:
                if "deletionTimestamp" in it["metadata"]:
                    path = f"/api/v1/namespaces/{it['metadata']['name']}"
                    await _emptied(api, it["metadata"]["name"])
                    it["spec"] = {"finalizers": []}
                    await api.http.put(f"{path}/finalize", json=it)

    task = asyncio.create_task(go_on())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _ready(api: Api, workload: Json) -> None:
    numbers = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady")
    more = ("updatedNumberScheduled", "numberAvailable")
    status = dict.fromkeys((*numbers, *more), 1) | {"numberMisscheduled": 0}
    status["observedGeneration"] = workload["metadata"]["generation"]
    if workload["status"] != status:
        await api.http.put(f"{DAEMON_SET}/status", json={**workload, "status": status})


async def _done(api: Api, job: Json) -> None:
    now = job["metadata"]["creationTimestamp"]
    ended = {"status": "True", "lastProbeTime": now, "lastTransitionTime": now}
    kinds = ("SuccessCriteriaMet", "Complete")
    status = {"conditions": [{"type": kind, **ended} for kind in kinds], "succeeded": 1}
    status |= {"startTime": now, "completionTime": now, "ready": 0, "terminating": 0}
    path = f"{JOBS}/{job['metadata']['name']}/status"
    await api.http.put(path, json={**job, "status": status})


async def _emptied(api: Api, space: str) -> None:
    for group, kinds in (("api/v1", ("secrets", "configmaps")), ("apis/apps/v1", ("daemonsets",))):
        for kind in kinds:
            await api.http.delete(f"/{group}/namespaces/{space}/{kind}")


def world() -> list[Json]:
    """Namespaces of Istio, Knative and Prometheus, with something in them."""
    spaces = ("istio-system", "knative-serving", "knative-eventing", "monitoring")
    container = {"name": "app", "image": "registry.test/app:1"}
    made = [thing("v1", "Namespace", name, None) for name in spaces]
    for place, name in (("knative-serving", "activator"), ("knative-eventing", "job-sink")):
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
        spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
        made.append(thing("apps/v1", "Deployment", name, place, spec=spec))
    return made
