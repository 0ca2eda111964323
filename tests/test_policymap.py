"""A policy in a ConfigMap: watched, so that a change counts at once, and as strict as a file."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.lab.harness.certs import Certificate
from authz.testing import check_request
from tests.kube_double import ApiDouble, Object
from tests.support.clients import connected, http_get, outcome
from tests.support.processes import Folder, Process, serving
from tests.support.waiting import at_last

WHERE = "authz-system/policy/policy.yaml"
TENANT = "tenants: {acme: {namespaces: [web, db]}}\n"


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    (tmp_path / "server").mkdir()
    made = Folder(tmp_path / "server")
    await made.make_keys()
    return made


def configmap(text: str, **metadata: str) -> Object:
    return {
        "metadata": {"name": "policy", "namespace": "authz-system", "annotations": metadata},
        "data": {"policy.yaml": text, "other.yaml": "x"},
    }


@contextmanager
def server(folder: Folder, **more: str) -> Iterator[Process]:
    flags = folder.flags(policy_file=None, policy_configmap=WHERE, **more)
    with serving(folder.path, flags) as running:
        yield running


@functools.cache
def certificate(folder: Folder) -> Certificate:
    return folder.workload("db")


async def asked(folder: Folder, running: Process) -> str:
    """What web's pod is told that calls db's."""
    peer = "spiffe://cluster.local/ns/web/sa/default"
    async with connected(running.port, certificate(folder)) as client:
        return outcome(await client.check("verify", check_request(principal=peer)))


def metric(running: Process, name: str) -> float:
    _, text = http_get(f"{running.http}/metrics")
    (value,) = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(value)


FAILURES = 'authz_reload_failures_total{what="policy"}'
AGE = 'authz_age_seconds{what="policy"}'


async def test_a_change_counts_within_a_second(folder: Folder, api: ApiDouble) -> None:
    api.put("configmaps", configmap(TENANT))
    with server(folder) as running:
        running.ready()
        assert running.line("listening")["policy"] == f"ConfigMap {WHERE}"
        assert await asked(folder, running) == "allowed"
        took = []
        for number, (text, expected) in enumerate(
            [("grants: []", "token-missing"), (TENANT, "allowed")], start=2
        ):
            begun = time.monotonic()
            api.put("configmaps", configmap(text))
            running.line("policy loaded", number)
            took.append(time.monotonic() - begun)
            assert await asked(folder, running) == expected
        assert min(took) < 1  # a machine may be busy once
        api.put("configmaps", configmap(TENANT, who="kubectl"))
        api.put("configmaps", configmap("grants: []"))
        running.line("policy loaded", 4)
        assert len(running.lines("policy loaded")) == 4  # what was no change was none
        assert metric(running, AGE) < 40


async def test_it_asks_for_that_one_configmap_and_no_more(folder: Folder, api: ApiDouble) -> None:
    api.put("configmaps", configmap(TENANT))
    with server(folder) as running:
        running.ready()
    assert {(it.verb, it.plural, it.namespace, it.name) for it in api.requests} == {
        ("list", "configmaps", "authz-system", "policy"),
        ("watch", "configmaps", "authz-system", "policy"),
    }


@pytest.mark.parametrize("bad", ["grants: 7\ntenant: {}\n", "[[[[", "a: &a [*a]\n", "off\n"])
async def test_a_bad_version_is_told_and_counted_and_the_last_good_one_stays(
    folder: Folder, api: ApiDouble, bad: str
) -> None:
    api.put("configmaps", configmap(TENANT))
    with server(folder) as running:
        running.ready()
        api.put("configmaps", configmap(bad))
        line = running.line("new version is bad, the last good one stays")
        assert line["what"] == "policy"
        assert line["problems"][0].startswith("line ")
        assert metric(running, FAILURES) == 1
        assert await asked(folder, running) == "allowed"
        assert http_get(f"{running.http}/readyz")[0] == 200
        api.put("configmaps", configmap("grants: []"))
        running.line("policy loaded", 2)
        assert await asked(folder, running) == "token-missing"
        assert metric(running, FAILURES) == 1


async def test_what_is_gone_stays_in_use(folder: Folder, api: ApiDouble) -> None:
    api.put("configmaps", configmap(TENANT))
    with server(folder) as running:
        running.ready()
        api.put("configmaps", {**configmap(TENANT), "data": {"else.yaml": TENANT}})
        stays = "new version is bad, the last good one stays"
        (problem,) = running.line(stays)["problems"]
        assert problem == (
            "policy_configmap: ConfigMap authz-system/policy has no key policy.yaml: it has "
            "else.yaml in its data"
        )
        api.delete("configmaps", "authz-system", "policy")
        assert running.line(stays, 2)["problems"] == [
            "policy_configmap: ConfigMap authz-system/policy does not exist: create it"
        ]
        assert await asked(folder, running) == "allowed"
        assert metric(running, FAILURES) == 2
        api.put("configmaps", configmap(TENANT))
        at_last(lambda: metric(running, AGE) < 1, "it is what is in use again")


async def test_a_server_is_unready_until_there_is_a_good_policy(
    folder: Folder, api: ApiDouble
) -> None:
    with server(folder) as running:
        unready = "new version is bad, and there is no other: not ready"
        assert "does not exist" in running.line(unready)["problems"][0]
        assert http_get(f"{running.http}/readyz")[0] == 503
        api.put("configmaps", configmap("nonsense: 1\n"))
        running.line(unready, 2)
        assert http_get(f"{running.http}/readyz")[0] == 503
        api.put("configmaps", configmap(TENANT))
        running.ready()
        assert await asked(folder, running) == "allowed"


async def test_without_the_api_server_it_goes_on_with_what_it_has_and_says_so(
    folder: Folder, api: ApiDouble
) -> None:
    api.put("configmaps", configmap(TENANT))
    with server(folder) as running:
        running.ready()
        with api.away():
            line = running.line("policy not readable")
            assert "API server" in line["problem"]
            assert line["ready"] is True
            assert await asked(folder, running) == "allowed"
            assert http_get(f"{running.http}/readyz")[0] == 200
        running.line("policy readable again")
        assert len(running.lines("policy not readable")) >= 1
        api.put("configmaps", configmap("grants: []"))
        running.line("policy loaded", 2)
        assert metric(running, FAILURES) == 0


async def test_the_rule_that_is_missing_is_named(folder: Folder, api: ApiDouble) -> None:
    api.put("configmaps", configmap(TENANT))
    api.forbidden = {"watch"}
    with server(folder) as running:
        line = running.line("policy not readable")
        assert (
            'a Role in authz-system must have the rule {apiGroups: [""], resources: '
            '["configmaps"], resourceNames: ["policy"], verbs: ["watch"]}'
        ) in line["problem"]


async def test_what_the_cluster_adds_waits_for_it(folder: Folder, api: ApiDouble) -> None:
    """Else what the platform forbids would count for a moment, and what it allows would not."""
    labels = {"tenant-authz.dev/tenant": "acme"}
    for name in ("web", "db"):
        api.put("namespaces", {"metadata": {"name": name, "labels": labels}})
    with server(folder, policy_from_cluster="true") as running:
        running.line("new version is bad, and there is no other: not ready")
        at_last(lambda: api.watching >= 3, "all is watched")
        assert http_get(f"{running.http}/readyz")[0] == 503
        assert metric(running, AGE) == float("inf")
        api.put("configmaps", configmap("default_mode: enforce\n"))
        running.ready()
        assert await asked(folder, running) == "allowed"
        at_last(lambda: metric(running, AGE) < 40, "both are current")
        api.put("configmaps", configmap("nonsense: 1\n"))
        running.line("new version is bad, the last good one stays")
        assert await asked(folder, running) == "allowed"
