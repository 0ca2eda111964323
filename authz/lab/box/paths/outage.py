"""The service is down, and comes back: what is closed then, and what goes on. To be played last."""

from __future__ import annotations

from time import monotonic
from typing import Final

from authz.lab.box.istio.mesh import AUTHZ, Mesh
from authz.lab.box.paths import probes
from authz.lab.box.paths.attacks import Action
from authz.lab.box.paths.table import called
from authz.lab.harness.service import KEPT
from authz.testing import Case, Outcome


def _call(pod: str, url: str) -> Action:
    return lambda mesh: called(mesh, pod, url)


def _probe(name: str) -> Action:
    [probe] = [it for it in probes.PROBES if it.name == name]
    return lambda mesh: probes.played(mesh, probe)


async def _hello(mesh: Mesh) -> Outcome:
    return await called(mesh, "acme-web/hello", "http://hello.acme-db/")


async def _down(mesh: Mesh) -> Outcome:
    """Where answers are kept, the first call that is not let in, or that began after their time."""
    await _hello(mesh)
    await mesh.kill(AUTHZ)
    ends = monotonic() + (KEPT["reuse_verify_seconds"] if mesh.reuse else 0)
    while True:
        begun = monotonic()
        outcome = await _hello(mesh)
        if outcome.status != 200 or begun >= ends:
            return outcome


async def _back(mesh: Mesh) -> Outcome:
    await mesh.start_authz()
    return await called(mesh, "acme-web/hello", "http://idle.acme-db/")


OUTAGE: Final[tuple[Case[Action], ...]] = (
    Case(
        "down",
        "the service is gone: pods let nobody in, at most two seconds later if answers are kept",
        "503",
        _down,
    ),
    Case(
        "down-activator",
        "nor does the activator",
        "503",
        _call("acme-web/hello", "http://idle.acme-db/"),
    ),
    Case(
        "down-foreign",
        "what was denied is not let in",
        "503",
        _call("globex/hello", "http://hello.acme-db/"),
    ),
    Case(
        "down-public",
        "nor is the public",
        "503",
        _call("outside/server", "http://hello.acme-web.example.com/"),
    ),
    Case(
        "down-outwards",
        "calls out of the mesh go on",
        "200 outside/server",
        _call("acme-web/hello", "http://outside.test/"),
    ),
    Case("down-scrape", "services go on scaling", "metrics", _probe("scrape")),
    Case("down-readiness", "pods stay ready", "success", _probe("readiness")),
    Case("back", "the service is back", "200 acme-db/idle", _back),
    Case(
        "back-foreign",
        "and denies what it denied before",
        "403 not-allowed",
        _call("globex/hello", "http://idle.acme-db/"),
    ),
)
"""In this order."""
