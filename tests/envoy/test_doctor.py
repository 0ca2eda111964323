"""The doctor understands what each supported Envoy says of its configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from authz.doctor import Expected, Finding, Rule, examine, read_dump
from authz.envoyfilters import shipped
from authz.lab.box.istio import box
from authz.lab.world.model import Json
from tests.mesh.conftest import needs_network

pytestmark = [needs_network, pytest.mark.timeout(240)]

EXPECTED = Expected(shipped(), plaintext=["knative-serving"])
TCP = "tenant-authz-tcp"


async def test_a_sound_mesh_and_one_without_tcp(
    executable: Path, envoy_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHZ_ENVOY", str(executable))
    older = envoy_version.startswith("1.36.")
    sound = (without_early_data, {Rule.EARLY_CONNECT}) if older else (tuple, set())
    for patched, rules in (sound, (box.without(TCP), {Rule.TCP_MISSING, Rule.EARLY_CONNECT})):
        found: list[Finding] = []
        async with box.running(tenants=("globex",), patched=patched) as mesh:
            for pod in mesh.proxies:
                found += examine(read_dump(await mesh.config_dump(pod), pod), EXPECTED)
        assert {it.rule for it in found} == rules


def without_early_data(documents: tuple[Json, ...]) -> Iterable[Json]:
    """Envoy 1.36 lacks it. istiod leaves it out for Istio 1.28; the box is of Istio 1.30."""
    for document in documents:
        patches = document["spec"].get("configPatches", [])
        first = {"spec": document["spec"] | {"configPatches": patches[:1]}}
        yield document | first if document["metadata"]["name"] == TCP else document
