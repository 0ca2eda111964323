"""One performance in the box: every path, probe and delivery, the attacks, our outage."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console

from authz.lab.box.istio import box, network
from authz.lab.box.istio.mesh import GATEWAY, Mesh, Source
from authz.lab.box.paths import deliveries, probes, table
from authz.lab.box.paths.attacks import ATTACKS, Action
from authz.lab.box.paths.outage import OUTAGE
from authz.lab.harness.processes import CouldNotStart
from authz.lab.loopback import report
from authz.lab.loopback.play import end_on_sigterm, say
from authz.lab.world import paths as world
from authz.testing import Case, played

_EXAMPLES: Final = (
    ("acme-web/hello", "hello.acme-db", "its own tenant"),
    ("globex/hello", "hello.acme-db", "another tenant: denied"),
    ("globex/hello", "idle.acme-db", "the same through the activator: denied"),
    ("initech/hello", "idle.acme-db", "granted"),
    ("globex/hello", "hello.umbrella", "shadow mode: let in"),
)


async def play(
    *, once: bool, json: bool, source: Source | None = None, reuse: bool = False
) -> bool:
    """Play everything and print it; unless for `once`, stay up until interrupted.

    Args:
        once: end when everything is played.
        json: print the result as JSON.
        source: where the Envoys' configurations come from, as `box.running` takes it.
        reuse: proxies give answers again, as of `box.running`.

    Returns:
        Whether all that was seen was expected.

    Raises:
        CouldNotStart: something did not come up, or we are not root.
    """
    end_on_sigterm()
    if lacking := network.missing():
        raise CouldNotStart(f"--knative: {lacking}")
    started = time.monotonic()
    say("starting Knative and Istio in a box")
    running = box.running(
        world.world(), policy=world.policy(), extra=world.scoped(), source=source, reuse=reuse
    )
    async with running as mesh:
        await mesh.settled()
        say(f"playing the scenarios on {len(mesh.proxies)} Envoys")
        results = [it async for it in played((*scenarios(), *OUTAGE), lambda case: case.call(mesh))]
        as_expected = report.differences(results) == 0
        report.show(results, await mesh.proxies[GATEWAY].version(), json=json)
        say(f"it took {time.monotonic() - started:.0f} seconds")
        if not as_expected:
            say(report.last_words(mesh.directory))
        if not once:
            _invite(mesh, on_stderr=json)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return as_expected


def scenarios() -> Iterator[Case[Action]]:
    """All that leaves the box as it was."""
    for path in table.PATHS:
        for relation in path.outcomes:
            shows = f"{path.way}, {_WHO[relation]}"
            name = f"{path.name}-{relation}"
            yield Case(name, shows, path.expected(relation), _path(path, relation))
    for probe in probes.PROBES:
        yield Case(f"probe-{probe.name}", probe.what, probe.expected, _probe(probe))
    for way in deliveries.DELIVERIES:
        for relation in way.outcomes:
            shows = f"an event, {way.way}, {_WHO[relation]}"
            name = f"event-{way.name}-{relation}"
            yield Case(name, shows, way.expected(relation), _delivery(way, relation))
    yield from ATTACKS


_WHO: Final = {
    "own": "own namespace",
    "sibling": "own tenant",
    "granted": "granted",
    "foreign": "another tenant",
    "outside": "from outside",
}


def _path(path: table.Path, relation: table.Relation) -> Action:
    return lambda mesh: table.played(mesh, path, relation)


def _probe(probe: probes.Probe) -> Action:
    return lambda mesh: probes.played(mesh, probe)


def _delivery(delivery: deliveries.Delivery, relation: table.Relation) -> Action:
    return lambda mesh: deliveries.played(mesh, delivery, relation)


def _invite(mesh: Mesh, *, on_stderr: bool) -> None:
    """Say what to type while the box stays up: `curl` as the app in a pod."""
    lines = ["", "The box is up. As root, an app calls through its own sidecar:", ""]
    for pod, host, why in _EXAMPLES:
        lines.append(f"  {_curl(mesh, pod, host)}  # {pod}: {why}")
    public = "hello.acme-web.example.com"
    at = f"--connect-to ::{mesh.address(GATEWAY)}:8080"
    enter = f"nsenter --net={mesh.network['outside/server'].path}"
    lines += [f"  {enter} curl -i {at} http://{public}/  # from outside", ""]
    lines += ["What reached an app, and what the service logs:", ""]
    lines += [
        f"  curl --unix-socket {mesh.directory}/acme-db.hello.control http://_/seen",
        f"  tail -f {mesh.directory}/authz.log",
        "",
        "Ctrl-C ends it.",
        "",
    ]
    console = Console(stderr=on_stderr, soft_wrap=True, highlight=False)
    console.print("\n".join(lines), markup=False)


def _curl(mesh: Mesh, pod: str, host: str) -> str:
    address = mesh.address(host, mesh.pod(pod).namespace)
    enter = f"nsenter --net={mesh.network[pod].path}"
    return f"{enter} curl -i --connect-to ::{address}:80 http://{host}/"
