"""The doctor among real Envoys: silent where all is sound, not where a rule was taken away."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from authz.doctor import Expected, Finding, Rule, examine, read_dump
from authz.envoyfilters import shipped
from authz.lab.box.istio import box
from authz.lab.box.istio.mesh import Mesh
from authz.lab.world.model import Json
from tests.mesh.conftest import needs_network

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.timeout(240),
]


async def examined(mesh: Mesh, ours: Iterable[Json]) -> list[Finding]:
    expected, found = Expected(ours, plaintext=["knative-serving"]), []
    for pod in mesh.proxies:
        workload = read_dump(await mesh.config_dump(pod), pod)
        assert workload.name == pod
        found += examine(workload, expected)
    return found


@pytest.mark.asyncio(loop_scope="session")
async def test_silent_on_every_proxy_of_the_sound_mesh(mesh: Mesh) -> None:
    """Those that a real istiod feeds have a bootstrap of ours in place of the agent's."""
    found = await examined(mesh, mesh.shipped)
    assert [it for it in found if it.rule is not Rule.AGENT] == []


@pytest.mark.parametrize(
    ("missing", "rules"),
    [
        (
            (
                "tenant-authz-sign",
                "tenant-authz-scrape",
                "tenant-authz-public",
                "tenant-authz-transit",
            ),
            {
                Rule.SIGN_MISSING,
                Rule.CARRY_MISSING,
                Rule.SCRAPE_MISSING,
                Rule.PUBLIC_MISSING,
                Rule.STRIP_MISSING,
                Rule.TRANSIT_MISSING,
                Rule.UNEXPECTED,
            },
        ),
    ],
)
async def test_what_real_envoys_lack(
    missing: tuple[str, ...], rules: set[Rule], *, reuse: bool
) -> None:
    running = box.running(tenants=("acme-web",), patched=box.without(*missing), reuse=reuse)
    async with running as mesh:
        also = {Rule.FILTER_MISSING, Rule.FIELD} if reuse else set()  # what stands before those
        assert {
            it.rule for it in await examined(mesh, shipped("reuse" if reuse else ""))
        } == rules | also
