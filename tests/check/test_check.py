"""Each line of `authz check` fails once, and says so; a cluster that is as it must be has no other.

The same table is played without an API server and, with `pytest --kube`, on a real one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import authz.kube
from authz.check import Level, Line, Site, Wanted, asked, examine, is_well, until_well
from authz.check.site import _names
from authz.kube import KubeError, Resource
from authz.observe import Metrics
from authz.testing import ManualClock
from tests.admission.rows import changed
from tests.check.rows import EXPECTED, ISTIO, ROWS, Row, found
from tests.check.world import HOME, METRICS, Fake, wanted, world
from tests.command import Run
from tests.deploy.manifests import ROOT

SOUND = world()
WANTED = wanted()


async def played(row: Row) -> list[Line]:
    """What is said of the sound world with one break."""
    objects = dict(SOUND)
    for place, item in row.edit(SOUND):
        if item is None:
            del objects[place]
        else:
            objects[place] = item
    fake = Fake(objects)
    row.answers(fake)
    return await examine(Site(fake, WANTED, before=row.before))


@pytest.mark.parametrize("before", [False, True])
async def test_a_cluster_that_is_as_it_must_be_has_nothing_to_mend(*, before: bool) -> None:
    lines = await examine(Site(Fake(SOUND), WANTED, before=before))
    judged = ("may-ingress", "may-alias", "may-status")
    expected = dict.fromkeys(judged, Level.WARNING) if before else EXPECTED
    answers = {line.check.name: line.answer for line in lines}
    assert {name: it for name, it in answers.items() if it.level is not Level.OK} == {
        name: answers[name] for name in expected
    }
    assert all(answers[name].level is level for name, level in expected.items())
    assert is_well(lines)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_is_broken_is_told(row: Row) -> None:
    answer = found(await played(row), row.check).answer
    assert (answer.level, row.said in answer.what) == (row.level, True), answer
    assert bool(answer.remedy) == (row.level is not Level.OK)


def test_every_check_fails_once() -> None:
    names = {check.name for before in (False, True) for _, check in asked(before=before)}
    assert {row.check for row in ROWS if row.level is not Level.OK} == names


def test_every_page_is_there() -> None:
    for _, check in (*asked(before=False), *asked(before=True)):
        page, _, anchor = check.page.partition("#")
        text = (ROOT / page).read_text()
        titles = [line.lower() for line in text.splitlines() if line.startswith("#")]
        slugs = ["".join(c for c in it.lstrip("# ") if c.isalnum() or c in " -") for it in titles]
        assert not anchor or anchor in [slug.replace(" ", "-") for slug in slugs], check.page


@pytest.mark.parametrize(
    "plural",
    ["pods", "namespaces", "envoyfilters", "roles", "secrets", "configmaps", "deployments"],
)
async def test_what_may_not_be_read_is_never_ok(plural: str) -> None:
    fake = Fake(SOUND)
    fake.refused = {plural}
    lines = await examine(Site(fake, WANTED, before=False))
    assert not is_well(lines)
    unread = [line for line in lines if line.answer.level is Level.UNREAD]
    assert unread
    assert all(it.answer.remedy for it in unread)
    assert any("give the account" in it.answer.remedy for it in unread)


async def test_what_is_not_there_is_no_missing_right() -> None:
    objects = {place: it for place, it in SOUND.items() if place != ISTIO}
    lines = await examine(Site(Fake(objects), WANTED, before=True))
    unread = [line.answer.remedy for line in lines if line.answer.level is Level.UNREAD]
    assert unread
    assert not any("right" in it for it in unread)


async def test_the_servers_own_metrics_are_understood() -> None:
    clock = ManualClock(now=1_000_000.0)
    metrics = Metrics(clock)
    metrics.presents(clock() + 86_400)
    metrics.uses_keyring(3)
    metrics.refuses_keyring(False)
    for what in ("keyring", "policy"):
        metrics.fresh(what)
    fake = Fake(SOUND)
    fake.metrics = metrics.text().decode()
    told = await examine(Site(fake, WANTED, before=False))
    levels = {it.check.name: it.answer for it in told if it.group == "Servers"}
    assert {answer.level for answer in levels.values()} == {Level.OK}, levels


class Uneven(Fake):
    """Servers of which all but the first lack some metrics."""

    def __init__(self, number: int, lacking: str = "(none)") -> None:
        server = SOUND["Pod", HOME, "authz-1"]
        names = [f"authz-{it}" for it in range(1, number + 1)]
        more = {("Pod", HOME, name): changed(server, {"metadata name": name}) for name in names}
        super().__init__({**SOUND, **more})
        self._lacking = lacking

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        text = await super().page(pod, port, path)
        if pod.name == "authz-1":
            return text
        return b"".join(it for it in text.splitlines(True) if self._lacking.encode() not in it)


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("server-version", "build_info"),
        ("certificate", "certificate"),
        ("keys", 'what="keyring"'),
        ("policy-age", 'what="policy"'),
        ("unverified", "unverified"),
    ],
)
async def test_one_server_that_tells_nothing_is_not_hidden_by_the_others(
    name: str, lacking: str
) -> None:
    told = await examine(Site(Uneven(2, lacking), WANTED, before=False))
    assert found(told, name).answer.level is Level.UNREAD
    assert "a server tells no" in found(told, name).answer.what


async def test_how_many_of_many_servers_were_asked_is_said() -> None:
    for number, said in ((20, False), (21, True)):
        told = await examine(Site(Uneven(number), WANTED, before=False))
        for it in (it for it in told if it.group == "Servers"):
            assert it.answer.level is Level.OK
            assert ("; 20 of 21 servers were asked" in it.answer.what) is said


async def test_a_server_behind_a_sidecar_has_no_certificate_of_its_own() -> None:
    server = deepcopy(SOUND["Pod", HOME, "authz-1"])
    (own,) = (it for it in server["spec"]["containers"] if it["name"] == "authz")
    own["env"] = [{"name": "AUTHZ_IDENTITY", "value": "xfcc"}]
    fake = Fake({**SOUND, ("Pod", HOME, "authz-1"): server})
    fake.metrics = "".join(line for line in METRICS.splitlines(True) if "certificate" not in line)
    told = await examine(Site(fake, WANTED, before=False))
    assert found(told, "certificate").answer.level is Level.OK


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, it in pairs:
        yield (*path, name)
        if isinstance(it, dict | list):
            yield from places(it, (*path, name))


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_an_object_holds_every_line_answers(seed: int) -> None:
    chance = random.Random(seed)
    names = {("kind",), ("apiVersion",), ("metadata",), ("metadata", "name")}
    names.add(("metadata", "namespace"))
    broken = dict(SOUND)
    for key in chance.sample(sorted(SOUND), 8):
        item = broken[key] = deepcopy(SOUND[key])
        if found := [place for place in places(item) if place not in names]:
            *path, last = chance.choice(found)
            at: Any = item
            for step in path:
                at = at[step]
            at[last] = chance.choice([None, [], {}, "x", 5, True, [None], [{}], {"a": None}])
    before = bool(seed % 2)
    lines = await examine(Site(Fake(broken), WANTED, before=before))
    assert [line.check for line in lines] == [check for _, check in asked(before=before)]
    assert all(it.answer.remedy for it in lines if it.answer.level is not Level.OK)


# -- waiting ---------------------------------------------------------------------------------------


def waiting(
    *looks: list[Line] | KubeError,
) -> tuple[Callable[[], Awaitable[list[Line]]], list[int]]:
    """A look that shows these, one after the other, and the times that it was made."""
    made: list[int] = []

    async def look() -> list[Line]:
        it = looks[min(len(made), len(looks) - 1)]
        made.append(1)
        if isinstance(it, KubeError):
            raise it
        return it

    return look, made


async def lines(*rows: Row) -> list[Line]:
    return await played(rows[0]) if rows else await examine(Site(Fake(SOUND), WANTED, before=False))


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


async def test_it_waits_until_all_is_well() -> None:
    late = await lines(next(row for row in ROWS if row.check == "workload"))
    well = await lines()
    look, made = waiting(KubeError("not there"), late, well)
    clock = Clock()
    assert await until_well(look, 60, sleep=clock.sleep, monotonic=clock) is well
    assert (len(made), clock.now) == (3, 110)


async def test_it_waits_no_longer_than_it_may() -> None:
    late = await lines(next(row for row in ROWS if row.check == "workload"))
    for seconds, times in ((0, 1), (4, 1), (12, 3)):
        look, made = waiting(late)
        clock = Clock()
        assert await until_well(look, seconds, sleep=clock.sleep, monotonic=clock) is late
        assert (len(made), clock.now <= 100 + seconds) == (times, True)
    look, made = waiting(KubeError("not there"))
    clock = Clock()
    with pytest.raises(KubeError, match="not there"):
        await until_well(look, 7, sleep=clock.sleep, monotonic=clock)
    assert len(made) == 2


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """What the command finds for an API server."""

    class Closing(Fake):
        async def close(self) -> None:
            """Nothing is open."""

    fake = Closing(dict(SOUND))
    monkeypatch.setattr(authz.kube, "ApiServer", lambda: fake)
    return fake


def test_the_exit_code_says_whether_all_is_well(run: Run, server: Fake) -> None:
    done = run("check")
    assert (done.code, done.err) == (0, "")
    assert "0 problem, 0 not read" in done.out
    assert "  ok       mutual-tls: mutual TLS is STRICT: STRICT\n" in done.out
    server.metrics = "<html>"
    unread = run("check", "--json")
    assert (unread.code, unread.json["counted"]["not read"]) == (3, 5)
    server.git_version = "v1.20.0"
    both = run("check")
    assert both.code == 1
    assert "  problem  kubernetes-version: Kubernetes is 1.30 or newer: it is v1.20.0\n" in both.out
    assert "do:  upgrade Kubernetes to 1.30 or newer\n" in both.out
    assert "see: deploy/README.md\n" in both.out


def test_before_an_installation_the_service_is_not_missed(run: Run, server: Fake) -> None:
    rows = run("check", "--pre", "--json").json["checks"]
    assert {row["group"] for row in rows} == {
        *("Kubernetes", "You", "Istio", "Knative", "Mesh", "Webhooks", "Policy", "Tenants' rights")
    }
    assert server.allowed


def test_files_say_what_differs(run: Run, server: Fake, tmp_path: Path) -> None:
    sign = ("EnvoyFilter", "istio-system", "tenant-authz-sign")
    spec = {**SOUND[sign]["spec"], "priority": 11}
    server.objects = {**SOUND, sign: {**SOUND[sign], "spec": spec}}
    assert run("check").code == 1
    kept = [it for it in WANTED.filters if it["metadata"]["name"] != sign[2]]
    text = "\n---\n".join(json.dumps(it) for it in [*kept, server.objects[sign]])
    (tmp_path / "filters.yaml").write_text(text)
    assert run("check", "--filters", str(tmp_path / "filters.yaml")).code == 0
    (tmp_path / "policy.yaml").write_text("default_mode: enforce\n")
    done = run("check", "--policy", str(tmp_path / "policy.yaml"), "--json")
    answers = {check["check"]: check["level"] for check in done.json["checks"]}
    assert (answers["modes"], answers["gateway-roles"]) == ("ok", "problem")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--wait", "-1"), 2, "--wait"),
        (("--wait", "nan"), 2, "--wait"),
        (("--policy", "/nowhere.yaml"), 3, "/nowhere.yaml"),
        (("--filters", "/nowhere.yaml"), 3, "/nowhere.yaml"),
    ],
)
def test_what_cannot_be_used_is_told(
    arguments: tuple[str, ...], code: int, said: str, run: Run, server: Fake
) -> None:
    done = run("check", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert server.objects == SOUND


def test_no_cluster_is_no_answer(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = run("check")
    assert (done.code, done.out) == (3, "")
    assert "Set KUBECONFIG" in done.err


def test_a_fake_is_asked_as_the_real_one_is() -> None:
    assert Resource("pods").path == "api/v1/pods"
    wanted_of: Wanted = WANTED
    assert wanted_of.filter("public")["metadata"]["namespace"] == "istio-system"
    assert wanted_of.filter("nothing") == {}


def test_of_a_secret_nothing_is_remembered_but_its_name() -> None:
    """What kubectl applied stands in an annotation of what it applied, data and all."""
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"data": {"kek": "c2VjcmV0"}}'}
    secret = {"metadata": {"name": "kek", "namespace": "authz", "annotations": applied}}
    assert _names(secret) == {"metadata": {"name": "kek", "namespace": "authz", "labels": None}}
