"""The service is down, and comes back: what is closed then, and what goes on. To be played last."""

from __future__ import annotations

from typing import Final

from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.mesh import AUTHZ, Mesh
from authz.lab.box.paths import probes
from authz.lab.box.paths.attacks import Move
from authz.lab.loopback.scenarios.row import Scenario


def _call(pod: str, url: str) -> Move:
    async def move(mesh: Mesh) -> str:
        try:
            answer = await mesh.call(pod, url)
        except NoAnswer:
            return "no answer"
        return f"{answer.status} {answer.app or answer.reason}".rstrip()

    return move


def _probe(name: str) -> Move:
    [probe] = [it for it in probes.PROBES if it.name == name]
    return lambda mesh: probes.played(mesh, probe)


async def _down(mesh: Mesh) -> str:
    await mesh.kill(AUTHZ)
    return await _call("acme-web/hello", "http://hello.acme-db/")(mesh)


async def _back(mesh: Mesh) -> str:
    await mesh.start_authz()
    return await _call("acme-web/hello", "http://idle.acme-db/")(mesh)


OUTAGE: Final[tuple[Scenario[Mesh], ...]] = (
    Scenario("down", "the service is gone: pods let nobody in", "503", _down),
    Scenario(
        "down-activator",
        "nor does the activator",
        "503",
        _call("acme-web/hello", "http://idle.acme-db/"),
    ),
    Scenario(
        "down-foreign",
        "what was denied is not let in",
        "503",
        _call("globex/hello", "http://hello.acme-db/"),
    ),
    Scenario(
        "down-public",
        "nor is the public",
        "503",
        _call("outside/server", "http://hello.acme-web.example.com/"),
    ),
    Scenario(
        "down-outwards",
        "calls out of the mesh go on",
        "200 outside/server",
        _call("acme-web/hello", "http://outside.test/"),
    ),
    Scenario("down-scrape", "services go on scaling", "metrics", _probe("scrape")),
    Scenario("down-readiness", "pods stay ready", "success", _probe("readiness")),
    Scenario("back", "the service is back", "200 acme-db/idle", _back),
    Scenario(
        "back-foreign",
        "and denies what it denied before",
        "403 not-allowed",
        _call("globex/hello", "http://idle.acme-db/"),
    ),
)
"""In this order."""
