"""The real control plane starts, is what it says, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path

import httpx
import pytest
from lightkube import AsyncClient, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from authz.lab import controlplane
from authz.lab.controlplane import build
from authz.lab.controlplane.api import Api, Refused
from authz.lab.controlplane.versions import ISTIO, ISTIODS, KUBERNETES
from authz.lab.harness.certs import Authority
from authz.lab.harness.processes import CouldNotStart
from authz.lab.record import record
from authz.lab.recordings.reading import Recordings
from authz.lab.world.variants import variants

PATIENCE = 60

istiod = [pytest.mark.usefixtures("control_plane"), pytest.mark.timeout(600)]


def _children() -> set[str]:
    """Living processes of the control plane that are ours."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and str(build.cache()) in command:
            found.add(status.parent.name)
    return found


async def published(api: Api) -> str:
    """The root that istiod hands out in its namespace; empty before."""
    found = await api.read("/api/v1/namespaces/istio-system/configmaps")
    roots = [
        item["data"]["root-cert.pem"]
        for item in found["items"]
        if item["metadata"]["name"] == "istio-ca-root-cert"
    ]
    return "".join(roots)


class TestControlPlane:
    pytestmark = istiod

    async def test_an_api_server_alone_is_real_and_gone_afterwards(self) -> None:
        others = _children()
        async with controlplane.running(istio=None) as plane:
            directory = plane.directory
            async with plane.api() as api:
                version = await api.read("/version")
                assert version["gitVersion"] == f"v{KUBERNETES}"
                nothing = {"apiVersion": "apps/v1", "kind": "Nothing", "metadata": {"name": "n"}}
                with pytest.raises(Refused, match="is its CRD applied"):
                    await api.apply([nothing])
            assert plane.token not in repr(plane)
            client = AsyncClient(KubeConfig.from_file(str(plane.kubeconfig)).get())
            await client.create(Namespace(metadata=ObjectMeta(name="somebody")))
            assert (await client.get(Namespace, "somebody")).metadata is not None
            await client.close()
            async with httpx.AsyncClient(verify=False) as anybody:  # noqa: S501 - no identity
                assert (await anybody.get(f"{plane.address}/api/v1/secrets")).status_code == 403
            assert len(_children() - others) == 2
        assert _children() == others
        assert not directory.exists()

    async def test_it_ends_when_the_block_fails(self) -> None:
        others = _children()
        with pytest.raises(ZeroDivisionError):
            async with controlplane.running(istio=None):
                raise ZeroDivisionError
        assert _children() == others

    async def test_istiod_signs_in_the_name_of_an_authority(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "ca")
        async with controlplane.running(authority=authority) as plane:
            assert plane.istiod is not None
            root = authority.ca_file.read_text().strip()
            async with plane.api() as api, asyncio.timeout(PATIENCE):
                # istiod writes it some time after it is ready, and tells nobody.
                while root not in await published(api):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    @pytest.mark.parametrize("istio", ISTIODS)
    async def test_the_main_variants_recorded_again_are_the_same(self, istio: str) -> None:
        chosen = [it for it in variants() if it.name.startswith(("paths", "attacked"))]
        again = await record(istio, chosen, dt.date(2026, 1, 1))
        recorded = {it.name: it for it in Recordings.of(istio).variants}
        fresh = {it.name: it for it in Recordings(again.content).variants}
        assert fresh.keys() == {it.name for it in chosen}
        for name, variant in fresh.items():
            assert variant.objects == recorded[name].objects
            for pod, sent in variant.items():
                assert sent == recorded[name][pod], f"{name}: {pod}"


def test_without_go_it_is_said_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CouldNotStart, match="install Go"):
        build.built(build.etcd(), print)


def test_an_unknown_istiod_is_an_error_that_names_the_known() -> None:
    with pytest.raises(CouldNotStart, match=ISTIO):
        build.istiod("1.2.3")


def test_what_is_built_is_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []

    def make(work: Path, file: Path) -> None:
        assert not [*work.iterdir()]
        file.write_text("program")
        made.append(file)

    told: list[str] = []
    program = build.Program("thing", "1.0", make)
    assert build.built(program, told.append) == build.built(program, told.append)
    assert len(made) == 1
    assert len(told) == 2
    assert program.file.read_text() == "program"


def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def make(work: Path, file: Path) -> None:
        file.write_text("half")
        raise CouldNotStart("no")

    program = build.Program("thing", "1.0", make)
    with pytest.raises(CouldNotStart):
        build.built(program, print)
    assert [path.name for path in build.cache().iterdir()] == ["thing-1.0.lock"]
