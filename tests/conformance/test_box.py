"""The matrix among real Envoys, and that each of its denials can fail."""

from __future__ import annotations

import pytest

from authz.conformance import MATRIX, play
from authz.conformance.matrix import ALLOWED
from authz.lab.box.istio.box import Patched, without
from authz.lab.box.istio.mesh import Source
from authz.lab.world import attacked as worlds
from authz.lab.world.model import Json
from tests.mesh.conftest import needs_network

box = pytest.importorskip("authz.lab.box.conformance")

OPEN = worlds.mutual_tls("globex", "PERMISSIVE")

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.timeout(600),
]


async def different(patched: Patched, source: Source | None, *, reuse: bool) -> set[str]:
    results = await play(box.driver(patched, source, reuse=reuse), MATRIX)
    assert [it.case for it in results] == list(MATRIX)
    return {result.case.name for result in results if not result.ok}


async def test_all_is_as_it_must_be(istiod: Source | None, *, reuse: bool) -> None:
    assert await different(tuple, istiod, reuse=reuse) == set()


async def test_it_is_not_without_the_filters(istiod: Source | None, *, reuse: bool) -> None:
    """Nobody is asked, and everybody is in plaintext: what is left is what has no way there."""

    def nothing(documents: tuple[Json, ...]) -> list[Json]:
        kinds = {"EnvoyFilter"}
        return [document for document in documents if document["kind"] not in kinds] + [OPEN]

    found = await different(nothing, istiod, reuse=reuse)
    for name in {it.name for it in MATRIX if it.expected != ALLOWED} - KEPT_OUT_ANYHOW:
        assert name in found


KEPT_OUT_ANYHOW = {
    "no sidecar, by the local gateway",  # it takes mutual TLS only
    "dressed as a probe",
    "queue-proxy's metrics",
}


async def test_a_token_reaches_the_app_without_strip(istiod: Source | None, *, reuse: bool) -> None:
    assert "a forged token does not reach the own app" in await different(
        without("tenant-authz-sign", "tenant-authz-verify"), istiod, reuse=reuse
    )
