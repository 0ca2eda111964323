"""What must go on while pods sleep, while we cannot be reached, and while we are replaced."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from authz.lab.box.istio import box
from authz.lab.box.istio.client import Answer, NoAnswer
from authz.lab.box.istio.mesh import AUTHZ, Mesh, Source
from authz.lab.box.knative.messages import Request, Stream, body, reply
from authz.lab.box.knative.net import serve
from authz.lab.harness.service import AuthzServer, Site
from authz.lab.world import paths as world
from authz.lab.world.model import Json, Pod
from tests.paths.conftest import in_the_box
from tests.support.waiting import eventually

pytestmark = in_the_box

TENANTS = ("acme-web", "acme-db", "initech", "globex")
SECOND = "authz-system/authz-2"
IDLE = "acme-db/idle-00001"

# Lets the service's clock run ahead by as many seconds as a file says.
CLOCK = """
import os, pathlib, time
real, ahead = time.time, pathlib.Path(os.environ["CLOCK_AHEAD"])
time.time = lambda: real() + float(ahead.read_text())
"""


class Box:
    """A running box, what is done to it, and the clock of its service."""

    def __init__(self, mesh: Mesh, ahead: Path, stack: AsyncExitStack) -> None:
        self.mesh, self._ahead, self._stack = mesh, ahead, stack

    def later(self, seconds: float) -> None:
        """Let the service's clock be so much ahead."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._ahead)

    async def held(self, pod: str) -> asyncio.Task[Answer]:
        """Let somebody call a service without a pod; the activator holds the request."""
        before = (await self.mesh.revisions())[IDLE]["waiting"]
        calling = asyncio.create_task(self.mesh.call(pod, "http://idle.acme-db/"))

        async def waiting() -> bool:
            assert not calling.done(), calling.result()
            return bool((await self.mesh.revisions())[IDLE]["waiting"] > before)

        await eventually(waiting, "the activator holds the request")
        return calling

    async def replica(self, pod: Pod) -> AuthzServer:
        """Another server on the same keys, in a pod of its own."""
        directory = self.mesh.directory / f"replica-{pod.name}"
        directory.mkdir()
        first = self.mesh.authz
        address = f"{pod.address}:9001"

        async def ready() -> bool:
            return "keyring loaded" in (directory / "authz.log").read_text()

        prefix = self.mesh.network[pod.id].argv(0)
        policy = first.policy_file.read_text()
        site = Site(f"{pod.address}:9000", address, first._site.certificate, policy, ready, prefix)
        return AuthzServer(site, directory, self._stack, first.keys)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(
    tmp_path_factory: pytest.TempPathFactory, istiod: Source | None, *, reuse: bool
) -> AsyncIterator[Box]:
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(CLOCK)
    ahead = folder / "ahead"
    ahead.write_text("0")
    settings = {"CLOCK_AHEAD": str(ahead), "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        async with AsyncExitStack() as stack:
            whole = world.world()
            second = replace(whole.pods[AUTHZ], name="authz-2", address="10.244.1.2", role="none")
            running = box.running(
                whole,
                tenants=TENANTS,
                beside=[second],
                policy=world.policy(),
                source=istiod,
                reuse=reuse,
                patched=box.patient,
            )
            mesh = await stack.enter_async_context(running)
            await mesh.settled()
            yield Box(mesh, ahead, stack)


# ---- scale from zero ----


async def test_a_token_outlives_the_longest_wait_for_a_pod(own: Box) -> None:
    """Made a minute before it was used, as late as a signer may; then held for ten."""
    await own.mesh.scale("acme-db/idle", up=False)
    try:
        first = await own.held("initech/hello")  # at this time the token is made
        own.later(59)
        second = await own.held("initech/hello")
        own.later(59 + 600)
        await own.mesh.scale("acme-db/idle", up=True)
        assert [(await it).status for it in (first, second)] == [200, 200]
    finally:
        own.later(0)
        await own.mesh.scale("acme-db/idle", up=True)


async def test_a_token_does_not_outlive_its_own_time(own: Box, *, reuse: bool) -> None:
    """What the test above would see, were a token too short-lived."""
    if reuse:  # the service's clock alone goes ahead, and what a sidecar kept goes by its own
        await own.mesh.start_proxy_again("acme-db/idle")
    await own.mesh.scale("acme-db/idle", up=False)
    try:
        held = await own.held("initech/hello")
        own.later(800)
        await own.mesh.scale("acme-db/idle", up=True)
        answer = await held
        assert (answer.status, answer.reason) == (403, "token-invalid")
    finally:
        own.later(0)
        await own.mesh.scale("acme-db/idle", up=True)


async def test_a_denied_call_wakes_nothing(own: Box) -> None:
    await own.mesh.scale("acme-db/idle", up=False)
    before = (await own.mesh.revisions())[IDLE]["wakeups"]
    answer = await own.mesh.call("globex/hello", "http://idle.acme-db/")
    assert (answer.status, answer.reason) == (403, "not-allowed")
    assert (await own.mesh.revisions())[IDLE]["wakeups"] == before
    await own.mesh.scale("acme-db/idle", up=True)
    await own.mesh.settled()


# ---- outages ----


@asynccontextmanager
async def cut_off(mesh: Mesh, pod: str) -> AsyncIterator[None]:
    """A pod that cannot reach us, as long as the block lasts."""
    to_us = ["OUTPUT", "-p", "tcp", "--dport", "9000"]
    rule = [*to_us, "-j", "REJECT", "--reject-with", "tcp-reset"]
    mesh.network[pod].run(["iptables", "-I", *rule])
    try:
        yield
    finally:
        mesh.network[pod].run(["iptables", "-D", *rule])


async def test_who_cannot_reach_us_still_calls_its_tenant_and_the_world(own: Box) -> None:
    """Unsigned requests go where mTLS alone proves who calls, and no further."""
    mesh = own.mesh
    async with cut_off(mesh, "acme-web/hello"):
        for url in ("http://hello.acme-db/", "http://plain.acme-web/"):
            assert (await mesh.call("acme-web/hello", url)).status == 200
        assert (await mesh.call("acme-web/hello", "http://outside.test/")).status == 200
        through = await mesh.call("acme-web/hello", "http://idle.acme-db/")
        assert (through.status, through.reason) == (403, "token-missing")


async def test_a_pod_that_cannot_reach_us_lets_nobody_in_but_scales(own: Box) -> None:
    mesh = own.mesh
    scrape = "http://hello-00001-private.acme-db:9090/metrics"
    async with cut_off(mesh, "acme-db/hello"):
        assert (await mesh.call("acme-web/hello", "http://hello.acme-db/")).status == 503
        assert (await mesh.call("knative-serving/autoscaler", scrape)).status == 200
    assert (await mesh.call("acme-web/hello", "http://hello.acme-db/")).status == 200


@contextmanager
def connections_to(mesh: Mesh, pod: str) -> Iterator[None]:
    """New connections to us go to another replica, as kube-proxy has it when endpoints change."""
    to = f"-d {mesh.address(AUTHZ)}/32 --dport 9000 -j DNAT --to-destination {mesh.address(pod)}"
    rule = f"PREROUTING -p tcp {to}:9000".split()
    mesh.network._node.run(["iptables", "-t", "nat", "-I", *rule])
    try:
        yield
    finally:
        mesh.network._node.run(["iptables", "-t", "nat", "-D", *rule])


async def test_we_are_replaced_without_a_request_that_fails(own: Box) -> None:
    """Two replicas, one after the other, while services call each other all the time."""
    mesh = own.mesh
    second = await own.replica(mesh.pod(SECOND))
    await second.start()
    failed: list[tuple[str, str, int | str]] = []
    count, stop, phase = 0, False, "two replicas"

    async def calling(pod: str, url: str, expected: int) -> None:
        nonlocal count
        while not stop:
            status: int | str
            try:
                status = (await mesh.call(pod, url)).status
            except NoAnswer as error:
                status = str(error)
            count += 1
            if status != expected:
                failed.append((phase, pod, status))

    async def passed(more: int) -> None:
        target = count + more

        async def enough() -> bool:
            return count >= target

        await eventually(enough, f"{more} more requests are answered")

    async with asyncio.TaskGroup() as group:
        group.create_task(calling("acme-web/hello", "http://idle.acme-db/", 200))
        group.create_task(calling("initech/hello", "http://hello.acme-db/", 200))
        group.create_task(calling("globex/hello", "http://idle.acme-db/", 403))
        await passed(30)
        with connections_to(mesh, SECOND):  # the first is no endpoint any more
            phase = "the first drains"
            await mesh.authz.stop()
            phase = "the first is gone"
            await passed(30)
            phase = "the first is back"
            await mesh.start_authz()
        phase = "the second drains"
        await second.stop()
        phase = "the second is gone"
        await passed(30)
        stop = True
    assert failed == []


# ---- retries ----


async def test_a_retry_sends_the_same_token_and_is_accepted(own: Box) -> None:
    """Envoy does not come by `sign` again when it retries; here through the activator.

    The last test: it ends an app.
    """
    mesh, caller, to = own.mesh, "initech/hello", "acme-db/idle"
    config = mesh.configs[caller]
    if "dynamic_resources" in config:  # a real istiod feeds it
        await mesh.install([*mesh.world.documents, *mesh.shipped, RETRIES], [caller])
    else:
        _retry(config)
        await mesh.start_proxy_again(caller, config)
    requests: list[Request] = []

    async def answer(request: Request, stream: Stream) -> None:
        await body(stream)
        if request.headers.get("k-network-probe"):
            await reply(stream, 200, b"queue")
            return
        requests.append(request)
        failed = len(requests) < 3
        await reply(stream, 200, b"", [("grpc-status", "14" if failed else "0")])

    await mesh.kill(to)  # its place is taken by an app that is unavailable twice
    listening = mesh.network[to].socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((mesh.address(to), 8012))
    async with serve(answer, sock=listening):
        signed, verified = await mesh.checks(caller), await mesh.checks(to)
        got = await mesh.call(
            caller, "http://idle.acme-db/", headers=[("content-type", "application/grpc")]
        )
        assert (got.status, got.headers.get("grpc-status")) == (200, "0")
        assert len(requests) == 3
        assert _went_on(await mesh.checks(caller) - signed, "sign") == 1
        assert _went_on(await mesh.checks(to) - verified, "verify") == 3


def _went_on(counts: Counter[tuple[str, str]], question: str) -> int:
    """How often a filter let a request go on, asked or by an answer that was kept."""
    return counts[question, "ok"] + counts[question, "disabled"]


RETRY_POLICY = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    "num_retries": 2,
}
RETRIES: Json = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "EnvoyFilter",
    "metadata": {"name": "retries", "namespace": "initech"},
    "spec": {
        "configPatches": [
            {
                "applyTo": "HTTP_ROUTE",
                "match": {"context": "SIDECAR_OUTBOUND"},
                "patch": {"operation": "MERGE", "value": {"route": {"retry_policy": RETRY_POLICY}}},
            }
        ]
    },
}


def _retry(config: Json) -> None:
    """Give all outbound routes the retries that istiod gives those without a VirtualService."""
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            routes = chain["filters"][-1]["typed_config"].get("route_config", {})
            for host in routes.get("virtual_hosts", ()):
                for route in host["routes"]:
                    if "route" in route and listener["traffic_direction"] == "OUTBOUND":
                        route["route"]["retry_policy"] = RETRY_POLICY
