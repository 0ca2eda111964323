"""The same table on a real API server: `pytest --istiod`; its objects are changed for each row."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio

from authz.check import Level, Site, asked, examine
from authz.kube import ApiServer
from authz.lab import controlplane
from authz.lab.controlplane.api import Api, Refused
from authz.lab.controlplane.running import Plane, _crds
from authz.lab.controlplane.versions import ISTIO
from tests.admission.rows import Json, changed
from tests.check.rows import EXPECTED, ROWS, Row, found
from tests.check.world import HOME, METRICS, Fake, Key, Seen, wanted, world
from tests.command import Run, in_process
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)
session = pytest.mark.asyncio(loop_scope="session")
WANTED = wanted()


class Real:
    """An API server with the sound world, of which the pod `authz-1` tells metrics of ours."""

    def __init__(self, plane: Plane, api: Api, sound: dict[Key, Json]) -> None:
        self.plane = plane
        self.api = api
        self.sound = sound
        self.metrics = METRICS

    async def put(self, before: Mapping[Key, Json], after: Mapping[Key, Json]) -> None:
        """Have what is `after` in place of what was `before`."""
        made = {it: item for it, item in after.items() if before.get(it) != item}
        renewed = {it for it in made if it in before and _anew(before[it], made[it])}
        gone = [before[it] for it in before if it not in after or it in renewed]
        await self.api.delete(gone)
        pods = [it for it in made.values() if it["kind"] == "Pod"]
        await eventually(
            lambda: self._applied([it for it in made.values() if it["kind"] != "Pod"]),
            "no rule that was taken away refuses any more",
        )
        await self.api.apply(pods)  # which need what is named in them

    async def _applied(self, objects: list[Json]) -> bool:
        try:
            await self.api.apply(objects)
        except Refused as error:
            if "denied request" not in str(error):
                raise
            return False
        return True

    async def lines(self, row: Row, monkeypatch: pytest.MonkeyPatch) -> Any:
        """What is said while the world has one break."""
        broken = dict(self.sound)
        for place, item in row.edit(self.sound):
            if item is None:
                del broken[place]
            else:
                broken[place] = item
        fake = Fake({})
        row.answers(fake)
        self.metrics = fake.metrics
        await self.put(self.sound, broken)
        monkeypatch.setenv("KUBECONFIG", str(self.plane.kubeconfig))
        server = ApiServer()
        try:
            return await examine(Site(Seen(server, fake), WANTED, before=row.before))
        finally:
            await server.close()
            self.metrics = METRICS
            await self.put(broken, self.sound)


def _anew(old: Json, new: Json) -> bool:
    """Whether it must be made anew: a pod does not change, and no status goes by itself."""
    return old["kind"] == "Pod" or ("status" in old) != ("status" in new)


@contextmanager
def telling(real: list[Real]) -> Iterator[tuple[str, int]]:
    """A side port that answers at an address that the API server may proxy to."""

    class Side(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = real[0].metrics.encode() if self.path == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback's")
        address = tried.getsockname()[0]
    with ThreadingHTTPServer((address, 0), Side) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield address, server.server_port
        finally:
            server.shutdown()
            thread.join()


def _at(sound: dict[Key, Json], address: str, port: int) -> dict[Key, Json]:
    """The world in which that is the server's side port."""
    place = ("Pod", HOME, "authz-1")
    ips: Json = {"status podIP": address, "status podIPs": [{"ip": address}]}
    ports = {"spec containers authz ports http-metrics containerPort": port}
    return {**sound, place: changed(sound[place], ips | ports)}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real(control_plane: None) -> AsyncIterator[Real]:
    """As a cluster is in which all is well."""
    holder: list[Real] = []
    with telling(holder) as (address, port):
        async with controlplane.running(istio=None) as plane, plane.api() as api:
            await api.apply(await asyncio.to_thread(_crds, ISTIO))
            made = Real(plane, api, _at(world(), address, port))
            holder.append(made)
            rules = {it: item for it, item in made.sound.items() if "Admission" in it[0]}
            await made.put({}, {it: made.sound[it] for it in made.sound.keys() - rules.keys()})
            await made.put({}, rules)  # which judge what comes later
            yield made


@session
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_is_broken_is_told(
    row: Row, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = found(await real.lines(row, monkeypatch), row.check).answer
    assert (answer.level, row.said in answer.what) == (row.level, True), answer


@session
async def test_the_command_finds_nothing_to_mend(
    real: Real, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Run = in_process(monkeypatch, capsys)
    monkeypatch.setenv("KUBECONFIG", str(real.plane.kubeconfig))
    done = await asyncio.to_thread(run, "check", "--json")
    rows = done.json["checks"]
    assert {row["check"]: row["level"] for row in rows if row["level"] != "ok"} == EXPECTED, rows
    assert done.code == 0
    assert (await asyncio.to_thread(run, "check", "--pre")).code == 0


@session
async def test_somebody_who_may_read_nothing_learns_that_nobody_knows(
    real: Real,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "/api/v1/namespaces/lab-1/serviceaccounts/lab/token"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await real.api.http.post(path, json=review)
    assert answer.status_code == 201, answer.text
    config = json.loads(real.plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    run: Run = in_process(monkeypatch, capsys)
    done = await asyncio.to_thread(run, "check", "--json")
    assert done.code == 3, [it for it in done.json["checks"] if it["level"] == "problem"]
    levels = {it["check"]: it["level"] for it in done.json["checks"]}
    fine = {"kubernetes-version", "kubernetes-admission"}
    assert {name for name, level in levels.items() if level == Level.OK} == fine
    assert set(levels) == {check.name for _, check in asked(before=False)}
    before = await asyncio.to_thread(run, "check", "--pre", "--json")
    assert before.code == 1
    rows = {it["check"]: it for it in before.json["checks"]}
    assert rows["installer"]["level"] == Level.PROBLEM
